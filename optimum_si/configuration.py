"""``SIConfig``: every choice of a run, validated when it is made and stored as one JSON file."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from optimum.configuration_utils import BaseConfig

from .checks import check_boolean, check_choice, check_integer, check_number, quoted
from .errors import ConfigurationError
from .pruning import COMPARISON_GROUPS, METHODS, RECONSTRUCTIONS, parse_pattern


INITIALISATIONS = ("auto", "ones", "activation", "robust")
OBJECTIVES = ("normalised", "mse")
SELECTIONS = ("model", "block")
SPECTRAL_NORMS = (1, 2, "inf")
DAMPING_MODES = ("mean", "channel")


@dataclass
class InductionConfig:
    """How channel scales and shifts are learned (paper, sections 3.1 and 3.2; Eq. 3-8).

    Args:
        epochs: passes over the calibration windows of each block; 0 keeps the initialisation.
        learning_rate: Adam's, for log s, decayed to zero along a cosine.
        initialisation: ``"ones"``; ``"activation"``, s = (mean square of the channel) ** 0.25; ``"robust"``, the
            paper's Eq. 5; or ``"auto"``, whichever of ones and activation starts with the lower held-out loss. All are
            normalised to geometric mean 1 and clamped.
        objective: ``"normalised"``, squared error of the block's output relative to each token's norm; or ``"mse"``,
            the paper's Eq. 7, which tokens of large norm dominate.
        selection: what decides, on held-out windows, between what was learned, half of it, the shift alone and the
            plain method: ``"model"``, the divergence of the whole model's output; or ``"block"``, the block's own.
        own_scales: beside the s that consumers of one activation share, each layer learns one of its own; only the
            shared one can be absorbed, both weigh the score. False is the paper's.
        max_scale: s stays within [1 / max_scale, max_scale].
        temperature: width T of the sigmoid through which the gradient passes the hard mask, in units of log score.
        spectral_weight: weight of the Spectral Norm Loss (Eq. 8) beside the reconstruction loss (Eq. 7); 0 leaves
            it out.
        spectral_p: Schatten norm of Eq. 8: 1 (nuclear), 2 (Frobenius) or "inf" (spectral).
        spectral_alpha: alpha of Eq. 8; None means 1 / (sum of the norms at the start).
        spectral_normalised: use ``||WS||_p / ||WS||_F`` in Eq. 8, which growing scales cannot drive without bound.
        shift: absorb the shift of Eq. 3 into the biases that pruned layers have (mean compensation, then learned).
        new_biases: also give a bias to layers without one, where the architecture's own config can declare it.
        validation_fraction: share of the calibration windows held out to choose the best epoch.
        absorb: fold s, rounded to powers of two, into the weights on both sides of each pair.

    Raises:
        ConfigurationError: on an unknown name or a value out of range.
    """

    epochs: int = 5
    learning_rate: float = 1e-2
    initialisation: str = "auto"
    objective: str = "normalised"
    selection: str = "model"
    own_scales: bool = True
    max_scale: float = 4.0
    temperature: float = 0.03
    spectral_weight: float = 0.0
    spectral_p: int | str = "inf"
    spectral_alpha: float | None = None
    spectral_normalised: bool = False
    shift: bool = True
    new_biases: bool = False
    validation_fraction: float = 0.125
    absorb: bool = True

    def __post_init__(self) -> None:
        if self.spectral_p == math.inf:
            self.spectral_p = "inf"
        check_integer("induction.epochs", self.epochs, minimum=0)
        check_number("induction.learning_rate", self.learning_rate, above=0)
        check_choice("induction.initialisation", self.initialisation, INITIALISATIONS)
        check_choice("induction.objective", self.objective, OBJECTIVES)
        check_choice("induction.selection", self.selection, SELECTIONS)
        check_number("induction.max_scale", self.max_scale, above=1)
        check_number("induction.temperature", self.temperature, above=0)
        check_number("induction.spectral_weight", self.spectral_weight, minimum=0)
        check_choice("induction.spectral_p", self.spectral_p, SPECTRAL_NORMS)
        if self.spectral_alpha is not None:
            check_number("induction.spectral_alpha", self.spectral_alpha, above=0)
        check_number("induction.validation_fraction", self.validation_fraction, above=0, below=1)
        for name in ("own_scales", "spectral_normalised", "shift", "new_biases", "absorb"):
            check_boolean(f"induction.{name}", getattr(self, name))
        if self.new_biases and not self.shift:
            raise ConfigurationError(
                "induction.new_biases=True needs induction.shift=True: a new bias carries the shift."
            )


@dataclass
class CalibrationConfig:
    """Which calibration data a run sees.

    Args:
        num_samples: windows of text to draw; encoders get single documents that hold as many tokens.
        sequence_length: tokens of a window; cut to what the model accepts.
        batch_size: windows that pass through a block together, when statistics are taken and when scales are learned.
        seed: draws the windows.
        dataset: a Hub dataset name ("wikitext2" and "c4" mean the published splits), or a local file, folder or glob.
        dataset_config: configuration name of a Hub dataset.
        split: split of a Hub dataset; None means "train".
        column: text column; None finds "text", "content", ... by itself.

    Raises:
        ConfigurationError: on an unknown name or a value out of range.
    """

    num_samples: int = 128
    sequence_length: int = 2048
    batch_size: int = 8
    seed: int = 0
    dataset: str | None = None
    dataset_config: str | None = None
    split: str | None = None
    column: str | None = None

    def __post_init__(self) -> None:
        check_integer("calibration.num_samples", self.num_samples, minimum=1)
        check_integer("calibration.sequence_length", self.sequence_length, minimum=2)
        check_integer("calibration.batch_size", self.batch_size, minimum=1)
        check_integer("calibration.seed", self.seed, minimum=0)
        for name in ("dataset", "dataset_config", "split", "column"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(f"calibration.{name}={value!r}: expected a string or None.")


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
        self.damping = damping
        self.damping_mode = damping_mode
        self.block_size = block_size
        self.comparison_group = comparison_group
        self.seed = seed
        self.validate()

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
        check_number("damping", self.damping, minimum=0)
        check_choice("damping_mode", self.damping_mode, DAMPING_MODES)
        check_integer("block_size", self.block_size, minimum=1)
        check_integer("seed", self.seed, minimum=0)
        if self.pattern is not None:
            parse_pattern(self.pattern)
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


def _globs(name: str, value: Any) -> list[str] | None:
    if value is None:
        return None
    values = [value] if isinstance(value, str) else list(value)
    if not values or not all(isinstance(glob, str) and glob for glob in values):
        raise ConfigurationError(
            f"{name}={value!r}: expected one or more globs over module names, such as '*.mlp.*', or None."
        )
    return values
