"""The examples of a run: those that everything is measured on, and further ones for the recovery of the model."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from optimum_si.config.groups import CalibrationConfig

from .decoder_inputs import with_decoder_inputs
from .fresh import fresh_examples
from .own_text import OWN_TEXT, own_windows
from .prepare import as_examples, prepare_examples
from .reader import Reader
from .windows import Windower


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def is_own_text(dataset: Any, config: CalibrationConfig) -> bool:
    """Whether the model is asked to write its data itself."""
    name = config.dataset if dataset is None else dataset
    return isinstance(name, str) and name == OWN_TEXT


def run_data(
    dataset: Any,
    config: CalibrationConfig,
    num_fresh: int | None,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase | None",
    max_length: int | None,
    progress: bool = False,
    reader: Reader | None = None,
) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Calibration examples, and further ones that share no text with them.

    Args:
        dataset: as for :func:`prepare_examples`, or "self": text that the model writes.
        config: how many windows, how long, which seed.
        num_fresh: further windows; 0 gives the calibration examples once more, None none at all.
        model: writes its own text, and what its decoder reads, while it is dense.
        tokenizer, max_length: as for :func:`prepare_examples`.
        progress: whether to show a bar where text is written.
        reader: what the model reads, with its processor; None finds out all but the processor.

    Raises:
        CalibrationError: as :func:`prepare_examples`, :func:`own_windows` and :func:`with_decoder_inputs`.
    """
    if not is_own_text(dataset, config):
        text = dataset, config, tokenizer, max_length, reader or Reader.of(model)
        examples = prepare_examples(*text)
        fresh = [] if num_fresh is None else fresh_examples(examples, num_fresh, *text)
        padding = getattr(tokenizer, "pad_token_id", None) or 0
        complete = with_decoder_inputs([*examples, *fresh], model, config.sequence_length, padding)
        return complete[: len(examples)], complete[len(examples) :]
    wanted = replace(config, num_samples=config.num_samples + (num_fresh or 0))
    written = written_examples(wanted, model, tokenizer, max_length, progress)
    examples = written[: config.num_samples]
    return examples, examples if num_fresh == 0 else written[config.num_samples :]


def written_examples(
    config: CalibrationConfig,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase | None",
    max_length: int | None,
    progress: bool = False,
) -> list[dict[str, Tensor]]:
    """As many examples as a config wants, of text that a model writes. Arguments as for :func:`run_data`."""
    length = config.sequence_length
    if tokenizer is not None:
        length = Windower.for_tokenizer(tokenizer, length, max_length).length
    return as_examples(own_windows(model, tokenizer, config.num_samples, length, config.seed, progress))
