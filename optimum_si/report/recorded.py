"""What ``config.json`` records of a run."""

from typing import Any

from optimum_si.config.si_config import SIConfig
from optimum_si.version import __version__

from .records import RunReport


def sparsity_record(config: SIConfig, pruned: bool, report: RunReport) -> dict[str, Any]:
    """``sparsity_config`` of a checkpoint: a plain dict, which stock transformers keeps.

    Args:
        config: the recipe.
        pruned: whether weights were pruned (``prune``), or scales only absorbed (``induce``).
        report: of the run.
    """
    measured, model = report.sparsity, report.model_sparsity
    return {
        "method": config.method,
        "sparsity": config.target_sparsity,
        "pattern": config.pattern,
        "reconstruction": config.reconstruction,
        "quantization": config.quantization if pruned else "none",
        "allocation": config.allocation,
        "transformations": list(report.transformations) or None,
        "measured_sparsity": round(measured, 6),
        "model_sparsity": None if model is None else round(model, 6),
        "dense": {why: round(count / report.parameters, 4) for why, count in report.dense_parts.items()},
        "induction": config.induction is not None,
        "pruned": pruned,
        "include": config.include,
        "exclude": config.exclude,
        "stacks": config.stacks,
        "optimum_si_version": __version__,
    }
