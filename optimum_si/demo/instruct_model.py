"""The default demo: a real language model that answers questions, pruned by four recipes, exported and put to work."""

import copy
import shlex
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoTokenizer

from optimum_si.config.groups import CalibrationConfig, InductionConfig
from optimum_si.config.si_config import SIConfig
from optimum_si.errors import SIError
from optimum_si.pruner import SIPruner

from . import prose, real_model
from .comparison import KEPT_PATTERN, best_device, check_saved, say
from .language_model import load_causal
from .live_output import clock
from .recipe_table import RecipeTable, percent, windows_of
from .sparse_export import Exported, compare_exports


QUESTION = "What is gravity?"
#: The recipe whose result is kept.
KEPT = "fast"


@dataclass(frozen=True)
class Amount:
    """How much the demo does.

    Args:
        windows: number of calibration windows.
        length: tokens of a window, to calibrate, to recover and to measure.
        epochs: epochs of induction.
        recovery_windows: number of further windows on which `fast` recovers.
        test_windows: number of windows of each text on which perplexity is measured.
        answer: tokens of an answer at most.
        repeats: turns in which speed is measured.
    """

    windows: int
    length: int
    epochs: int
    recovery_windows: int
    test_windows: int
    answer: int
    repeats: int

    @classmethod
    def of(cls, quick: bool) -> "Amount":
        """What takes about ten minutes on two cores, or just enough to see that everything works."""
        return cls(4, 64, 1, 4, 2, 16, 1) if quick else cls(16, 512, 1, 24, 8, 80, 3)

    def recipes(self) -> dict[str, SIConfig]:
        """By name, in the order of the table."""
        common: dict[str, Any] = {
            "pattern": KEPT_PATTERN,
            "calibration": CalibrationConfig(num_samples=self.windows, sequence_length=self.length),
        }
        return {
            "Wanda": SIConfig("wanda", induction=None, **common),
            "SI + Wanda": SIConfig("wanda", induction=InductionConfig(epochs=self.epochs), **common),
            "SparseGPT": SIConfig("sparsegpt", induction=None, **common),
            KEPT: SIConfig.preset(KEPT, recovery={"num_samples": self.recovery_windows}, **common),
        }


def run_instruct_model(output: Path, quick: bool) -> None:
    """Compare recipes, keep what `fast` makes, let it answer, export it and say what was gained.

    Raises:
        SIError: when the model or the texts cannot be had.
    """
    amount = Amount.of(quick)
    directory, calibration, texts = _subject()
    pruner = SIPruner.from_pretrained(directory, device=best_device())
    model, tokenizer = pruner.model, pruner.tokenizer
    windows = {name: windows_of(tokenizer, text, amount.test_windows, amount.length) for name, text in texts.items()}
    articles, news = windows.values()
    say(
        f"{directory.name}, {model.num_parameters() / 1e6:.0f} M weights, is pruned to {KEPT_PATTERN} on "
        f"{amount.windows} windows of {amount.length} tokens from Wikipedia; SI learns for\n"
        f"{amount.epochs} epoch, `{KEPT}` recovers on {amount.recovery_windows} further windows. Measured: "
        f"perplexity on {articles.numel():,} tokens of other articles and\n{news.numel():,} tokens of news. closed: "
        "the share of what Wanda lost that a recipe wins back.\n"
    )
    table = _prune_all(pruner, calibration, windows, amount, output)

    pruned = load_causal(output)
    check_saved(pruned, output, f"The result of `fast` at {KEPT_PATTERN}")
    say(f"\nThe same question to both: {QUESTION}")
    _say_answer("dense", model, tokenizer, amount)
    _say_answer("fast", pruned, AutoTokenizer.from_pretrained(output), amount)
    pruned.cpu()  # type: ignore[call-arg]
    exported = compare_exports(directory, pruned, tokenizer, output, articles, amount.repeats)
    if exported is not None:
        _say_answer("fast, exported", exported.sparse, tokenizer, amount)
    _say_what_was_gained(table, exported)
    say(
        "Next, layer by layer what was done, and the same comparison on a sentence encoder:\n"
        f"  optimum-cli si report {shlex.quote(str(output))}\n"
        "  optimum-cli si demo --embeddings"
    )


def _subject() -> tuple[Path, list[str], dict[str, list[str]]]:
    """The model's checkpoint, text to calibrate on, and texts to measure on by their names."""
    try:
        # Texts first: whether they are there is known at once, and the model may take a download.
        calibration, texts = prose.calibration_text(), {"articles": prose.test_text(), "news": prose.other_text()}
        return real_model.real_model_directory(), calibration, texts
    except SIError as error:
        raise type(error)(
            f"{error} The demo on a sentence encoder needs none of it: optimum-cli si demo --embeddings."
        ) from error


def _prune_all(
    pruner: SIPruner, calibration: list[str], windows: dict[str, Tensor], amount: Amount, output: Path
) -> RecipeTable:
    """All rows; the result of the last recipe is saved."""
    table = RecipeTable(windows)
    table.add("dense", pruner.model)
    for name, config in amount.recipes().items():
        copied = SIPruner(copy.deepcopy(pruner.model), pruner.tokenizer)
        started = time.perf_counter()
        with clock(name):
            copied.prune(config, calibration, progress=False)
        table.add(name, copied.model, time.perf_counter() - started)
        if name == KEPT:
            copied.save_pretrained(output, overwrite=True)
        del copied  # before the next one: only one copy beside the dense model is ever in memory
    return table


def _say_answer(name: str, model: Any, tokenizer: Any, amount: Amount) -> None:
    """The answer to the question, through the chat template, always the likeliest token."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    ids = model.generate(
        input_ids=prompt["input_ids"],
        attention_mask=prompt["attention_mask"],
        max_new_tokens=amount.answer,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    )
    answer = tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    lines = textwrap.wrap(answer, 100) or [""]
    say(f"{name}:\n" + "\n".join(f"  | {line}" for line in lines))


def _say_what_was_gained(table: RecipeTable, exported: Exported | None) -> None:
    wanda, kept = table.rows[1], table.rows[-1]
    texts = [
        f"on {name} {percent(closed) if (closed := table.closed(kept, index)) > 0 else 'nothing'} of what Wanda lost "
        f"({table.to_dense(kept, index):.2f} x dense instead of {table.to_dense(wanda, index):.2f} x)"
        for index, name in enumerate(table.texts)
    ]
    say(f"\nWhat was gained: `{KEPT}` wins back {', '.join(texts)}.")
    if exported is not None:
        zeros = "neither stored nor computed with" if exported.kernels else "not stored"
        say(
            f"Half of the weights of its blocks are zeros, {zeros}: beside the dense model's export, its own has "
            f"{exported.size:.2f} x the size and generates {exported.speed:.2f} x as fast."
        )
