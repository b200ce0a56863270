"""Which layers choose experts: these are never pruned."""

import re
from typing import Any


_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_experts_per_layer")


def is_router(local: str, rows: int, config: Any) -> bool:
    """True for a layer that scores experts, or weighs one that all tokens share.

    Args:
        local: name inside its block.
        rows: of its weight.
        config: of the model or the tower.
    """
    parts = local.split(".")
    if any("router" in part for part in parts):
        return True
    experts: list[Any] = []
    for name in _COUNTS:
        count = getattr(config, name, None)
        experts += count if isinstance(count, list) else [count]  # some have one for each block
    shared = getattr(config, "n_shared_experts", None)
    if isinstance(shared, int):  # some weigh those too
        experts += [count + shared for count in experts if isinstance(count, int)]
    # An MLP's `gate_proj` may happen to be as wide as there are experts.
    return rows in (1, *experts) and any(re.search("(^|_)gate$", part) for part in parts)
