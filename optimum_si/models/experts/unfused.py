"""A model whose experts are linear layers for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .expert import Experts, SortedExperts, note_order
from .layouts import LAYOUTS


@contextmanager
def experts_as_linears(model: nn.Module) -> Iterator[None]:
    """Every stack of expert weights as modules of ``nn.Linear`` that share its storage; the function stays the same.

    Whatever looks for linear layers finds them under names such as "mlp.experts.3.down_proj", and what is written
    there is in the model's own parameters afterwards. Inside another call for the same model this does nothing.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    handles = []
    try:
        for parent in list(model.modules()):
            if isinstance(parent, Experts):
                continue
            for name, child in list(parent.named_children()):
                experts = None if isinstance(child, Experts) else _experts_of(child)
                if experts is not None:
                    replaced.append((parent, name, child))
                    setattr(parent, name, experts.train(child.training))
                    router = getattr(parent, "router", None)
                    if isinstance(experts, SortedExperts) and isinstance(router, nn.Module):
                        handles.append(router.register_forward_hook(note_order))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parent, name, child in reversed(replaced):
            setattr(parent, name, child)


def _experts_of(module: nn.Module) -> Experts | None:
    found = (layout(module) for layout in LAYOUTS)
    return next((experts for experts in found if experts is not None), None)
