"""What ``config.json`` records of a run."""

from collections.abc import Sequence
from typing import Any

from optimum_si.config.si_config import SIConfig
from optimum_si.version import __version__


def sparsity_record(
    config: SIConfig, pruned: bool, transformations: Sequence[str], measured_sparsity: float
) -> dict[str, Any]:
    """``sparsity_config`` of a checkpoint: a plain dict, which stock transformers keeps.

    Args:
        config: the recipe.
        pruned: whether weights were pruned (``prune``), or scales only absorbed (``induce``).
        transformations: those that the model went through.
        measured_sparsity: fraction of zeros in the pruned layers.
    """
    return {
        "method": config.method,
        "sparsity": config.target_sparsity,
        "pattern": config.pattern,
        "reconstruction": config.reconstruction,
        "quantization": config.quantization if pruned else "none",
        "allocation": config.allocation,
        "transformations": list(transformations) or None,
        "measured_sparsity": round(measured_sparsity, 6),
        "induction": config.induction is not None,
        "pruned": pruned,
        "include": config.include,
        "exclude": config.exclude,
        "optimum_si_version": __version__,
    }
