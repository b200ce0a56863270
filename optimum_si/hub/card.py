"""The model card: what was done, what it cost and how to use it, from the files of a pruned directory alone."""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from optimum_si.config.si_config import SIConfig
from optimum_si.errors import CheckpointError
from optimum_si.report import Report
from optimum_si.warnings import warn

from .base_model import public_name
from .results import RESULTS_NAME, Result, load_results, write_beside
from .sections import body


CARD_NAME = "README.md"
PICTURES = "report"

#: The last line of a card that nobody has edited since it was written.
_SEAL = re.compile(r"<!-- optimum-si card (?P<digest>[0-9a-f]{16}): an edited card is kept as it is -->\s*\Z")
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


@dataclass(frozen=True)
class Facts:
    """What a card is written from.

    Args:
        name: what loads the model: a Hub id, or the name of its folder.
        architecture: class name in ``config.json``.
        report: of the run.
        config: the whole recipe.
        results: measured numbers.
        pictures: paths in the directory.
        has_tokenizer: whether a tokenizer lies beside the model.
        onnx: subfolder with an export, or None.
    """

    name: str
    architecture: str
    report: Report
    config: SIConfig
    results: list[Result]
    pictures: list[str]
    has_tokenizer: bool
    onnx: str | None

    @property
    def dataset(self) -> str | None:
        """Name of the calibration data that may be published; older reports lack it."""
        given = self.config.calibration.dataset
        return self.report.dataset or (None if given is None else public_name(given))

    @property
    def kind(self) -> str | None:
        """The Hub's name of what the architecture does, which says how to load it."""
        return next((task for end, task in _TASKS.items() if self.architecture.endswith(end)), None)

    @property
    def task(self) -> str | None:
        """The Hub's name of what the model does."""
        return self.report.base.get("pipeline_tag") or self.kind


def read_facts(directory: Path, name: str) -> Facts:
    """The facts of a directory that ``prune`` or ``induce`` wrote.

    Raises:
        CheckpointError: when the config, the recipe or the report is missing or damaged.
    """
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architecture = (config.get("architectures") or [""])[0]
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be read ({error}): give a directory that `optimum-cli si prune -o DIR` wrote."
        ) from error
    return Facts(
        name=name,
        architecture=architecture,
        report=Report.load(directory),
        config=SIConfig.from_pretrained(directory),
        results=load_results(directory),
        pictures=sorted(file.relative_to(directory).as_posix() for file in (directory / PICTURES).glob("*.png")),
        has_tokenizer=(directory / "tokenizer_config.json").is_file(),
        onnx="onnx" if (directory / "onnx").is_dir() else None,
    )


def build(facts: Facts) -> str:
    """The whole card, sealed with a checksum by which edits are found."""
    text = f"---\n{_metadata(facts).to_yaml()}\n---\n\n{body(facts, facts.kind)}\n"
    return f"{text}<!-- optimum-si card {_digest(text)}: an edited card is kept as it is -->\n"


def write_card(directory: Path, name: str, previous: str | None = None) -> None:
    """Write ``README.md``; a card that was edited stays as it is.

    Args:
        directory: with everything else already in it.
        name: what loads the model.
        previous: the card of the directory that this one replaces.
    """
    if previous is not None and is_edited(previous):
        if reason := broken_metadata(previous):
            warn(f"{CARD_NAME} was edited and is kept, but its metadata is broken: {reason}")
        text = previous
    else:
        text = build(read_facts(directory, name))
    write_beside(directory / CARD_NAME, text)


def take_over(saved: Path, directory: Path) -> None:
    """Bring what people and ``evaluate --save`` left in one directory into another that holds the same model."""
    if (saved / RESULTS_NAME).is_file():
        (directory / RESULTS_NAME).write_bytes((saved / RESULTS_NAME).read_bytes())
    if (saved / CARD_NAME).is_file() and is_edited(read_card(saved / CARD_NAME)):
        (directory / CARD_NAME).write_bytes((saved / CARD_NAME).read_bytes())


def read_card(path: Path) -> str:
    """A card with whatever bytes it holds: what is not UTF-8 comes back unchanged when it is written."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def is_edited(card: str) -> bool:
    """Whether a card is somebody's own: not as one of ours was written."""
    card = card.replace("\r\n", "\n")
    seal = _SEAL.search(card)
    return seal is None or seal["digest"] != _digest(card[: seal.start()])


def broken_metadata(card: str) -> str | None:
    """What is wrong with a card's YAML, on one line; None where it can be read."""
    try:
        ModelCard(card)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        return " ".join(str(error).split())
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _metadata(facts: Facts) -> ModelCardData:
    base = facts.report.base
    carried = {name: base[name] for name in ("license", "license_name", "license_link", "language") if name in base}
    tags = ["optimum-si", "sparse", "sparsity"]
    if facts.report.task == "prune":
        tags += ["pruned", facts.config.method, *([facts.config.pattern] if facts.config.pattern else [])]
    if facts.onnx:
        tags.append("onnx")
    options: dict[str, Any] = {}
    if base.get("on_hub"):
        # The weights did change: without it, ONNX files beside them make the Hub infer "quantized".
        options = {"base_model": base["name"], "base_model_relation": "finetune"}
    if facts.results:
        options |= {"model_name": facts.name.rsplit("/", 1)[-1], "eval_results": _eval_results(facts)}
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=facts.task,
        tags=tags,
        **options,
        **carried,
    )


def _eval_results(facts: Facts) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=facts.task or "other",
            dataset_type=result.dataset,
            dataset_name=result.dataset,
            metric_type=result.metric,
            metric_value=result.value,
            metric_name=result.metric,
        )
        for result in facts.results
        if math.isfinite(result.value)
    ]
