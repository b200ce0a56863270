"""Whether a language model came apart: its perplexity on a little calibration text, before and after a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from optimum_si.models.forward.modes import inputs_for
from optimum_si.warnings import warn

from .plan import Plan


#: Times the dense model's perplexity beyond which a model is said to have come apart.
LIMIT = 20.0
#: Windows that are looked at, and tokens of them in all: enough to tell twenty times from twice, at the cost of a
#: hundredth of a usual run's passes.
WINDOWS, TOKENS = 2, 256
#: Loss that stands for any larger one, and for NaN.
MOST = 700.0
#: Predictions below which nothing is said.
FEWEST = 16
#: Of a batch, what a language model reads as text.
_TEXT = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids", "labels"})


@dataclass(frozen=True, eq=False)
class PerplexitySample:
    """A little text and the dense model's perplexity on it.

    Args:
        plan: of the run.
        inputs: of the model, [windows, tokens].
        dense: perplexity before anything was pruned.
    """

    plan: Plan
    inputs: dict[str, Tensor]
    dense: float

    @classmethod
    def of(cls, plan: Plan, batches: Sequence[dict[str, Tensor]], num_held_out: int) -> Self | None:
        """The sample of a run; None where the model predicts no next tokens, or nothing is pruned.

        Args:
            plan: of the run; its model is dense, in evaluation mode, without a cache.
            batches: of calibration, those that are held out first; where none is, the last, with the longest windows,
                is looked at.
            num_held_out: how many are held out.
        """
        model, batch = plan.model, batches[num_held_out - 1]
        if not plan.write or model.config.is_encoder_decoder or not model.can_generate():
            return None
        if "input_ids" not in batch or not batch.keys() <= _TEXT:
            return None
        rows = min(len(batch["input_ids"]), WINDOWS)
        inputs = {name: batch[name][:rows, : TOKENS // rows] for name in ("input_ids", "attention_mask")}
        dense = _perplexity(model, inputs)
        return None if dense is None or dense >= math.exp(MOST) else cls(plan, inputs, dense)

    def compared(self) -> tuple[float, float] | None:
        """Perplexity before and now, with a warning where it exploded; None where it cannot be told."""
        now = _perplexity(self.plan.model, self.inputs)
        if now is None:
            return None
        if now > LIMIT * self.dense:
            self._warn(now)
        return self.dense, now

    def _warn(self, now: float) -> None:
        config = self.plan.config
        tries = [f"fewer zeros than {config.target_name}"]
        if config.method != "sparsegpt" and config.reconstruction == "none":
            tries.append("method='sparsegpt'")
        if config.reconstruction == "none":
            tries.append('preset="fast" or "best", which fit the kept weights')
        if config.recovery is None:
            tries.append("recovery=True")
        warn(
            f"the model came apart: its perplexity on calibration text is {now:,.4g}, {now / self.dense:,.4g} times "
            f"the dense model's {self.dense:,.4g}. Try {', '.join(tries)}, more or other calibration text, or leave "
            "the worst layers of the report dense with exclude."
        )


@torch.no_grad()
def _perplexity(model: PreTrainedModel, inputs: dict[str, Tensor]) -> float | None:
    """exp of the mean loss of the next token, at most of :data:`MOST`; None without logits or enough tokens."""
    inputs = inputs_for(model, inputs)
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    predicted = real[:, 1:] & real[:, :-1]
    logits = getattr(model(**inputs), "logits", None)
    if logits is None or logits.shape[:-1] != ids.shape or int(predicted.sum()) < FEWEST:
        return None
    loss = float(cross_entropy(logits[:, :-1][predicted].float(), ids[:, 1:][predicted]))
    # Beyond that no float holds it, and JSON has no infinity.
    return math.exp(MOST if math.isnan(loss) else min(loss, MOST))
