"""Which options of an evaluation go together. Imports no torch, so that wrong usage is told at once."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optimum_si.config.validators import check_integer
from optimum_si.errors import ConfigurationError


#: Options that say something about one measurement only, by the option that asks for it.
_OPTIONS_OF = {
    "dataset": ("dataset_config", "split", "column", "sequence_length", "max_windows"),
    "tasks": ("task_folder", "limit"),
}


def check_options(models: Sequence[Any], options: Mapping[str, Any], spelled: Callable[[str], str] = str) -> None:
    """Find options of an evaluation that measure or save nothing.

    Args:
        models: models that are evaluated.
        options: arguments of ``evaluate`` by name; None is not given.
        spelled: function that spells the name of an option as the user does, such as "--max-windows".

    Raises:
        ConfigurationError: names the option and what is missing.
    """
    if not models:
        raise ConfigurationError("there is no model to evaluate: give one or several.")
    if options.get("save") and not any(_is_of_prune(model) for model in models):
        raise ConfigurationError(
            f"{spelled('save')} keeps numbers in folders that `prune` wrote, and none of the models is one."
        )
    if options.get("dataset") is None and not options.get("tasks"):
        raise ConfigurationError(
            f"there is nothing to measure: give {spelled('dataset')}, {spelled('tasks')} or both."
        )
    for needed, names in _OPTIONS_OF.items():
        is_asked = options.get(needed) is not None if needed == "dataset" else bool(options.get(needed))
        without = [name for name in names if options.get(name) is not None]
        if without and not is_asked:
            raise ConfigurationError(
                f"{spelled(without[0])} says nothing without {spelled(needed)}: give both, or leave it out."
            )
    if options.get("limit") is not None:
        check_integer("limit", options["limit"], 1)


def _is_of_prune(model: Any) -> bool:
    return isinstance(model, (str, Path)) and Path(model, "si_report.json").is_file()
