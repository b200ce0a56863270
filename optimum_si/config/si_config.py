"""``SIConfig``: every choice of a run, validated when it is made and stored as one JSON file."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ParamSpec

from huggingface_hub import HfApi
from optimum.configuration_utils import BaseConfig

from optimum_si.errors import ConfigurationError

from .choices import parse_pattern
from .fields import documented, groups, options
from .presets import preset_values
from .recipe import Recipe
from .small_files import read_small
from .validators import quoted


P = ParamSpec("P")

#: What Optimum and transformers add to a saved file; read again, these say nothing about the recipe.
_STAMPS = ("optimum_version", "transformers_version", "optimum_si_version", "model_type")


def _signature_of(constructor: Callable[P, None]) -> Callable[[Callable[..., None]], Callable[P, None]]:
    """Show type checkers and ``help`` the arguments of another constructor."""

    def decorate(function: Callable[..., None]) -> Callable[P, None]:
        function.__wrapped__ = constructor  # type: ignore[attr-defined]
        return function

    return decorate


@documented
class SIConfig(Recipe, BaseConfig):
    """The whole recipe of a run; saved as ``si_config.json`` beside the weights.

    Raises:
        ConfigurationError: on unknown names, contradictory values and values out of range.
    """

    CONFIG_NAME = "si_config.json"
    FULL_CONFIGURATION_FILE = "si_config.json"

    @_signature_of(Recipe.__init__)
    def __init__(self, *args: Any, **values: Any) -> None:
        BaseConfig.__init__(self)
        Recipe.__init__(self, *args, **{name: value for name, value in values.items() if name not in _STAMPS})

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "SIConfig":
        """A recipe by name, with fields of it, and of its groups, replaced.

        Args:
            name: "paper", what the paper does; "fast", the best quality in about twice SparseGPT's time; or "best",
                the best quality.
            overrides: fields of :class:`SIConfig`; dicts for ``induction``, ``calibration`` and ``recovery`` change
                single fields of the preset's group.

        Raises:
            ConfigurationError: for an unknown name, and as the constructor.
        """
        return cls(**preset_values(name, overrides))

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A recipe from its dict, with fields in ``kwargs`` taking the place of those in it.

        Raises:
            ConfigurationError: as the constructor.
        """
        returns_rest = kwargs.pop("return_unused_kwargs", False)
        changes = {name: value for name, value in kwargs.items() if not name.startswith("_")}
        values = {name: value for name, value in config_dict.items() if not name.startswith("_")}
        # A new target replaces the old one, whichever form it has.
        for one, other in (("pattern", "sparsity"), ("sparsity", "pattern")):
            if changes.get(one) is not None and other not in changes:
                values.pop(other, None)
        # What a recipe without a pattern leaves free, a pattern fixes; presets never mix patterns.
        if changes.get("pattern") is not None and config_dict.get("pattern") is None:
            for name in ("comparison_group", "allocation"):
                values.pop(name, None)
        # Nor does one with a single N.
        if changes.get("pattern") is not None and parse_pattern(changes["pattern"])[1] == 2:
            values.pop("allocation", None)
        if changes.get("method") == "sparsegpt":
            values.pop("comparison_group", None)
        if changes.get("reconstruction") == "none":
            values.pop("repair", None)
        config = cls(**{**values, **changes})
        return (config, {}) if returns_rest else config

    @classmethod
    def _dict_from_json_file(cls, json_file: Any) -> Any:
        try:
            values = json.loads(read_small(json_file))
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and brackets in brackets
            raise ConfigurationError(f"{str(json_file)!r} cannot be read as JSON: {error}.") from error
        if not isinstance(values, dict):
            raise ConfigurationError(f"{str(json_file)!r} holds no JSON object: give a saved recipe.")
        return values

    def with_dataset(self, dataset: Any) -> "SIConfig":
        """The recipe with the name of the data that was used; itself where data has no name, or the same."""
        if not isinstance(dataset, str) or dataset == self.calibration.dataset:
            return self
        values = self.to_dict()
        values["calibration"]["dataset"] = dataset
        return SIConfig(**values)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values; ``SIConfig(**config.to_dict())`` equals ``config``."""
        values = {name: getattr(self, name) for name in options(type(self))}
        for name in groups(type(self)):
            settings = getattr(self, name)
            values[name] = None if settings is None else asdict(settings)
        return values

    def to_diff_dict(self) -> dict[str, Any]:
        """The same as :meth:`to_dict`: a recipe states its defaults, since they may change between versions."""
        return self.to_dict()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SIConfig) and self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        return f"SIConfig({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write ``si_config.json`` into a directory, and to the Hub when asked.

        Args:
            save_directory: created when it does not exist.
            push_to_hub: also upload the file to ``repo_id`` (default: the directory's name).
            kwargs: ``repo_id``, ``token``, ``private``, ``revision``, ``create_pr``, ``commit_message``.
        """
        # Optimum's own version calls PushToHubMixin._create_repo, which transformers 5 removed.
        directory = Path(save_directory)
        if directory.is_file():
            raise ConfigurationError(f"{directory} is a file: give a directory to save {self.CONFIG_NAME} in.")
        known = {"repo_id", "token", "private", "revision", "create_pr", "commit_message"}
        if unknown := set(kwargs) - known:
            raise ConfigurationError(f"save_pretrained has no {quoted(unknown)}; it takes {quoted(sorted(known))}.")
        directory.mkdir(parents=True, exist_ok=True)
        self.to_json_file(str(directory / self.CONFIG_NAME))
        if push_to_hub:
            api = HfApi(token=kwargs.get("token"))
            repository = api.create_repo(
                kwargs.get("repo_id") or directory.resolve().name, private=kwargs.get("private"), exist_ok=True
            )
            api.upload_file(
                path_or_fileobj=str(directory / self.CONFIG_NAME),
                path_in_repo=self.CONFIG_NAME,
                repo_id=repository.repo_id,
                revision=kwargs.get("revision"),
                create_pr=kwargs.get("create_pr"),
                commit_message=kwargs.get("commit_message") or f"Upload {self.CONFIG_NAME}",
            )

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> None:  # type: ignore[override]
        """Upload ``si_config.json`` to a repository; ``kwargs`` as for :meth:`save_pretrained`."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, push_to_hub=True, repo_id=repo_id, **kwargs)
