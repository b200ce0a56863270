"""``SIConfig``: every choice of a run, validated when it is made and stored as one JSON file."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from optimum.configuration_utils import BaseConfig

from optimum_si.errors import ConfigurationError

from .choices import (
    ALLOCATIONS,
    COMPARISON_GROUPS,
    METHODS,
    QUANTIZATIONS,
    RECONSTRUCTIONS,
    TRANSFORMATIONS,
    parse_pattern,
)
from .groups import CalibrationConfig, InductionConfig
from .presets import preset_values
from .validators import check_boolean, check_choice, check_integer, check_number, check_share, quoted


DAMPING_MODES = ("mean", "channel")
#: What allocations go by, in words.
_EVIDENCE = {"owl": "outliers", "error": "errors"}


class SIConfig(BaseConfig):
    """The whole recipe of a run; saved as ``si_config.json`` beside the weights.

    Args:
        method: "magnitude", "wanda" or "sparsegpt".
        sparsity: share of weights to set to zero, in [0, 1). 0.5 when neither this nor ``pattern`` is given.
        pattern: "N:M", at most N non-zeros in every M consecutive input weights ("2:4", "4:8"); excludes ``sparsity``.
        include: globs over module names; only matching layers are pruned. None means all.
        exclude: globs over module names that stay dense.
        induction: an :class:`InductionConfig`, a dict of its fields, True for the defaults; None or False prunes
            without induction.
        calibration: a :class:`CalibrationConfig` or a dict of its fields.
        reconstruction: "exact" fits the weights that are kept to the dense layer's output (least squares on the Gram
            matrix), "admm" also looks for a better mask; "none" leaves them as the method does.
        repair: with reconstruction, the share of the dense model's own output (on its own inputs) that a layer is
            fitted to, in [0, 1], so that it repairs what earlier layers broke; those that write to the residual stream
            also make up for that share of the stream's error, and the layers of a block are fitted one after the
            other. "auto" chooses the share and the damping of each layer on held-out windows; 0 fits each layer to
            its own dense output, all of a block at once.
        refine_epochs: passes over the calibration windows in which the kept weights, biases and norms of each block
            learn to give the dense block's output; the best epoch on held-out windows is kept. 0 leaves it out.
        swaps: afterwards exchange a kept weight for a pruned one of its row, or N:M group, as long as that lowers the
            layer's error on the Gram matrix.
        allocation: how zeros are shared out over the layers under an exact global count: "uniform"; "owl", by
            outliers of each block (Yin et al. 2024); or "error", by the error that each layer makes at each sparsity.
            With a pattern, layers then keep different N of M.
        transformations: before pruning, reshape the model by transformations that are absorbed exactly: any of
            "residual" (a rotation of the residual stream), "heads" (of each value head, and of queries and keys
            without RoPE) and "permutation" (of channels, for patterns). None is none.
        quantization: "int8" or "int4": round kept weights to the grid of that export while the Hessian repairs what
            rounding breaks (GPTQ); zeros stay zeros. "none" leaves it out.
        damping: share of the mean Hessian diagonal that SparseGPT and reconstruction add to the diagonal.
        damping_mode: "mean" (SparseGPT's) or "channel" (each H_jj by its own share, which makes the method exactly
            invariant to input scales).
        block_size: columns that SparseGPT treats between two lazy updates; also its comparison group.
        comparison_group: weights ranked together when ``sparsity`` is given, "row" or "layer"; None is the method's
            own (magnitude: layer, wanda: row, sparsegpt: its column block, which cannot be changed).
        seed: every random choice of the run but the calibration windows.

    Raises:
        ConfigurationError: on unknown names, contradictory values and values out of range.
    """

    CONFIG_NAME = "si_config.json"
    FULL_CONFIGURATION_FILE = "si_config.json"

    _FIELDS = (
        "method",
        "sparsity",
        "pattern",
        "include",
        "exclude",
        "induction",
        "calibration",
        "reconstruction",
        "repair",
        "refine_epochs",
        "swaps",
        "allocation",
        "transformations",
        "quantization",
        "damping",
        "damping_mode",
        "block_size",
        "comparison_group",
        "seed",
    )

    def __init__(
        self,
        method: str = "sparsegpt",
        sparsity: float | None = None,
        pattern: str | None = None,
        include: str | list[str] | None = None,
        exclude: str | list[str] | None = None,
        induction: InductionConfig | Mapping[str, Any] | bool | None = True,
        calibration: CalibrationConfig | Mapping[str, Any] | None = None,
        reconstruction: str = "none",
        repair: float | str = "auto",
        refine_epochs: int = 0,
        swaps: bool = False,
        allocation: str = "uniform",
        transformations: str | list[str] | None = None,
        quantization: str = "none",
        damping: float = 0.01,
        damping_mode: str = "mean",
        block_size: int = 128,
        comparison_group: str | None = None,
        seed: int = 0,
        **unknown: Any,
    ) -> None:
        for stamp in ("optimum_version", "transformers_version", "optimum_si_version", "model_type"):
            unknown.pop(stamp, None)
        if unknown:
            raise ConfigurationError(f"SIConfig has no {quoted(unknown)}; it takes {quoted(self._FIELDS)}.")
        super().__init__()
        if sparsity is None and pattern is None:
            sparsity = 0.5
        self.method = method
        self.sparsity = sparsity
        self.pattern = pattern
        self.include: Any = include
        self.exclude: Any = exclude
        self.induction: Any = induction
        self.calibration: Any = True if calibration is None else calibration
        self.reconstruction = reconstruction
        self.repair = repair
        self.refine_epochs = refine_epochs
        self.swaps = swaps
        self.allocation = allocation
        self.transformations: Any = transformations
        self.quantization = quantization
        self.damping = damping
        self.damping_mode = damping_mode
        self.block_size = block_size
        self.comparison_group = comparison_group
        self.seed = seed
        self.validate()

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "SIConfig":
        """A recipe by name, with fields of it, and of its groups, replaced.

        Args:
            name: "paper", what the paper does; "fast", the best quality in about twice SparseGPT's time; or "best",
                the best quality.
            overrides: fields of :class:`SIConfig`; dicts for ``induction`` and ``calibration`` change single fields
                of the preset's group.

        Raises:
            ConfigurationError: for an unknown name, and as the constructor.
        """
        return cls(**preset_values(name, overrides))

    @property
    def target_sparsity(self) -> float:
        """Share of zeros that the run aims at, from ``sparsity`` or ``pattern``."""
        if self.pattern is not None:
            kept, of = parse_pattern(self.pattern)
            return 1 - kept / of
        assert self.sparsity is not None
        return self.sparsity

    @property
    def target_name(self) -> str:
        """ "2:4" or "50%", as tables and cards print it."""
        return self.pattern or f"{100 * self.target_sparsity:g}%"

    @property
    def steps(self) -> list[str]:
        """What a run does beside the method and induction, in words, in order."""
        fits = self.reconstruction != "none"
        return [
            words
            for words, wanted in (
                (f"allocation by {_EVIDENCE.get(self.allocation)}", self.allocation != "uniform"),
                (f"{self.reconstruction} reconstruction", fits),
                (f"repair {self.repair}", fits and self.repair != 0),
                ("swaps", self.swaps),
                (f"refinement of {self.refine_epochs} epochs", self.refine_epochs > 0),
                (f"{self.quantization} grid", self.quantization != "none"),
            )
            if wanted
        ]

    def validate(self) -> None:
        """Check every field, also after one was changed by assignment.

        Raises:
            ConfigurationError: names the field, the value given and the values accepted.
        """
        check_choice("method", self.method, METHODS)
        self.include, self.exclude = _globs("include", self.include), _globs("exclude", self.exclude)
        self.induction = _nested(InductionConfig, "induction", self.induction)
        self.calibration = _nested(CalibrationConfig, "calibration", self.calibration)
        if self.calibration is None:
            raise ConfigurationError("calibration=False: expected a CalibrationConfig or a dict of its fields.")
        if self.sparsity is not None and self.pattern is not None:
            raise ConfigurationError(
                f"sparsity={self.sparsity!r} and pattern={self.pattern!r} contradict each other: give one of them "
                "(a pattern fixes the sparsity by itself)."
            )
        if self.sparsity is not None:
            check_number("sparsity", self.sparsity, minimum=0, below=1)
        check_choice("reconstruction", self.reconstruction, RECONSTRUCTIONS)
        if self.repair != "auto":
            check_share("repair", self.repair, "'auto'")
        check_integer("refine_epochs", self.refine_epochs, minimum=0)
        check_boolean("swaps", self.swaps)
        check_choice("allocation", self.allocation, ALLOCATIONS)
        check_choice("quantization", self.quantization, QUANTIZATIONS)
        self.transformations = _chosen("transformations", self.transformations, TRANSFORMATIONS)
        check_number("damping", self.damping, minimum=0)
        check_choice("damping_mode", self.damping_mode, DAMPING_MODES)
        check_integer("block_size", self.block_size, minimum=1)
        check_integer("seed", self.seed, minimum=0)
        if self.reconstruction == "none" and self.repair not in ("auto", 0):
            raise ConfigurationError(
                f"repair={self.repair!r} is a share of the target of a fit, and reconstruction='none' fits nothing: "
                "set reconstruction to 'exact' or 'admm', or drop repair."
            )
        if self.pattern is not None:
            _, of = parse_pattern(self.pattern)
            if of == 2 and self.allocation != "uniform":
                raise ConfigurationError(
                    f"allocation={self.allocation!r} gives layers another N of M each, and pattern={self.pattern!r} "
                    "has just one: use 'uniform', or a pattern such as '2:4'."
                )
        if self.comparison_group is not None:
            check_choice("comparison_group", self.comparison_group, COMPARISON_GROUPS)
            if self.pattern is not None:
                raise ConfigurationError(
                    f"comparison_group={self.comparison_group!r} contradicts pattern={self.pattern!r}, which fixes "
                    "the groups: drop one of them."
                )
            if self.method == "sparsegpt":
                raise ConfigurationError(
                    "comparison_group does not apply to method='sparsegpt', which ranks within its own column blocks: "
                    "set block_size instead, or use 'wanda' or 'magnitude'."
                )

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

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values; ``SIConfig(**config.to_dict())`` equals ``config``."""
        values = {name: getattr(self, name) for name in self._FIELDS}
        values["induction"] = None if self.induction is None else asdict(self.induction)
        values["calibration"] = asdict(self.calibration)
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


def _nested(kind: type, name: str, value: Any) -> Any:
    """A nested config from itself, a dict of its fields or a boolean."""
    if value is None or value is False:
        return None
    if value is True:
        return kind()
    if isinstance(value, kind):
        value.__post_init__()  # type: ignore[attr-defined]
        return value
    if isinstance(value, Mapping):
        accepted = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        if unknown := set(value) - set(accepted):
            raise ConfigurationError(f"{name} has no {quoted(sorted(unknown))}; it takes {quoted(accepted)}.")
        return kind(**value)
    raise ConfigurationError(f"{name}={value!r}: expected {kind.__name__}, a dict of its fields, or None.")


def _chosen(name: str, value: Any, accepted: tuple[str, ...]) -> list[str] | None:
    """Some of the accepted names, in their order; None for none of them, which may be written "none"."""
    if value is not None and not isinstance(value, (str, list, tuple)):
        raise ConfigurationError(f"{name}={value!r}: expected some of {quoted(accepted)} in a list, or None.")
    values = [value] if isinstance(value, str) else list(value or [])
    if values == ["none"]:
        return None
    for entry in values:
        check_choice(name, entry, accepted)
    return [entry for entry in accepted if entry in values] or None


def _globs(name: str, value: Any) -> list[str] | None:
    if value is None:
        return None
    values = [value] if isinstance(value, str) else list(value)
    if not values or not all(isinstance(glob, str) and glob for glob in values):
        raise ConfigurationError(
            f"{name}={value!r}: expected one or more globs over module names, such as '*.mlp.*', or None."
        )
    return values
