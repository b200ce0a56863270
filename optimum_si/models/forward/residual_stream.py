"""Which layers write to the residual stream, and where it can be read: found by data flow, in any architecture."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from optimum_si.models.norms import is_norm
from optimum_si.models.weight_view import WeightView

from .stops import Stop


#: The block's output, as a readout of the stream.
OUTPUT = "output"

#: Relative size of the test signal, and of what may be missing from it where it is found again.
SIGNAL, TOLERANCE = 0.1, 0.01


@torch.no_grad()
def stream_readouts(block: nn.Module, stop: Stop, views: Iterable[WeightView]) -> dict[str, nn.Module | str]:
    """For each layer that writes to the residual stream, the first readout of the stream behind it.

    A signal is added to the output of a layer; where the input of a norm, or the block's output, changes by exactly
    that signal, it is the layer's output plus something else: the stream.

    Args:
        block: with dense weights.
        stop: a call of the block.
        views: its weights.

    Returns:
        By view name, a norm (whose input is the stream) or :data:`OUTPUT`. Layers that write elsewhere are left out.
    """
    hidden = stop.hidden
    norms = [module for module in block.modules() if is_norm(module)]
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(hidden.shape, generator=generator).to(hidden) * (SIGNAL * hidden.std())

    def seen(disturbed: nn.Module | None) -> dict[nn.Module | str, Tensor]:
        found: dict[nn.Module | str, Tensor] = {}

        def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            found.setdefault(module, args[0])

        def disturb(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            # Layers that see other tokens (an encoder's, those routed to an expert) do not write to the stream.
            return output + signal.view_as(output) if output.numel() == signal.numel() else output

        handles = [norm.register_forward_pre_hook(note) for norm in norms]
        if disturbed is not None:
            handles.append(disturbed.register_forward_hook(disturb))
        try:
            found[OUTPUT] = stop.run(block)
        finally:
            for handle in handles:
                handle.remove()
        return found

    usual = seen(None)
    readouts: dict[str, nn.Module | str] = {}
    for view in views:
        if not view.index and view.shape[0] == hidden.shape[-1]:
            other = seen(view.module)
            readout = next((at for at in usual if _shifted(usual[at], other.get(at), signal)), None)
            if readout is not None:
                readouts[view.name] = readout
    return readouts


def _shifted(before: Tensor, after: Tensor | None, signal: Tensor) -> bool:
    """Whether two tensors differ by the signal and nothing else."""
    if after is None or after.shape != before.shape or before.numel() != signal.numel():
        return False
    if before.shape[-1] != signal.shape[-1]:  # cut into heads: no stream, whatever its size
        return False
    missing = (after - before).reshape(signal.shape) - signal
    return bool(missing.norm() <= TOLERANCE * signal.norm())
