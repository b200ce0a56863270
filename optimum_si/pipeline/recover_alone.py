"""Recovery by itself, of a model that is already pruned, towards the dense model that it was made from."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optimum_si.algorithms.recovery.references import References
from optimum_si.calibration import (
    Reader,
    fresh_examples,
    is_own_text,
    prepare_examples,
    with_decoder_inputs,
    written_examples,
)
from optimum_si.checkpoint.load import load_model, maximum_length, move
from optimum_si.checkpoint.locate import find_file
from optimum_si.config.recovery import RecoveryConfig
from optimum_si.config.si_config import SIConfig
from optimum_si.errors import CheckpointError, ConfigurationError, UnsupportedModelError
from optimum_si.models.forward.modes import evaluation_mode, without_cache
from optimum_si.models.structure import find_structure
from optimum_si.report import REPORT_NAME, Report
from optimum_si.warnings import warn

from .checks import check_finite, check_vocabulary
from .interruptions import Interruptions, digest_of, digest_of_weights
from .recovery import train_as_whole


#: Share of zeros from which on a model counts as pruned.
PRUNED = 0.01


@dataclass(eq=False)
class Alone:
    """A model that recovers by itself.

    Args:
        model: pruned; changed in place.
        tokenizer: needed where the data is text.
        recipe: with the calibration data to draw from, and the seed.
        pruned_by: recipe of the run that pruned it; None where none is known.
        report: of the run that pruned it; None where there is none. Also with recovery, once it is done.
        config: how it recovers.
        load_processor: gives the model's processor, where the data is images or sounds.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    recipe: SIConfig
    pruned_by: SIConfig | None
    report: Report | None
    config: RecoveryConfig
    load_processor: Callable[[], Any] = lambda: None

    def __post_init__(self) -> None:
        self._interruptions: Interruptions | None = None

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        source: str,
        report: Report | None,
        recipe: SIConfig | None,
        config: SIConfig | RecoveryConfig | Mapping[str, Any] | None,
        minutes: float | None,
    ) -> Self:
        """From what a user gives, and from what is known of the run that pruned the model.

        Args:
            model, tokenizer: of the user.
            source: where the model was loaded from; "" for nowhere.
            report, recipe: of a run in this process; None reads those beside the weights.
            config: how to recover, or a whole recipe.
            minutes: time limit, in place of the one there.

        Raises:
            ConfigurationError: for a ``config`` of another kind.
            UnsupportedModelError: for a model without zeros.
            NumericalError: for one with NaN or infinity.
        """
        pruned_by = recipe or saved_recipe(source)
        recipe = config if isinstance(config, SIConfig) else pruned_by or SIConfig()
        given: Any = config.recovery if isinstance(config, SIConfig) else config
        settings = SIConfig(recovery=True if given is None else given).recovery
        if settings is None:
            raise ConfigurationError(f"config={config!r}: expected a RecoveryConfig, a dict of its fields, or None.")
        if minutes is not None:
            settings = replace(settings, minutes=minutes)
        alone = cls(model, tokenizer, recipe, pruned_by, report or _saved_report(source), settings)
        alone._check()
        return alone

    def _check(self) -> None:
        """Raise :class:`UnsupportedModelError` for a model without zeros, NumericalError for one with NaN."""
        views = [view.read() for block in find_structure(self.model).blocks for view in block.views.values()]
        zeros, weights = sum(int((view == 0).sum()) for view in views), sum(view.numel() for view in views)
        if zeros < PRUNED * weights:
            raise UnsupportedModelError(
                f"this model has {zeros} zeros in {weights} weights, so nothing was pruned that it could recover "
                "from: prune it first."
            )
        check_finite(self.model)

    def train(self, dataset: Any, dense: Any, output: str | Path | None, progress: bool) -> bool:
        """Train the model; the same call goes on where an earlier one was interrupted.

        Args:
            dataset: data to draw from; None is the recipe's.
            dense: the model before it was pruned, or where to load it; None is the base that the report names.
            output: where the result goes, beside which interruptions are kept; None keeps none.
            progress: whether to show a bar.

        Returns:
            Whether anything was done: the same recovery of a model that has it is not.

        Raises:
            ConfigurationError: without a dense model, or for one that this was not made from.
            CalibrationError: for data that cannot be used, or too little of it.
        """
        run, own = self._run_id(dataset, dense), is_own_text(dataset, self.recipe.calibration)
        if self.report is not None and self.report.recovery is not None and self.report.recovery.run == run:
            warn("this recovery is done already: more minutes, epochs or text, or another seed, go on from here.")
            return False
        dense = self._dense(dense)
        windows = self._written(dense, progress) if own else self._windows(dataset)
        windows = with_decoder_inputs(windows, dense, self.recipe.calibration.sequence_length, self._padding)
        check_vocabulary(windows, self.model)
        if output is not None:
            self._interruptions = Interruptions(Path(output), f"{run} {digest_of_weights(self.model)}")
        kept = self._interruptions
        done = train_as_whole(
            self.model,
            find_structure(self.model),
            self._references(windows, dense),
            self.config,
            self._on_grid,
            run,
            self._drawn,
            progress=progress,
            resume=None if kept is None else kept.load(),
            save=None if kept is None else kept.save,
        )
        if self.report is not None:
            words = f"recovery by itself, {done.steps} steps over {done.windows} windows"
            # The perplexity was that of the model before.
            self.report = replace(self.report, recovery=done, perplexity=None, steps=[*self.report.steps, words])
        return True

    def forget_interruptions(self) -> None:
        """Remove what would be resumed: the result is where it belongs."""
        if self._interruptions is not None:
            self._interruptions.remove()

    def _run_id(self, dataset: Any, dense: Any) -> str:
        """What two calls share that ask for the same of one model."""
        name = str(dense) if isinstance(dense, (str, Path)) else None
        values = {"recovery": asdict(self.config), "seed": self.recipe.seed, "dense": name}
        # What a model writes follows from the recipe.
        own = is_own_text(dataset, self.recipe.calibration)
        return digest_of(values, [] if own else self._calibration_windows(dataset))

    @property
    def _on_grid(self) -> bool:
        record = getattr(self.model.config, "sparsity_config", None)
        return isinstance(record, Mapping) and record.get("quantization", "none") != "none"

    @property
    def _drawn(self) -> int:
        """Windows that earlier recoveries of the model asked for."""
        return self.report.recovery.drawn if self.report is not None and self.report.recovery is not None else 0

    def _calibration_windows(self, dataset: Any) -> list[dict[str, Tensor]]:
        return prepare_examples(dataset, self.recipe.calibration, *self._reading)

    @property
    def _reading(self) -> tuple[PreTrainedTokenizerBase | None, int | None, Reader]:
        return self.tokenizer, maximum_length(self.model), Reader.of(self.model, self.load_processor)

    @property
    def _padding(self) -> int:
        return getattr(self.tokenizer, "pad_token_id", None) or 0

    def _windows(self, dataset: Any) -> list[dict[str, Tensor]]:
        """Windows that neither the fits nor earlier recoveries have seen, as far as that is known."""
        calibration, count = self.recipe.calibration, self.config.num_samples
        text = self._reading
        of_fits = calibration if self.pruned_by is None else self.pruned_by.calibration
        name = calibration.dataset if dataset is None else dataset
        if isinstance(name, str) and name != of_fits.dataset:
            return prepare_examples(dataset, replace(calibration, num_samples=count or calibration.num_samples), *text)
        seen = prepare_examples(dataset, of_fits, *text)
        if count and self._drawn:
            seen = seen + fresh_examples(seen, self._drawn, dataset, of_fits, *text)
        return fresh_examples(seen, count, dataset, calibration, *text)

    def _written(self, dense: PreTrainedModel, progress: bool) -> list[dict[str, Tensor]]:
        """Windows that the dense model writes, other ones than for the fits and for earlier recoveries."""
        calibration = self.recipe.calibration
        count = self.config.num_samples or calibration.num_samples
        seed = (calibration.seed + 1 + self._drawn) % 2**64
        wanted = replace(calibration, num_samples=count, seed=seed)
        return written_examples(wanted, dense, self.tokenizer, maximum_length(dense), progress)

    def _dense(self, dense: Any) -> PreTrainedModel:
        """The dense model where the pruned one is.

        Raises:
            ConfigurationError: where none is known, or it is of another kind.
        """
        if dense is None:
            base = self.report.base if self.report is not None else {}
            if not base.get("on_hub"):
                known = f"the report names {base['name']!r}, no Hub id" if base.get("name") else "no report names it"
                raise ConfigurationError(
                    f"recovery needs the dense model, and {known}: give its place as dense (-m on the command line)."
                )
            dense = base["name"]
        model = dense if isinstance(dense, PreTrainedModel) else load_model(dense)
        if model is self.model:
            raise ConfigurationError("dense is the pruned model itself: give the model that it was made from.")
        for what, mine, other in (
            ("architecture", type(self.model).__name__, type(model).__name__),
            ("number of tokens", _vocabulary(self.model), _vocabulary(model)),
            ("number of layers", _size(self.model, "num_hidden_layers"), _size(model, "num_hidden_layers")),
            ("hidden size", _size(self.model, "hidden_size"), _size(model, "hidden_size")),
        ):
            if mine != other:
                raise ConfigurationError(
                    f"dense has another {what} ({other}) than the pruned model ({mine}): give the model that it was "
                    "made from."
                )
        move(model, self.model.device)
        return model

    def _references(self, windows: list[dict[str, Tensor]], dense: PreTrainedModel) -> References:
        settings = self.config.batch_size, self.recipe.seed, self._padding, self.config.hidden_weight
        with evaluation_mode(dense), without_cache(dense):
            references = References.of(dense, windows, *settings)
        # Held no longer than it is needed.
        return references.for_model(self.model)


def _vocabulary(model: PreTrainedModel) -> Any:
    return getattr(model.get_input_embeddings(), "num_embeddings", None)


def _size(model: PreTrainedModel, name: str) -> Any:
    return getattr(model.config.get_text_config(), name, None)


def _saved_report(source: str) -> Report | None:
    """The report beside the weights of a model, where there is one."""
    file = _beside(source, REPORT_NAME)
    return None if file is None else Report.load(file.parent)


def saved_recipe(source: str) -> SIConfig | None:
    """The recipe beside the weights of a model, where there is one.

    Raises:
        ConfigurationError: names the file, where it is damaged or of another version.
    """
    file = _beside(source, SIConfig.CONFIG_NAME)
    if file is None:
        return None
    try:
        config: SIConfig = SIConfig.from_pretrained(file.parent)
    except ConfigurationError as error:
        raise ConfigurationError(f"the recipe {str(file)!r} cannot be taken: {error}") from error
    return config


def _beside(source: str, name: str) -> Path | None:
    """A record beside the weights of a model; None where there is none.

    Raises:
        CheckpointError: where something else has its name, which nobody wants passed over.
    """
    file = find_file(source, name) if source else None
    if file is None and source and os.path.lexists(Path(source, name)):
        raise CheckpointError(f"{str(Path(source, name))!r} is no regular file: delete it, or copy the model again.")
    return file
