"""Recipes by name: what the paper does, the best in little time, and the best."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from .fields import groups
from .recipe import Recipe
from .validators import check_choice


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "method": "wanda",
        "induction": {
            "initialization": "robust",
            "objective": "mse",
            "rescale": False,
            "own_scales": False,
            "spectral_weight": 0.1,
        },
    },
    "fast": {"method": "wanda", "induction": None, "reconstruction": "admm", "repair": 0.5, "recovery": {}},
    "best": {
        "method": "wanda",
        # On a real model transformations bring less for their time than recovery. What refinement would bring beside
        # so much recovery was not measured; induction brought nothing beside fits on small models.
        "induction": None,
        "reconstruction": "admm",
        "repair": "auto",
        "recovery": {"num_samples": 400},
    },
}
#: What a pattern leaves no room for: zeros that layers, and the rows of a layer, share out among them.
WITHOUT_PATTERN: dict[str, dict[str, Any]] = {
    "fast": {"comparison_group": "layer", "allocation": "error"},
    "best": {"comparison_group": "layer", "allocation": "error"},
}


def preset_values(name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``SIConfig``: those of a preset, with some of them replaced.

    Args:
        name: a key of :data:`PRESETS`.
        overrides: take the place of the preset's; mappings for a group change single fields of it.

    Raises:
        ConfigurationError: for an unknown name.
    """
    check_choice("preset", name, tuple(PRESETS))
    values = dict(PRESETS[name])
    if overrides.get("pattern") is None:
        values.update(WITHOUT_PATTERN.get(name, {}))
        if overrides.get("method", values["method"]) == "sparsegpt":  # ranks within its own column blocks
            values.pop("comparison_group", None)
    values.update(overrides)
    for group in groups(Recipe):
        own, given = PRESETS[name].get(group), overrides.get(group)
        if isinstance(own, Mapping) and (given is True or isinstance(given, Mapping)):
            values[group] = {**own, **({} if given is True else given)}
        elif is_dataclass(given) and not isinstance(given, type):
            values[group] = asdict(given)
    return values
