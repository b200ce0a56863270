"""The options of a recipe and the rules between them; ``SIConfig`` adds Optimum's interface, which imports torch."""

from collections.abc import Mapping
from typing import Any

from optimum_si.errors import ConfigurationError

from .choices import (
    ALLOCATIONS,
    COMPARISON_GROUPS,
    DAMPING_MODES,
    METHODS,
    QUANTIZATIONS,
    RECONSTRUCTIONS,
    TRANSFORMATIONS,
    parse_pattern,
)
from .fields import Configuration, Converted, configuration, group, option
from .groups import CalibrationConfig, InductionConfig
from .option_types import (
    MOST_EPOCHS,
    MOST_SEED,
    boolean,
    choice,
    globs,
    integer,
    n_of_m,
    names,
    number,
    optional,
    share_or,
)
from .recovery import RecoveryConfig


#: What allocations go by, in words.
_EVIDENCE = {"owl": "outliers", "error": "errors"}


@configuration
class Recipe(Configuration):
    """Every choice of a run.

    Raises:
        ConfigurationError: on unknown names, contradictory values and values out of range.
    """

    method: str = option(
        default="sparsegpt",
        type=choice(METHODS),
        flag=True,
        help="how weights are chosen",
        detail='how weights are chosen: `"magnitude"`, `"wanda"` or `"sparsegpt"`.',
    )
    sparsity: float | None = option(
        default=None,
        type=optional(number(minimum=0, below=1)),
        flag=True,
        exclusive="target",
        help="share of zeros, in [0, 1)",
        detail="share of weights to set to zero, in [0, 1). 0.5 when neither this nor `pattern` is given.",
        none="0.5",
    )
    pattern: str | None = option(
        default=None,
        type=optional(n_of_m()),
        flag=True,
        exclusive="target",
        help="at most N non-zeros in every M consecutive weights: 2:4, 4:8",
        detail='`"N:M"`, at most N non-zeros in every M consecutive input weights (`"2:4"`, `"4:8"`); excludes '
        "`sparsity`.",
    )
    include: Converted[str | list[str] | None, list[str] | None] = option(
        default=None,
        type=globs(),
        flag=True,
        help="prune only modules whose name matches",
        detail="globs over module names; only matching layers are pruned. None means all.",
    )
    exclude: Converted[str | list[str] | None, list[str] | None] = option(
        default=None,
        type=globs(),
        flag=True,
        help="keep modules dense whose name matches",
        detail="globs over module names that stay dense.",
    )
    stacks: Converted[str | list[str] | None, list[str] | None] = option(
        default=None,
        type=globs(),
        flag=True,
        help="prune only these lists of blocks, such as model.language_model.layers",
        detail="globs over the names of block lists, as `optimum-cli si inspect` prints them. None means all.",
    )
    induction: Converted[InductionConfig | Mapping[str, Any] | bool | None, InductionConfig | None] = option(
        default=True,
        type=group(InductionConfig),
        flag=True,
        help="prune the model as it is",
        detail="an `InductionConfig`, a dict of its fields, True for the defaults; None or False prunes without "
        "induction.",
    )
    calibration: Converted[CalibrationConfig | Mapping[str, Any] | None, CalibrationConfig] = option(
        default=None,
        type=group(CalibrationConfig, required=True),
        detail="a `CalibrationConfig` or a dict of its fields.",
    )
    reconstruction: str = option(
        default="none",
        type=choice(RECONSTRUCTIONS),
        flag=True,
        help="fit the kept weights to the dense output: on the method's mask, or on a better one",
        detail='`"exact"` fits the weights that are kept to the dense layer\'s output (least squares on the Gram '
        'matrix), `"admm"` also looks for a better mask; `"none"` leaves them as the method does.',
    )
    repair: float | str = option(
        default="auto",
        type=share_or("auto"),
        flag=True,
        help="with --reconstruction: how far a layer repairs what earlier ones broke, in [0, 1]",
        detail="with reconstruction, the share of the dense model's own output (on its own inputs) that a layer is "
        "fitted to, in [0, 1], so that it repairs what earlier layers broke; those that write to the residual stream "
        "also make up for that share of the stream's error, and the layers of a block are fitted one after the "
        'other. `"auto"` chooses the share and the damping of each layer on held-out windows; 0 fits each layer to '
        "its own dense output, all of a block at once.",
    )
    refine_epochs: int = option(
        default=0,
        type=integer(minimum=0, maximum=MOST_EPOCHS),
        flag=True,
        help="learn the kept weights of each block afterwards",
        detail="passes over the calibration windows in which the kept weights, biases and norms of each block learn "
        "to give the dense block's output; the best epoch on held-out windows is kept. 0 leaves it out.",
    )
    swaps: bool = option(
        default=False,
        type=boolean(),
        flag=True,
        help="exchange kept for pruned weights while that helps",
        detail="afterwards exchange a kept weight for a pruned one of its row, or N:M group, as long as that lowers "
        "the layer's error on the Gram matrix.",
    )
    recovery: Converted[RecoveryConfig | Mapping[str, Any] | bool | None, RecoveryConfig | None] = option(
        default=None,
        type=group(RecoveryConfig),
        flag=True,
        help="leave the model as its blocks were pruned",
        detail="a `RecoveryConfig`, a dict of its fields, True for the defaults: after the last block the whole model "
        "is trained towards the dense model's answers, zeros fixed. None or False leaves it out.",
        see="choosing.md#recover-the-whole-model",
    )
    allocation: str = option(
        default="uniform",
        type=choice(ALLOCATIONS),
        flag=True,
        help="how zeros are shared out over layers",
        detail='how zeros are shared out over the layers under an exact global count: `"uniform"`; `"owl"`, by '
        'outliers of each block (Yin et al. 2024); or `"error"`, by what errors of each '
        "layer's output cost the model's answers (Fisher information), which then also weighs rows that share zeros. "
        "With a pattern, layers then keep different N of M.",
    )
    transformations: Converted[str | list[str] | None, list[str] | None] = option(
        default=None,
        type=names(TRANSFORMATIONS),
        flag=True,
        help="first reshape the model, whose function stays: rotate its residual stream or its heads, permute its "
        "channels (for patterns)",
        detail="before pruning, reshape the model by transformations that are absorbed exactly: any of "
        '`"residual"` (a rotation of the residual stream), `"heads"` (of each value head, and of queries and keys '
        'without RoPE) and `"permutation"` (of channels, for patterns). None is none.',
        see="choosing.md#reshape-the-model-first",
    )
    quantization: str = option(
        default="none",
        type=choice(QUANTIZATIONS),
        flag=True,
        help="round to the grid of such an export",
        detail='`"int8"` or `"int4"`: round kept weights to the grid of that export while the Hessian repairs what '
        'rounding breaks (GPTQ); zeros stay zeros. `"none"` leaves it out.',
        see="deployment.md#quantized-in-advance",
    )
    damping: float = option(
        default=0.01,
        type=number(minimum=0, maximum=1e3),
        detail="share of the mean Hessian diagonal that SparseGPT and reconstruction add to the diagonal; at least "
        "0.1 in layers with less than two calibration tokens for each column, unless it is 0.",
    )
    damping_mode: str = option(
        default="mean",
        type=choice(DAMPING_MODES),
        detail='`"mean"` (SparseGPT\'s) or `"channel"` (each H_jj by its own share, which makes the method exactly '
        "invariant to input scales).",
    )
    block_size: int = option(
        default=128,
        type=integer(minimum=1, maximum=2**20),
        detail="columns that SparseGPT treats between two lazy updates; also its comparison group.",
    )
    comparison_group: str | None = option(
        default=None,
        type=optional(choice(COMPARISON_GROUPS)),
        detail='weights ranked together when `sparsity` is given, `"row"` or `"layer"`; None is the method\'s own '
        "(magnitude: layer, wanda: row, sparsegpt: its column block, which cannot be changed).",
    )
    seed: int = option(
        default=0,
        type=integer(minimum=0, maximum=MOST_SEED),
        flag=True,
        help="of every random choice",
        detail="every random choice of the run but the calibration windows.",
    )

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
    def fits_in_sequence(self) -> bool:
        """Whether the layers of a block are fitted one after the other, each to repair what earlier ones broke."""
        return self.reconstruction != "none" and self.repair != 0

    @property
    def steps(self) -> list[str]:
        """What a run does beside the method and induction, in words, in order."""
        return [
            words
            for words, wanted in (
                (f"allocation by {_EVIDENCE.get(self.allocation)}", self.allocation != "uniform"),
                (f"{self.reconstruction} reconstruction", self.reconstruction != "none"),
                (f"repair {self.repair}", self.fits_in_sequence),
                ("swaps", self.swaps),
                (f"refinement of {self.refine_epochs} epochs", self.refine_epochs > 0),
                (f"{self.quantization} grid", self.quantization != "none"),
                (self._recovery_in_words, self.recovery is not None),
            )
            if wanted
        ]

    @property
    def _recovery_in_words(self) -> str:
        if self.recovery is None:
            return ""
        epochs, samples = self.recovery.epochs, self.recovery.num_samples
        windows = f"up to {samples} windows, fresh ones if there are" if samples else "the calibration windows"
        return f"recovery of {epochs} epoch{'' if epochs == 1 else 's'} over {windows}"

    def validate(self) -> None:
        """Check every option, also after one was changed by assignment, and the rules between them.

        Raises:
            ConfigurationError: names the option, the value given and the values accepted.
        """
        super().validate()
        if self.sparsity is None and self.pattern is None:
            self.sparsity = 0.5
        self._check_target()
        self._check_comparison_group()
        if self.reconstruction == "none" and self.repair not in ("auto", 0):
            raise ConfigurationError(
                f"repair={self.repair!r} is a share of the target of a fit, and reconstruction='none' fits nothing: "
                "set reconstruction to 'exact' or 'admm', or drop repair."
            )

    def _check_target(self) -> None:
        if self.pattern is None:
            return
        if self.sparsity is not None:
            raise ConfigurationError(
                f"sparsity={self.sparsity!r} and pattern={self.pattern!r} contradict each other: give one of them "
                "(a pattern fixes the sparsity by itself)."
            )
        _, of = parse_pattern(self.pattern)
        if of == 2 and self.allocation != "uniform":
            raise ConfigurationError(
                f"allocation={self.allocation!r} gives layers another N of M each, and pattern={self.pattern!r} "
                "has just one: use 'uniform', or a pattern such as '2:4'."
            )

    def _check_comparison_group(self) -> None:
        if self.comparison_group is None:
            return
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
