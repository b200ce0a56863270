"""A recipe as flags of the command line: what they mean, and which ones give a recipe, as model cards print them."""

from collections.abc import Mapping
from typing import Any

from optimum_si.errors import ConfigurationError

from .fields import Option, flagged, groups, options
from .presets import PRESETS
from .recipe import Recipe
from .si_config import SIConfig


def apply_flags(start: SIConfig, given: Mapping[str, Any]) -> SIConfig:
    """A recipe with options replaced by the flags that were given.

    Args:
        start: what the flags change: a preset, a saved recipe, or the defaults.
        given: values by the keys of the options. One flag sets all options of its key, in the recipe and in its
            groups, such as ``--seed``; False for a group leaves the group out.

    Raises:
        ConfigurationError: when the combination is not a valid recipe.
    """
    recipe = SIConfig.from_dict(start.to_dict(), **_those(flagged(Recipe), given)).to_dict()
    for name, kind in groups(Recipe).items():
        changes = _those(flagged(kind), given)
        if changes and given.get(name) is False:
            flags = " and ".join(option.flag for option in flagged(kind).values())
            raise ConfigurationError(f"{options(Recipe)[name].flag} contradicts {flags}: drop one of them.")
        if changes:
            recipe[name] = {**(recipe[name] or {}), **changes}
    return SIConfig(**recipe)


def recipe_flags(config: SIConfig) -> list[str] | None:
    """The fewest flags that give a recipe, without that of its dataset; None where flags cannot say all of it."""
    target = {"pattern": config.pattern} if config.pattern else {"sparsity": config.sparsity}
    method = {"method": config.method}
    found = [_flags_from(SIConfig(), [], method | target, config)]
    for name, values in PRESETS.items():
        said = target if values["method"] == config.method else method | target
        found.append(_flags_from(SIConfig.preset(name, **said), ["--preset", name], said, config))
    return min((flags for flags in found if flags is not None), key=len, default=None)


def _flags_from(start: SIConfig, words: list[str], said: Mapping[str, Any], config: SIConfig) -> list[str] | None:
    """The flags that turn one recipe into another; None where flags cannot.

    Args:
        start: recipe to change.
        words: flags that give it.
        said: values by option that are stated whether they differ or not.
        config: recipe to reach.
    """
    given = {**said, **_differences(apply_flags(start, said), config)}
    kinds = (*groups(Recipe).values(), Recipe)
    known = {option.key: option for kind in kinds for option in flagged(kind).values()}
    if not all(known[name].type.says(value) for name, value in given.items()) or apply_flags(start, given) != config:
        return None
    given.pop("dataset", None)
    return [*words, *(word for name, value in given.items() for word in _words(known[name], value))]


def _differences(start: SIConfig, config: SIConfig) -> dict[str, Any]:
    """Options with a flag in which two recipes differ, with the values of the second; False for a group left out."""
    found = _changed(Recipe, start, config)
    for name, kind in groups(Recipe).items():
        before, after = getattr(start, name), getattr(config, name)
        if after is None:
            found |= {} if before is None else {name: False}
        else:
            changed = _changed(kind, before or kind(), after)
            if before is None and not changed:  # one flag brings in the whole group
                first = next(iter(flagged(kind).values()))
                changed = {first.key: getattr(after, first.name)}
            found |= changed
    return found


def _changed(kind: type, start: Any, config: Any) -> dict[str, Any]:
    """Plain options of one configuration that differ."""
    plain = [name for name, option in flagged(kind).items() if option.type.group is None]
    return {
        flagged(kind)[name].key: getattr(config, name)
        for name in plain
        if getattr(config, name) != getattr(start, name)
    }


def _those(known: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the names of options."""
    return {name: given[option.key] for name, option in known.items() if option.key in given}


def _words(option: Option, value: Any) -> list[str]:
    """A value as a shell takes it."""
    if isinstance(value, bool):
        return [option.flag if value or option.type.group else option.flag.replace("--", "--no-", 1)]
    values = value if isinstance(value, list) else ["none" if value is None else value]
    return [option.flag, *map(str, values)]
