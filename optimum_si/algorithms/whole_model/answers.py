"""What a model answers, as recovery compares it: the input of its output head, or its final outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.errors import ConfigurationError, NumericalError, UnsupportedModelError
from optimum_si.models.forward.modes import inputs_for

from .divergence import (
    Head,
    error_probe,
    head_divergence,
    head_probe,
    logit_divergence,
    logit_probe,
    relative_error,
)


@dataclass(frozen=True, eq=False)
class Answers:
    """Runs a model and gives what it answers for each window of a batch, and how far that is from other answers.

    Args:
        model: in evaluation mode, without a cache.
        scale: factor and soft bound of the logits that the output head makes of the answers, where these are its
            inputs; None where answers are final outputs.
        gives_logits: without such a head, whether answers are logits over two or more classes, or any other values.
        hidden_weight: weight of the distance of the head's inputs beside that of its logits.
        dense_head: of the dense model; None where the model has the same.
        alone: whether windows pass one by one, since the answer for one depends on the others of its batch.
    """

    model: nn.Module
    scale: tuple[float, float | None] | None
    gives_logits: bool
    hidden_weight: float = 0.0
    dense_head: Head | None = None
    alone: bool = False

    @classmethod
    @torch.no_grad()
    def of(cls, model: nn.Module, window: Mapping[str, Tensor], hidden_weight: float = 0.0) -> "Answers":
        """See on one window how the model makes its answers.

        Args:
            model: in evaluation mode, without a cache.
            window: an example, tensors with a leading dimension of 1.
            hidden_weight: as the field.
        """
        inputs = inputs_for(model, without_labels(window))
        output = model(**inputs)
        logits = _final(output)
        module, alone = _output_head(model), _takes_one_text(model) or _compares(output)
        if module is not None and "logits" in output:
            hidden = _head_inputs(model, module, inputs)
            if len(hidden) == 1 and hidden[0].shape[:-1] == logits.shape[:-1]:
                scale = _scale(_head(module), hidden[0], logits, model)
                if scale is not None:
                    return cls(model, scale, True, hidden_weight, alone=alone)
        return cls(model, None, "logits" in output and logits.shape[-1] > 1, hidden_weight, alone=alone)

    def for_model(self, model: nn.Module) -> "Answers":
        """How a pruned model's answers are compared with those of this one, which stays dense.

        Raises:
            ConfigurationError: for ``hidden_weight`` where the two have other bases for their last hidden states.
        """
        mine, other = _output_head(self.model), _output_head(model)
        if model is self.model or self.scale is None or mine is None:
            return replace(self, model=model)
        if other is None or other.weight.shape != mine.weight.shape:
            shapes = [None if head is None else list(head.weight.shape) for head in (other, mine)]
            raise UnsupportedModelError(
                f"the output heads of the pruned model and of the dense one are {shapes[0]} and {shapes[1]}: give the "
                "dense model that it was made from."
            )
        if torch.equal(*(head.weight.detach().float().cpu() for head in (mine, other))):
            return replace(self, model=model)
        if self.hidden_weight:
            raise ConfigurationError(
                "recovery.hidden_weight compares last hidden states, and the pruned model has others than the dense "
                "one (its output head differs, as after a rotation): set it to 0."
            )
        return replace(self, model=model, dense_head=_head(mine, *self.scale))

    def __call__(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """Answers for each window of a batch, [tokens, features] without padding, or [1, values]."""
        size = len(next(iter(batch.values())))
        if size > 1 and self.alone:
            alone = ({name: value[row : row + 1] for name, value in batch.items()} for row in range(size))
            return [answer for window in alone for answer in self(window)]
        inputs = inputs_for(self.model, dict(batch))
        if self.scale is None:
            values = _final(self.model(**inputs))
        else:
            module = _output_head(self.model)
            assert module is not None
            (values,) = _head_inputs(self.model, module, inputs)
        mask = _mask(inputs, values)
        # A number for each token, such as where an answer starts.
        if values.ndim == 2 and mask is not None and not self.gives_logits:
            values = values[..., None]
        if values.ndim < 3:
            return list(values.reshape(len(values), 1, -1))
        rows = values.flatten(2)
        return list(rows) if mask is None else [row[real] for row, real in zip(rows, mask, strict=True)]

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Sum over tokens of the distance of answers [tokens, features] from the dense model's.

        Raises:
            UnsupportedModelError: where answers for one window depend on the others of its batch.
        """
        if student.shape != teacher.shape:
            raise UnsupportedModelError(
                f"{type(self.model).__name__} answers with {list(student.shape)} values where it gave "
                f"{list(teacher.shape)} before: recovery needs a model whose answer for a window does not depend on "
                "the others of its batch. Leave recovery out."
            )
        teacher = teacher.to(student.device)
        # Whatever the blocks compute in: logits in bf16 would be too far off.
        with torch.autocast(student.device.type, enabled=False):
            if self.scale is not None:
                module = _output_head(self.model)
                assert module is not None
                loss = head_divergence(student, teacher, _head(module, *self.scale), self.dense_head)
                return loss + self.hidden_weight * relative_error(student, teacher) if self.hidden_weight else loss
            return logit_divergence(student, teacher) if self.gives_logits else relative_error(student, teacher)

    def probe(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """A random function of answers [tokens, features], to take gradients of.

        The outer product of its gradient is, on average, the second derivative of :meth:`distance` where the answers
        are the dense model's own.

        Raises:
            NumericalError: for answers that are not finite.
        """
        check_answers(self.model, values)
        with torch.autocast(values.device.type, enabled=False):
            if self.scale is not None:
                module = _output_head(self.model)
                assert module is not None
                gradient = head_probe(values, _head(module, *self.scale), generator)
            else:
                gradient = (logit_probe if self.gives_logits else error_probe)(values, generator)
            return (values * gradient).sum()


def _takes_one_text(model: Any) -> bool:
    """Whether a classifier cannot tell where texts of a batch end: decoders with such a head look for padding."""
    without_padding = getattr(model.config.get_text_config(), "pad_token_id", None) is None
    return without_padding and type(model).__name__.endswith("ForSequenceClassification")


def _compares(output: Any) -> bool:
    """Whether a model answers with how well each image, or sound, of a batch suits each text of it (CLIP)."""
    return isinstance(output, Mapping) and any(name.startswith("logits_per_") for name in output)


def check_answers(model: nn.Module, values: Tensor) -> None:
    """Raise :class:`NumericalError` where a model's answers hold NaN or infinity."""
    if not bool(torch.isfinite(values).all()):
        raise NumericalError(
            f"the model {type(model).__name__} answers with NaN or infinity on the calibration data, before anything "
            "is pruned: check its weights and dtype (float16 overflows easily; try dtype='float32')."
        )


def without_labels(window: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A window without labels, with which models compute a loss of their own."""
    return {name: value for name, value in window.items() if name != "labels"}


def _final(output: Any) -> Tensor:
    return output["logits"] if "logits" in output else output[0]


def _output_head(model: Any) -> nn.Linear | None:
    """The module that makes logits of hidden states, where the model says that it has one."""
    getter = getattr(model, "get_output_embeddings", None)
    head = None if getter is None else getter()
    return head if isinstance(head, nn.Linear) else None


def _head(module: nn.Linear, factor: float = 1.0, cap: float | None = None) -> Head:
    """The head as its module is now."""
    bias = getattr(module, "bias", None)
    return Head(module.weight.detach(), None if bias is None else bias.detach(), factor, cap)


def _head_inputs(model: nn.Module, head: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    """What the head is called with in a forward pass that makes no logits."""
    found: list[Tensor] = []

    def instead(hidden: Tensor) -> Tensor:
        found.append(hidden)
        return hidden[..., :1]

    own = head.__dict__.get("forward")
    head.forward = instead  # type: ignore[method-assign]
    try:
        model(**inputs)
    finally:
        if own is None:
            del head.forward
        else:
            head.forward = own
    return found


def _scale(head: Head, hidden: Tensor, logits: Tensor, model: Any) -> tuple[float, float | None] | None:
    """The factor and the bound with which a head gives the model's own logits; None where none do."""
    logits, hidden = logits.float().flatten(0, -2), hidden.flatten(0, -2)
    plain = head.logits(hidden).float()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None) or None
    unbound = logits if cap is None else cap * torch.atanh((logits / cap).clamp(-1 + 1e-6, 1 - 1e-6))
    factor = float((plain * unbound).sum() / plain.square().sum().clamp_min(1e-30))
    tolerance = 1e-3 if head.weight.dtype in (torch.float32, torch.float64) else 3e-2
    factor = 1.0 if abs(factor - 1) < tolerance else factor
    error = Head(head.weight, head.bias, factor, cap).logits(hidden).float() - logits
    return (factor, cap) if float(error.norm()) <= tolerance * float(logits.norm()) else None


def _mask(inputs: Mapping[str, Tensor], values: Tensor) -> Tensor | None:
    """True at real tokens of what a model answers, bool [batch, tokens]; None where nothing is padded."""
    for name in ("decoder_attention_mask", "attention_mask"):
        mask = inputs.get(name)
        if mask is not None and mask.ndim == 2 and mask.shape == values.shape[:2]:
            return None if "decoder_input_ids" in inputs and name == "attention_mask" else mask.bool()
    return None
