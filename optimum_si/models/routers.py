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
    *around, last = local.split(".")
    if any("router" in part for part in [*around, last]):
        return True
    experts = [getattr(config, name, None) for name in _COUNTS]
    return rows in (1, *experts) and re.search("gate", last) is not None
