"""Runs of a model's own forward pass that are suspended wherever one of its blocks is called.

Nothing is cut out of the model and nothing is replayed: each run is a greenlet in which ``model(**inputs)`` is on its
way. Where the model calls a block, the run hands a :class:`Stop` to whoever drives it and waits. It goes on with what
it is answered, as if the block had returned that, and what the model does between its blocks happens by itself. Runs
of a block stop at its layers in the same way.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from optimum_si.models.stacks import Padding

from .stops import Stop, padding_mask


class Run(greenlet):
    """A call on its way; only inside :func:`suspending` does it stop.

    Args:
        call: what is run, such as a model's own forward.

    Attributes:
        stop: where the run waits; None before it starts and after it ended.
        output: what the call returned, once it did.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(call)
        self.gr_context = copy_context()
        self.stop: Stop | None = None
        self.output: Any = None
        self._modes = replace(TorchModes.current(), gradients=False)

    def masked(self, stop: Stop) -> Stop:
        """A stop of this run with what is known of padding there."""
        return stop

    def resume(self, answer: Any = None) -> Stop | None:
        """Go on to the next stop, or to the end, without gradients.

        Args:
            answer: what the block returned at the stop; None lets the model run the block itself.

        Returns:
            The next stop; None where the model returned.
        """
        reached = self._switched(self.switch if self.stop is None else partial(self.switch, answer))
        self.stop, self.output = (None, reached) if self.dead else (reached, None)
        return self.stop

    def close(self) -> None:
        """Leave the forward pass where it is, as an exception would."""
        if not self.dead:
            self._switched(self.throw)

    def _switched(self, switch: Callable[[], Any]) -> Any:
        """Switch with the run's own modes of torch; a context that the model is inside of stays the run's alone."""
        outside = TorchModes.current()
        self._modes.set()
        try:
            return switch()
        finally:
            self._modes = TorchModes.current()
            outside.set()


class ModelRun(Run):
    """One batch on its way through a model, which stops at blocks.

    Args:
        model: runs its own forward.
        inputs: keyword arguments of it.
        padding: for each block, which of these mask its hidden states, and other states that it attends to.
    """

    def __init__(self, model: nn.Module, inputs: dict[str, Tensor], padding: Sequence[Padding]) -> None:
        super().__init__(partial(model, **inputs))
        self.inputs, self.padding = inputs, padding

    def masked(self, stop: Stop) -> Stop:
        padding = self.padding[stop.index]
        own, other = (self.inputs.get(name or "") for name in (padding.own, padding.other))
        states = stop.other_states
        other = None if states is None else padding_mask(other, states, padding.frames)
        return replace(stop, mask=padding_mask(own, stop.hidden, padding.frames), other_mask=other)


class BlockRun(Run):
    """One batch on its way through a block, which stops at layers.

    Args:
        block: runs its own forward.
        stop: its call.
    """

    def __init__(self, block: nn.Module, stop: Stop) -> None:
        super().__init__(partial(stop.call, block))
        self.block_stop = stop

    def masked(self, stop: Stop) -> Stop:
        return replace(stop, mask=self.block_stop.mask_of(stop.hidden))


@dataclass(frozen=True)
class TorchModes:
    """What contexts of torch change for the whole thread, which runs and whoever drives them share."""

    gradients: bool
    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    autocast_cache: bool
    dtype: torch.dtype

    @classmethod
    def current(cls) -> "TorchModes":
        """The modes of this moment."""
        autocast = tuple(
            (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in ("cpu", "cuda")
        )
        return cls(torch.is_grad_enabled(), autocast, torch.is_autocast_cache_enabled(), torch.get_default_dtype())

    def set(self) -> None:
        """Bring these modes back."""
        torch.set_grad_enabled(self.gradients)
        for device, enabled, dtype in self.autocast:
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)
        torch.set_autocast_cache_enabled(self.autocast_cache)
        torch.set_default_dtype(self.dtype)


@contextmanager
def suspending(modules: Sequence[nn.Module], kind: type[Run] = ModelRun) -> Iterator[None]:
    """Have runs of a kind stop at modules for a while; all other calls of these pass through."""
    own_forwards = [module.__dict__.get("forward") for module in modules]
    for index, module in enumerate(modules):
        module.forward = _stopping(index, module.forward, kind)
    try:
        yield
    finally:
        for module, forward in zip(modules, own_forwards, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def _stopping(index: int, forward: Callable[..., Any], kind: type[Run]) -> Callable[..., Any]:
    def stopping(*args: Any, **kwargs: Any) -> Any:
        run = getcurrent()
        if not isinstance(run, kind):
            return forward(*args, **kwargs)
        assert run.parent is not None
        answer = run.parent.switch(run.masked(Stop.of(index, args, kwargs)))
        return forward(*args, **kwargs) if answer is None else answer

    return stopping
