"""How wide heads may be, by what the modules of a block say of themselves."""

from typing import Any

from torch import nn


#: Sizes that are tried where no module says one.
_USUAL = (64, 128, 32, 80, 96, 256, 16, 8)


def head_sizes(block: nn.Module) -> list[int]:
    """Numbers of channels in a head, the likeliest first.

    Modules say it in attributes such as ``head_dim`` or ``attention_head_size``, or say how many heads there are.
    """
    told: dict[int, None] = {}
    for module in block.modules():
        config: Any = getattr(module, "config", None)
        sources = [vars(module), {} if config is None else vars(config)]
        for name, value in (pair for source in sources for pair in source.items()):
            if isinstance(value, int) and not isinstance(value, bool) and value > 1 and _is_size(name):
                told[value] = None
    counts = [
        value
        for module in block.modules()
        for source in (vars(module), vars(getattr(module, "config", None) or nn.Module()))
        for name, value in source.items()
        if isinstance(value, int) and not isinstance(value, bool) and value > 0 and _is_count(name)
    ]
    widths = {module.out_features for module in block.modules() if isinstance(module, nn.Linear)}
    for count in dict.fromkeys(counts):
        told.update({width // count: None for width in sorted(widths) if width % count == 0 and width // count > 1})
    return [*told] or [*_USUAL]


def _is_size(name: str) -> bool:
    return name in ("d_kv", "key_value_proj_dim", "kv_channels") or ("head" in name and name.endswith(("dim", "size")))


def _is_count(name: str) -> bool:
    return "head" in name and name.startswith(("n_", "num_")) or name == "heads"
