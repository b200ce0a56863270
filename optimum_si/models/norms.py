"""Which modules are norms, and what may pass through them."""

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
