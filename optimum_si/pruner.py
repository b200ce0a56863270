"""``SIPruner``: load, for each block collect, induce, prune and absorb, then save and report."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optimum_si.calibration.hub import load_calibration_dataset
from optimum_si.checkpoint.load import accept, load_pretrained, move, saved_scales
from optimum_si.checkpoint.outputs import check_output
from optimum_si.checkpoint.processor import load_processor
from optimum_si.checkpoint.save import replaced_directory
from optimum_si.checkpoint.saved_scales import SavedScales, transformations_of
from optimum_si.checkpoint.side_files import SideFiles, find_side_files
from optimum_si.config.recovery import RecoveryConfig
from optimum_si.config.si_config import SIConfig
from optimum_si.hub.base_model import base_of, public_name
from optimum_si.hub.card import CARD_NAME, read_card, take_over, write_card
from optimum_si.models.experts.unfused import experts_as_linears
from optimum_si.pipeline.examples import examples_of
from optimum_si.pipeline.plan import make_plan
from optimum_si.pipeline.recover_alone import Alone
from optimum_si.pipeline.run import RunResult, run
from optimum_si.report.recorded import sparsity_record

from .errors import ConfigurationError
from .report import Report


if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


class SIPruner:
    """Makes a ``PreTrainedModel`` sparse, with Sparsity Induction (arXiv 2602.21652) unless told otherwise.

    Args:
        model: changed in place.
        tokenizer: needed where calibration data is text; saved beside the model.
        processor: or its place; needed for images and sounds, where None tries the model's own. A given one is saved.

    Attributes:
        report: of the last run, a :class:`Report`; None before.
        source: Hub id or absolute path that the model was loaded from; "" where it was made in memory.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, processor: Any = None
    ) -> None:
        accept(model)
        self.model, self._processor = model, processor
        self.tokenizer = getattr(processor, "tokenizer", None) if tokenizer is None else tokenizer
        self.source: str = getattr(model, "name_or_path", "") or ""
        self._place: dict[str, Any] = {}
        self._saved: Path | None = None
        self._beside: SideFiles | None = None
        self.config: SIConfig | None = None
        self.report: Report | None = None
        self.scales = saved_scales(model, self.source)

    @classmethod
    def from_pretrained(
        cls,
        model_or_path: PreTrainedModel | str | Path,
        tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
        *,
        processor: Any = None,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> Self:
        """Take a loaded model, or load one with the class that its config names, so that heads are kept.

        Args:
            model_or_path: a ``PreTrainedModel``, a directory, a GGUF file or a Hub id; adapters there are merged.
            tokenizer, processor: loaded, or where to load it; None tries the model's own place.
            device: where to compute; None leaves a loaded model where it is.
            kwargs: for ``from_pretrained`` of the model: ``dtype``, ``revision``, ``trust_remote_code``, ...;
                ``gguf_file`` names a GGUF file in the directory or repository.

        Raises:
            UnsupportedModelError: for quantized models (GGUF files are dequantized), for models with adapters in
                them, and for repositories that need their own code.
            CheckpointError: when the place holds no readable checkpoint.
        """
        model, own_tokenizer, source = load_pretrained(model_or_path, tokenizer, **kwargs)
        if device is not None:
            move(model, device)
        pruner = cls(model, own_tokenizer, processor)
        pruner.source, pruner._place = source, kwargs
        # Now, and not after hours, when the connection may be lost.
        pruner._beside = find_side_files(source, required=model is not model_or_path, **kwargs)
        pruner.scales = saved_scales(model, source, **kwargs) or pruner.scales
        return pruner

    @property
    def processor(self) -> Any:
        """What makes inputs of images and sounds: as given, or from the model's place; None where there is none."""
        return load_processor(self._processor, self.source, **self._place)

    def prune(
        self,
        config: SIConfig,
        dataset: Any = None,
        save_dir: str | Path | None = None,
        overwrite: bool = False,
        progress: bool = True,
    ) -> PreTrainedModel:
        """Induce, prune and absorb, block by block, in place. A run that fails leaves the blocks it finished pruned.

        Args:
            config: the recipe.
            dataset: calibration data in any form that :func:`prepare_examples` takes, or "self" for what the model
                writes; None uses ``config.calibration.dataset``.
            save_dir: also save the result there, see :meth:`save_pretrained`.
            overwrite, progress: replace what is in ``save_dir``, show a progress bar.

        Returns:
            The model, an ordinary ``PreTrainedModel`` with exact zeros and ``config.sparsity_config``.

        Raises:
            ConfigurationError: for a recipe that does not fit the model.
            CalibrationError: for data that cannot be used.
            NumericalError: for NaN or infinity in weights or activations.
            UnsupportedModelError: for a model without blocks that can be pruned.
            CheckpointError: when ``save_dir`` cannot be written.
        """
        return self._run(True, config, dataset, save_dir, overwrite, progress)

    def induce(
        self,
        config: SIConfig,
        dataset: Any = None,
        save_dir: str | Path | None = None,
        overwrite: bool = False,
        progress: bool = True,
    ) -> PreTrainedModel:
        """Learn and absorb scales without pruning: the model computes the same function.

        What it buys: a later scale-sensitive step (magnitude pruning, quantization) meets a better-shaped model.
        The learned s is kept as well, and saved beside the weights, since absorbed scales move no bit of a Wanda or
        SparseGPT mask: ``prune`` of this checkpoint takes s up and gives the same result as ``prune`` of the original.

        Arguments, result and errors as for :meth:`prune`.
        """
        if config.induction is None:
            raise ConfigurationError("induction=None leaves `induce` nothing to do: give an InductionConfig.")
        return self._run(False, config, dataset, save_dir, overwrite, progress)

    def recover(
        self,
        config: SIConfig | RecoveryConfig | Mapping[str, Any] | None = None,
        dataset: Any = None,
        dense: PreTrainedModel | str | Path | None = None,
        minutes: float | None = None,
        save_dir: str | Path | None = None,
        overwrite: bool = False,
        progress: bool = True,
    ) -> PreTrainedModel:
        """Train the model, already pruned, as a whole towards what the dense one answers; zeros stay.

        Args:
            config: how, or a whole recipe with its own data; None is the defaults, on the data of the pruning run.
            dataset: text to draw from, as for :meth:`prune`.
            dense: the model before it was pruned, or its place; None is the base on the Hub that the report names.
            minutes: time limit, in place of the recipe's.
            save_dir: also save the result there; an interrupted call then goes on when it is repeated.
            overwrite, progress: as for :meth:`prune`, as are other errors.

        Raises:
            ConfigurationError: without a dense model, or for one that the model was not made from.
            UnsupportedModelError: for a model without zeros.
        """
        in_place = save_dir is not None and Path(save_dir).resolve() == Path(self.source).resolve()
        alone = Alone.of(self.model, self.tokenizer, self.source, self.report, self.config, config, minutes)
        alone.load_processor = lambda: self.processor
        sources = [dense, dataset, alone.recipe.calibration.dataset, *([] if in_place else [self.source])]
        if save_dir is not None:
            check_output(save_dir, overwrite, sources)
        if alone.train(dataset, dense, save_dir, progress):
            self.report, self.config, self._saved = alone.report, alone.pruned_by, None
            if save_dir is not None:
                self._save(save_dir, overwrite, sources)
            alone.forget_interruptions()
        return self.model

    get_calibration_dataset = staticmethod(load_calibration_dataset)

    def check_output(self, directory: str | Path, overwrite: bool = False) -> Path:
        """Raise :class:`CheckpointError` now where :meth:`save_pretrained` would later."""
        return check_output(directory, overwrite, [self.source])

    def save_pretrained(self, save_directory: str | Path, overwrite: bool = False, **kwargs: Any) -> None:
        """Write an ordinary checkpoint, with the recipe and the report beside it.

        Weights, config (with ``sparsity_config``), generation config, tokenizer, ``si_config.json``,
        ``si_report.json``, the model card, after :meth:`induce` ``si_scales.safetensors``, and processors, modules of
        sentence-transformers and licenses of the source. A card that was edited in the directory stays as it is.

        Args:
            save_directory: where to.
            overwrite: replace a directory that is not empty.
            kwargs: for the model's ``save_pretrained``, such as ``max_shard_size``.

        Raises:
            CheckpointError: for a directory that may not be replaced (docs/security.md), or when the disk is full.
        """
        self._save(save_directory, overwrite, [self.source], **kwargs)

    def _save(self, directory: str | Path, overwrite: bool, sources: list[Any], **kwargs: Any) -> None:
        """:meth:`save_pretrained`, which does not replace ``sources``."""
        target = check_output(directory, overwrite, sources).resolve()
        previous = read_card(target / CARD_NAME) if (target / CARD_NAME).is_file() else None
        with replaced_directory(target, overwrite, sources) as fresh:
            self._write(fresh, **kwargs)
            if self.report is not None:
                write_card(fresh, target.name, previous)
        self._saved = target

    def push_to_hub(
        self,
        repo_id: str,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        with_onnx: bool = False,
    ) -> "CommitInfo":
        """Publish the result of the last run: one commit with everything that :meth:`save_pretrained` writes.

        Measured results and an edited card come from the directory where the result was saved last.

        Args:
            repo_id: "owner/name"; created where it does not exist.
            private: of a repository that is created; None is the owner's default.
            token: of the Hub; None is that of ``hf auth login`` or ``HF_TOKEN``.
            revision: branch to commit to, created where it does not exist; None is "main".
            create_pr: open a pull request instead.
            commit_message: of the commit.
            with_onnx: also export to ``onnx/``, in fp32 for the CPU.

        Returns:
            What the Hub says of the commit; ``commit_url`` is its page.

        Raises:
            PublishError: without a token or the right to write, when the repository changed meanwhile, or when the
                connection is lost; what has arrived is not sent again by the next try.
            ConfigurationError: before any run.
        """
        if self.report is None:
            raise ConfigurationError("there is nothing to publish yet: call prune or induce first.")
        from optimum_si.hub.push import push_folder

        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            self._write(directory)
            if self._saved is not None:
                take_over(self._saved, directory)
            place: dict[str, Any] = {"private": private, "token": token, "revision": revision, "create_pr": create_pr}
            return push_folder(directory, repo_id, commit_message=commit_message, with_onnx=with_onnx, **place)

    def _write(self, directory: Path, **kwargs: Any) -> None:
        """Everything but the card, into an empty directory."""
        self.model.save_pretrained(directory, **kwargs)
        for part in filter(None, (self.tokenizer, self._processor and self.processor, self.config)):
            part.save_pretrained(directory)
        (self._beside or find_side_files(self.source)).save(directory, self.tokenizer)
        for save in [record.save for record in (self.report, self.scales) if record is not None]:
            save(directory)

    def _run(
        self, write: bool, config: SIConfig, dataset: Any, save_dir: str | Path | None, overwrite: bool, progress: bool
    ) -> PreTrainedModel:
        if save_dir is not None:
            check_output(save_dir, overwrite, [self.source, dataset, config.calibration.dataset])
        with experts_as_linears(self.model):
            result = self._result(write, config, dataset, progress)
        self.report, self.config = result.report, config.with_dataset(dataset)
        self.report.base = base_of(self.source, **self._place)
        self.report.dataset = (name := self.config.calibration.dataset) and public_name(name)
        learned = {name: (block.scaling, block.absorbed) for name, block in result.blocks.items()}
        self.scales = None if write else SavedScales.of(config, learned, self.report.transformations)
        self.model.config.sparsity_config = sparsity_record(config, write, self.report)
        if save_dir is not None:
            self.save_pretrained(save_dir, overwrite)
        return self.model

    def _result(self, write: bool, config: SIConfig, dataset: Any, progress: bool) -> RunResult:
        plan = make_plan(config, self.model, write)
        own = self.model, self.tokenizer, lambda: self.processor
        examples, fresh = examples_of(config, dataset, *own, write, progress)
        # A run that fails from here on must not undo scales a second time when it is repeated.
        plan, self.scales = plan.taking_up(self.scales)
        # What was measured of an earlier result says nothing of this one.
        self._saved = None
        padding = getattr(self.tokenizer, "pad_token_id", None) or 0
        return run(plan, examples, padding, progress, transformations_of(self.model, self.scales), fresh)
