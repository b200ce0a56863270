"""What the dense model answers for every window of a recovery, kept until it is pruned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from optimum_si.algorithms.whole_model.answers import Answers, check_answers, without_labels
from optimum_si.algorithms.whole_model.passing import fast_products, has_fast_products, tried_in_fast_products
from optimum_si.calibration import make_batches
from optimum_si.errors import CalibrationError

from .steps import Steps


#: How far answers to train towards may be from those in fp32, in the units of a recovery's loss.
NOISE = 0.01


@dataclass(frozen=True, eq=False)
class References:
    """Windows with the dense model's answers.

    Args:
        windows: examples, tensors with a leading dimension of 1, without labels.
        answers: how a model's answers are compared.
        dense: for each window what the dense model answers, [tokens, features] in its own dtype, or in bf16 where that
            is close enough to train towards.
        steps: which windows are trained on together, and which are held out.
        padding_id: token that fills shorter windows of a batch.
    """

    windows: Sequence[Mapping[str, Tensor]]
    answers: Answers
    dense: Sequence[Tensor]
    steps: Steps
    padding_id: int

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: nn.Module,
        windows: Sequence[Mapping[str, Tensor]],
        batch_size: int,
        seed: int,
        padding_id: int = 0,
        hidden_weight: float = 0.0,
    ) -> "References":
        """Ask the model, still dense, in one pass over the windows.

        Args:
            model: in evaluation mode, without a cache.
            windows: examples, tensors with a leading dimension of 1.
            batch_size: windows of a step.
            seed: of the run.
            padding_id: token that fills shorter windows of a batch.
            hidden_weight: weight of the distance of last hidden states beside that of logits.

        Raises:
            CalibrationError: for fewer than two windows: one of them has to be held out.
        """
        if len(windows) < 2:
            raise CalibrationError(
                f"recovery got {len(windows)} window(s), and needs one to train on and one to judge by: give more "
                "text, or a shorter sequence_length."
            )
        windows = [without_labels(window) for window in windows]
        steps = Steps.of(windows, batch_size, seed)
        answers = Answers.of(model, windows[0], hidden_weight)
        found = cls(windows, answers, [], steps, padding_id)
        dense = found._answered(steps.held_out)
        # What is trained towards may be a little off where that takes half the time and memory, what judges may not.
        close = found._is_close_in_fast_products(dense)
        with fast_products(next(model.parameters()).device, wanted=close):
            dense |= found._answered([index for index in range(len(windows)) if index not in dense], narrow=close)
        return cls(windows, answers, [dense[index] for index in range(len(windows))], steps, padding_id)

    def _answered(self, indices: Sequence[int], narrow: bool = False) -> dict[int, Tensor]:
        """What the model answers for some windows; ``narrow`` keeps it in bf16."""
        found: dict[int, Tensor] = {}
        for part in self.steps.parts(indices):
            # A copy: a view would keep the padded batch alive.
            for index, answer in zip(part, self.answered(part), strict=True):
                check_answers(self.answers.model, answer)
                found[index] = answer.to(torch.bfloat16) if narrow else answer.clone()
        return found

    def _is_close_in_fast_products(self, dense: Mapping[int, Tensor]) -> bool:
        """Whether the model answers nearly the same in narrower products, on the first held-out windows."""
        parameter = next(self.answers.model.parameters())
        if parameter.dtype != torch.float32 or not has_fast_products(parameter.device):
            return False
        part = self.steps.parts(self.steps.held_out)[0]
        answered = tried_in_fast_products(parameter.device, partial(self.answered, part))
        if answered is None:
            return False
        quick = [answer.to(torch.bfloat16) for answer in answered]  # as they would be kept
        exact = [dense[index] for index in part]
        distance = self.answers.distance(torch.cat(quick), torch.cat(exact))
        return float(distance) <= NOISE * sum(len(answer) for answer in exact)

    def for_model(self, model: nn.Module) -> "References":
        """The same windows and answers for a pruned model; :meth:`Answers.for_model` says what it refuses."""
        return replace(self, answers=self.answers.for_model(model))

    def answered(self, part: Sequence[int]) -> list[Tensor]:
        """What the model, as it is now, answers for windows that pass through it together, as far as they can."""
        batches = make_batches([self.windows[index] for index in part], len(part), self.padding_id)
        return [answer for batch in batches for answer in self.answers(batch)]

    @property
    def num_tokens(self) -> int:
        """Answers in all windows: tokens, or one for each window."""
        return sum(len(answer) for answer in self.dense)

    def loss(self, part: Sequence[int], model_answers: Sequence[Tensor]) -> Tensor:
        """Sum over the tokens of some windows of the distance from the dense model's answers."""
        student = torch.cat(list(model_answers))
        # Autocast widens what is joined, and on a CPU it knows no fp16, in which the dense model may have answered.
        with torch.autocast(student.device.type, enabled=False):
            dense = torch.cat([self.dense[index] for index in part])
        return self.answers.distance(student, dense)

    def count(self, part: Sequence[int]) -> int:
        """Answers of some windows."""
        return sum(len(self.dense[index]) for index in part)

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean distance of the model's answers, as it is now, on the held-out windows."""
        held_out = self.steps.held_out
        total = 0.0
        for part in self.steps.parts(held_out):
            total += float(self.loss(part, self.answered(part)))
        return total / max(self.count(held_out), 1)
