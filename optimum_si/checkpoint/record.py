"""What ``config.json`` records of a run."""

from typing import Any

from optimum_si.config.si_config import SIConfig
from optimum_si.report import Report
from optimum_si.version import __version__


def sparsity_record(config: SIConfig, report: Report) -> dict[str, Any]:
    """``sparsity_config`` of a checkpoint: a plain dict, which stock transformers keeps.

    Args:
        config: the recipe.
        report: of the run.
    """
    return {
        "method": config.method,
        "sparsity": config.target_sparsity,
        "pattern": config.pattern,
        "reconstruction": config.reconstruction,
        "quantization": config.quantization if report.task == "prune" else "none",
        "allocation": config.allocation,
        "transformations": report.transformations or None,
        "measured_sparsity": round(report.sparsity, 6),
        "induction": config.induction is not None,
        "pruned": report.task == "prune",
        "include": config.include,
        "exclude": config.exclude,
        "optimum_si_version": __version__,
    }
