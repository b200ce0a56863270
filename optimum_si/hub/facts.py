"""What a model card is written from: the files of a pruned directory, read and put in the card's terms."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from optimum_si.config.command_line import recipe_flags
from optimum_si.config.si_config import SIConfig
from optimum_si.config.small_files import read_small
from optimum_si.errors import CheckpointError
from optimum_si.report import LayerReport, Report
from optimum_si.report.kinds import KindOfLayer, kinds_of_layers, largest_kinds, worst_layers

from .base_model import public_name
from .files import files_in
from .markdown import shell_command
from .results import Result, load_results


#: Folders beside the weights.
PICTURES = "report"
ONNX = "onnx"

#: What each picture of a report shows, by the name of its file.
CAPTIONS = {
    "importance": "Histograms of the scores of all weights, before and after induction",
    "layers": "Relative output error and share of zeros of each layer",
    "blocks": "Held-out loss of each block with the plain method and as chosen",
    "singular-values": "Singular values of one layer, dense and pruned",
    "scales": "Range and median of the learned scales of each layer",
}

#: The Hub's name of a task, by how names of architectures end that do it.
_TASKS = {
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForImageClassification": "image-classification",
}
#: Auto classes of transformers, by the Hub's name of a task.
_AUTO_CLASSES = {
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "image-classification": "AutoModelForImageClassification",
}
_METHODS = {"magnitude": "Magnitude", "wanda": "Wanda", "sparsegpt": "SparseGPT"}


@dataclass(frozen=True)
class SavedRun:
    """What ``prune`` or ``induce`` saved of a run.

    Args:
        architecture: class name in ``config.json``; "" where it names none.
        report: report of the run.
        config: the whole recipe.
        results: what was measured since.
    """

    architecture: str
    report: Report
    config: SIConfig
    results: list[Result]

    @property
    def dataset(self) -> str | None:
        """Name of the calibration data that may be published; older reports lack it."""
        given = self.config.calibration.dataset
        return self.report.dataset or (None if given is None else public_name(given))


@dataclass(frozen=True)
class Facts:
    """Everything that a card says.

    Args:
        name: what loads the model: a Hub id, or the name of its folder.
        title: last part of that name.
        report: report of the run.
        config: the whole recipe.
        method: name of the pruning method as papers write it.
        base: name of the model that was pruned.
        on_hub: whether that name is an id on the Hub.
        licenses: licenses of that model; empty where none is known.
        dataset: name of the calibration data that may be published; None where it was given in Python.
        results: measured numbers.
        kinds: what became of each kind of layer; where there are many, of the largest.
        other_kinds: how many kinds that leaves out.
        worst: the layers with the largest errors.
        pictures: captions, by the picture's path in the directory.
        has_tokenizer: whether a tokenizer lies beside the model.
        onnx: subfolder with an export, or None.
        pipeline_tag: the Hub's name of what the model does, or None.
        loading_task: the Hub's name of what the architecture does, which says how to load it; or None.
        auto_class: class of transformers that loads it.
        commands: lines for a shell that make the model again.
    """

    name: str
    title: str
    report: Report
    config: SIConfig
    method: str
    base: str
    on_hub: bool
    licenses: list[str]
    dataset: str | None
    results: list[Result]
    kinds: list[KindOfLayer]
    other_kinds: int
    worst: list[LayerReport]
    pictures: dict[str, str]
    has_tokenizer: bool
    onnx: str | None
    pipeline_tag: str | None
    loading_task: str | None
    auto_class: str
    commands: list[str]

    @classmethod
    def of(cls, run: SavedRun, name: str, files: Iterable[str]) -> Self:
        """The facts of a run.

        Args:
            run: what was saved of it.
            name: what loads the model.
            files: paths of all files that the card lies beside, relative to its folder.
        """
        files = sorted(files)
        report, task = run.report, _task_of(run.architecture)
        kinds, other_kinds = largest_kinds(kinds_of_layers(report))
        base, license_ = str(report.base.get("name") or "model"), report.base.get("license")
        return cls(
            name=name,
            title=_last_part(name),
            report=report,
            config=run.config,
            method=_METHODS.get(report.method, report.method.capitalize()),
            base=base,
            on_hub=bool(report.base.get("on_hub")),
            licenses=license_ if isinstance(license_, list) else [] if license_ is None else [license_],
            dataset=run.dataset,
            results=run.results,
            kinds=kinds,
            other_kinds=other_kinds,
            worst=worst_layers(report),
            pictures={file: _caption(file) for file in files if is_picture(file)},
            has_tokenizer="tokenizer_config.json" in files,
            onnx=ONNX if any(file.startswith(f"{ONNX}/") for file in files) else None,
            pipeline_tag=report.base.get("pipeline_tag") or task,
            loading_task=task,
            auto_class=_AUTO_CLASSES.get(task or "", "AutoModel"),
            commands=_commands(run, name, base),
        )


def read_run(directory: Path) -> SavedRun:
    """What ``prune`` or ``induce`` saved of a run in a directory.

    Raises:
        CheckpointError: when the config, the recipe or the report is missing or damaged.
    """
    path = directory / "config.json"
    try:
        config = json.loads(read_small(path))
        architecture = (config.get("architectures") or [""])[0]
    except (OSError, ValueError, AttributeError, TypeError, LookupError, RecursionError) as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be read ({error}): give a directory that `optimum-cli si prune -o DIR` wrote."
        ) from error
    report, recipe = Report.load(directory), SIConfig.from_pretrained(directory)
    return SavedRun(architecture, report, recipe, load_results(directory))


def read_facts(directory: Path, name: str) -> Facts:
    """The facts of a directory for a card in it.

    Args:
        directory: directory that ``prune`` or ``induce`` wrote.
        name: what loads the model.

    Raises:
        CheckpointError: as :func:`read_run`.
    """
    return Facts.of(read_run(directory), name, files_in(directory))


def is_picture(file: str) -> bool:
    """Whether a path in a directory is that of a report's picture."""
    return file.startswith(f"{PICTURES}/") and file.endswith(".png")


def _task_of(architecture: str) -> str | None:
    return next((task for ending, task in _TASKS.items() if architecture.endswith(ending)), None)


def _caption(picture: str) -> str:
    stem = PurePosixPath(picture).stem
    return CAPTIONS.get(stem, stem.replace("-", " ").replace("_", " "))


def _commands(run: SavedRun, name: str, base: str) -> list[str]:
    """The command that gives the same recipe; where flags cannot say it, the recipe is fetched first."""
    words = ["optimum-cli", "si", run.report.task, "-m", base, "--dataset", run.dataset or "calibration.txt"]
    output = ["-o", _last_part(name)]
    flags = recipe_flags(run.config)
    if flags is not None:
        return [shell_command([*words, *flags, *output])]
    recipe = SIConfig.CONFIG_NAME
    download = ["hf", "download", name, recipe, "--local-dir", "."]
    return [shell_command(download), shell_command([*words, "--config", recipe, *output])]


def _last_part(name: str) -> str:
    return name.rsplit("/", 1)[-1]
