"""Models to measure on: what they are calibrated with, and what is measured on two kinds of held-out text."""

import pydoc_data.topics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from corpus import windows
from transformers import AutoTokenizer, PreTrainedModel

from optimum_si import SIConfig, SIPruner, perplexity
from optimum_si.demo.embeddings import cosine_metric, find_model
from optimum_si.demo.prose import calibration_text, other_text, test_text
from optimum_si.demo.real_model import real_model_directory
from optimum_si.demo.texts import calibration_docstrings, docstrings_of, first_paragraph


#: What stands for a path: the sentence encoder of the ``demo`` extra, and the language model of ``realmodels``.
ENCODER = "minilm"
REAL_MODEL = "smollm2"


@dataclass
class Subject:
    """One model.

    Args:
        name: for tables.
        path: directory or Hub id.
        calibration: for :meth:`SIPruner.prune`.
        groups: fields of the recipe that fit the calibration data.
    """

    name: str
    path: str
    calibration: Any
    groups: Mapping[str, Any] = field(default_factory=dict)

    def pruned(self, config: SIConfig) -> SIPruner:
        """The model after a recipe."""
        pruner = SIPruner.from_pretrained(self.path)
        pruner.prune(config, self.calibration, progress=False)
        return pruner

    def measure(self, model: PreTrainedModel) -> dict[str, float]:
        """Quality on text of the calibration's kind ("same") and of another ("other")."""
        raise NotImplementedError


class LanguageModel(Subject):
    """Perplexity on other sources of the standard library, and on Python's documentation, which is English prose."""

    unit = "perplexity"

    def __init__(self, path: str, count: int, length: int, tested: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        calibration = windows(self.tokenizer, "calib", count, length, random_starts=True)
        super().__init__(Path(path).name, path, calibration)
        self.texts = {
            "same": windows(self.tokenizer, "test", tested, length, random_starts=False),
            "other": windows(self.tokenizer, "prose", tested, length, random_starts=False),
        }

    def measure(self, model: PreTrainedModel) -> dict[str, float]:
        return {kind: perplexity(model, self.tokenizer, texts, progress=False) for kind, texts in self.texts.items()}


class RealModel(Subject):
    """Perplexity of a real language model on articles that calibration does not see, and on news.

    Calibration data is text, so that recovery can draw windows that the fits have not seen.
    """

    unit = "perplexity"

    def __init__(self, count: int, length: int, tested: int) -> None:
        path = str(real_model_directory())
        groups = {"calibration": {"num_samples": count, "sequence_length": length}}
        super().__init__(Path(path).name, path, calibration_text(), groups)
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.length, self.tested = length, tested
        self.texts = {"same": test_text(), "other": other_text()}

    def measure(self, model: PreTrainedModel) -> dict[str, float]:
        return {
            kind: perplexity(
                model, self.tokenizer, texts, self.length, batch_size=2, progress=False, max_windows=self.tested
            )
            for kind, texts in self.texts.items()
        }


class Encoder(Subject):
    """Mean cosine to the dense embeddings, on another project's docstrings and on paragraphs of documentation."""

    unit = "cosine"

    def __init__(self, count: int, length: int, tested: int) -> None:
        path = str(find_model())
        texts = calibration_docstrings(12 * count * length)
        super().__init__(
            "all-MiniLM-L6-v2", path, texts, {"calibration": {"num_samples": count, "sequence_length": length}}
        )
        dense = SIPruner.from_pretrained(path)
        sentences = {"same": _sentences(_project_docstrings("numpy"), tested), "other": _sentences(_prose(), tested)}
        self.measures = {kind: cosine_metric(dense.model, dense.tokenizer, texts) for kind, texts in sentences.items()}

    def measure(self, model: PreTrainedModel) -> dict[str, float]:
        return {kind: measure.score(model) for kind, measure in self.measures.items()}


def subject(name: str, count: int | None, length: int | None, tested: int) -> LanguageModel | RealModel | Encoder:
    """By path, or one that has a name; windows as the figures in the documentation have them if they are not given."""
    if name == ENCODER:
        return Encoder(count or 96, length or 128, tested)
    if name == REAL_MODEL:
        return RealModel(count or 32, length or 512, tested)
    return LanguageModel(name, count or 128, length or 256, tested)


def _project_docstrings(package: str) -> Iterator[str]:
    found = find_spec(package)
    assert found is not None and found.submodule_search_locations, f"{package} is not installed"
    for path in sorted(Path(found.submodule_search_locations[0]).rglob("*.py")):
        if "tests" not in path.parts:
            yield from docstrings_of(path.read_text(encoding="utf-8", errors="replace"))


def _prose() -> Iterator[str]:
    for text in pydoc_data.topics.topics.values():
        yield from text.split("\n\n")


def _sentences(texts: Iterator[str], count: int) -> list[str]:
    """First paragraphs that say something, each once."""
    chosen: dict[str, None] = {}
    for text in texts:
        sentence = first_paragraph(text)
        if 5 <= len(sentence.split()) <= 60:
            chosen[sentence] = None
        if len(chosen) == count:
            break
    return list(chosen)
