"""Which modules are norms, and what may pass through them."""

import torch
from torch import Tensor, nn


def is_norm(module: nn.Module) -> bool:
    """True for normalization layers of any architecture, which say so in the name of their class."""
    return "norm" in type(module).__name__.lower()


def subtracts_mean(norm: nn.Module) -> bool:
    """True where only rotations that leave (1, ..., 1) as it is commute with a norm."""
    return isinstance(norm, nn.LayerNorm)


def commutes_with_rotations(norm: nn.Module) -> bool:
    """True for norms that divide by a length, once their weight is one number in all channels."""
    return subtracts_mean(norm) or "RMSNorm" in type(norm).__name__


def affine(norm: nn.Module | None) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias of a norm, detached; None for what it does not have."""
    parameters = [getattr(norm, name, None) for name in ("weight", "bias")]
    weight, bias = (None if parameter is None else parameter.detach() for parameter in parameters)
    return weight, bias


def norm_parameters(block: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of the norms in a block, by name inside it."""
    return {
        f"{name}.{local}": value
        for name, module in block.named_modules()
        if is_norm(module)
        for local, value in module.named_parameters(recurse=False)
    }


@torch.no_grad()
def weight_offset(norm: nn.Module) -> float | None:
    """What a norm adds to its weight before it multiplies by it: 0, or 1 (Gemma).

    Seen by running it: it returns only its bias, if it has one, where the sum is zero. None for a norm without a
    weight, or one that does something else with it.
    """
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 1:
        return None
    # Of a model without values, parameters are made up alike.
    device = torch.device("cpu") if weight.is_meta else weight.device
    inputs = torch.linspace(-1, 2, len(weight), dtype=weight.dtype, device=device).expand(1, 1, -1)
    for offset in (0.0, 1.0):
        own = norm.named_parameters(recurse=False)
        values = {name: torch.zeros_like(value, device=device) for name, value in own}
        values["weight"] = torch.full_like(weight, -offset, device=device)
        try:
            outputs = torch.func.functional_call(norm, values, (inputs,))
        except (TypeError, RuntimeError, ValueError, AttributeError):
            return None  # called with something else beside its input
        if isinstance(outputs, Tensor) and not bool(outputs.any()):
            return offset
    return None
