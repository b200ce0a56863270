"""The model card: what was done, what it cost and how to use it, from the files of a pruned directory alone."""

import hashlib
import math
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from optimum_si.warnings import warn

from .facts import Facts, read_facts
from .files import write_small_file
from .markdown import Raw, code, escaped, python_string, shell_word, url_path
from .results import RESULTS_NAME


CARD_NAME = "README.md"

#: The last line of a card that nobody has edited since it was written.
_SEAL = re.compile(r"<!-- optimum-si card (?P<digest>[0-9a-f]{16}): an edited card is kept as it is -->\s*\Z")


def render(facts: Facts) -> str:
    """The whole card, sealed with a checksum by which edits are found."""
    # ModelCard.from_template has an environment of its own, in which a misspelled name prints nothing, no filter can
    # quote for a shell, and each line of a tag leaves an empty line.
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=False,  # it is Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        finalize=escaped,
    )
    environment.filters |= {
        "code": code,
        "python": python_string,
        "shell": shell_word,
        "url": url_path,
    }
    metadata = Raw(_metadata(facts).to_yaml())
    text = environment.get_template("card.md.jinja").render(facts=facts, metadata=metadata)
    return f"{text}<!-- optimum-si card {_digest(text)}: an edited card is kept as it is -->\n"


def write_card(directory: Path, name: str, previous: str | None = None) -> None:
    """Write ``README.md``; a card that was edited stays as it is.

    Args:
        directory: directory of the model, with everything else already in it.
        name: what loads the model.
        previous: card of the directory that this one replaces; None where there was none.

    Raises:
        CheckpointError: when the directory's config, recipe, report or results are damaged, or it cannot be written.
    """
    if previous is not None and is_edited(previous):
        if reason := broken_metadata(previous):
            warn(f"{CARD_NAME} was edited and is kept, but its metadata is broken: {reason}")
        text = previous
    else:
        text = render(read_facts(directory, name))
    write_small_file(directory / CARD_NAME, text)


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
    if facts.on_hub:
        # The weights did change: without it, ONNX files beside them make the Hub infer "quantized".
        options = {"base_model": facts.base, "base_model_relation": "finetune"}
    if facts.results:
        options |= {"model_name": facts.title, "eval_results": _eval_results(facts)}
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=facts.pipeline_tag,
        tags=tags,
        **options,
        **carried,
    )


def _eval_results(facts: Facts) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=facts.pipeline_tag or "other",
            dataset_type=result.dataset,
            dataset_name=result.dataset,
            metric_type=result.metric,
            metric_value=result.value,
            metric_name=result.metric,
        )
        for result in facts.results
        if math.isfinite(result.value)
    ]
