"""What an error of a layer's output costs the dense model's answers, from one backward pass over a little data."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from optimum_si.algorithms.whole_model.answers import Answers, without_labels
from optimum_si.algorithms.whole_model.passing import (
    checkpointed,
    fast_products,
    has_fast_products,
    only_trained,
    tried_in_fast_products,
)
from optimum_si.calibration import without_padding
from optimum_si.errors import NumericalError
from optimum_si.linalg.moments import MomentAccumulator, Moments
from optimum_si.models.forward.modes import widened
from optimum_si.models.weight_view import WeightView


#: Tokens that are looked at, and what an example counts that has no token ids.
TOKENS, UNKNOWN = 4096, 128


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What the dense model's answers suffer by errors of one layer.

    With g the gradient, in the layer's output at one token, of a random function of the answers whose outer product
    is on average the second derivative of their distance (the Fisher information where answers are distributions), an
    error e of that output moves the answers by (g e)^2 / 2 on average.

    Args:
        curvature: E[g^2] of each output times the tokens that reach the layer, fp64 [d_out].
        moments: of the layer's inputs, without the Gram matrix.
    """

    curvature: Tensor
    moments: Moments


def sensitivities(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    views: Sequence[WeightView],
    examples: Sequence[Mapping[str, Tensor]],
    seed: int,
) -> dict[str, Sensitivity]:
    """Run the dense model forward and backward over a few examples, one after the other.

    Args:
        model: dense, in evaluation mode, without a cache; its parameters get no gradients.
        blocks: of the model; they are computed again in the backward pass, so that one at a time is in memory.
        views: layers that are asked for.
        examples: of calibration, tensors with a leading dimension of 1.
        seed: of the random functions.

    Returns:
        Of each layer that the examples reach, by the name of its view.
    """
    parameter = next(model.parameters())
    device = parameter.device
    watched = {id(view.module): _Watched() for view in views}
    modules = {id(view.module): view.module for view in views}
    generator = torch.Generator(device).manual_seed(seed)
    # Gradients may leave the range of fp16.
    wide = widened(model) if parameter.dtype == torch.float16 else nullcontext()
    with wide, only_trained(model, {}), checkpointed(blocks):
        chosen = _spread([without_padding(without_labels(example)) for example in examples])
        answers = Answers.of(model, chosen[0])
        quick = has_fast_products(device) and tried_in_fast_products(device, partial(answers, chosen[0])) is not None
        hooks = [module.register_forward_hook(watched[key].called) for key, module in modules.items()]
        try:
            for example in chosen:
                with torch.enable_grad(), fast_products(device, wanted=quick):
                    values = torch.cat(answers(example))
                    if values.requires_grad:  # else no layer that is asked for was reached
                        answers.probe(values, generator).backward()
        finally:
            for hook in hooks:
                hook.remove()
    seen = {view.name: (view, watched[id(view.module)]) for view in views}
    for view, found in seen.values():
        if found.squares is not None and not bool(torch.isfinite(found.squares).all()):
            raise NumericalError(
                f"layer {view.name!r}: gradients of the model's answers overflow, so that zeros cannot be shared out "
                "by them. Take allocation='uniform', or load the model in dtype='float32'."
            )
    return {
        name: Sensitivity(view.of_outputs(module.squares), module.inputs.moments())
        for name, (view, module) in seen.items()
        if module.squares is not None and module.inputs is not None
    }


class _Watched:
    """Gradients in the outputs of a module, and moments of its inputs."""

    def __init__(self) -> None:
        self.squares: Tensor | None = None
        self.inputs: MomentAccumulator | None = None

    def called(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook. Each call is made twice, once again in the backward pass, which changes no mean."""
        tokens = args[0].detach().flatten(0, -2)
        self.inputs = self.inputs or MomentAccumulator(tokens.shape[-1], gram=False, device=tokens.device)
        self.inputs.add(tokens)
        if not output.requires_grad:  # before the first layer nothing asks for gradients
            output = output.detach().requires_grad_().clone()  # which the model may change in place
        output.register_hook(self.add)
        return output

    def add(self, gradient: Tensor) -> None:
        """Backward hook of an output."""
        squares = gradient.flatten(0, -2).double().square().sum(dim=0)
        self.squares = squares if self.squares is None else self.squares + squares


def _spread(examples: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Examples of about :data:`TOKENS` tokens in all, evenly spread over the data."""
    sizes = [example["input_ids"].numel() if "input_ids" in example else UNKNOWN for example in examples]
    return examples[:: max(sum(sizes) // TOKENS, 1)]
