"""What the decoder of an encoder-decoder reads: given, made of labels, or written by the model itself."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from optimum_si.errors import CalibrationError

from .batches import make_batches


if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Tokens that a model writes at most, and examples that it writes for together.
MOST_TOKENS, TOGETHER = 64, 8
IDS, MASK, LABELS = "decoder_input_ids", "decoder_attention_mask", "labels"
#: What an encoder reads.
_OF_DECODER = frozenset({IDS, MASK, LABELS, "decoder_inputs_embeds"})


def with_decoder_inputs(
    examples: Sequence[Mapping[str, Tensor]], model: "PreTrainedModel", length: int, padding_id: int = 0
) -> list[dict[str, Tensor]]:
    """Examples of an encoder-decoder with ``decoder_input_ids`` and their mask; of other models as they are.

    Labels become decoder inputs as in training. Where there are none, the model, still dense, writes greedily, or
    reads its own input one token later where it writes nothing (as BART's classifiers do).

    Args:
        examples: dicts of tensors with a leading dimension of 1.
        model: dense; its mode is restored.
        length: tokens that are written at most, beside :data:`MOST_TOKENS`.
        padding_id: token that fills shorter inputs.

    Raises:
        CalibrationError: where a model cannot make decoder inputs.
    """
    # Those of some detectors read no tokens.
    if not getattr(model.config, "is_encoder_decoder", False) or not reads_tokens(model):
        return [dict(example) for example in examples]
    found = [_of_labels(example, model) for example in examples]
    missing = [index for index, example in enumerate(found) if not example.keys() & {IDS, "decoder_inputs_embeds"}]
    if not missing:
        return found
    start = _start_token(model)
    written = [_shifted(found[index]["input_ids"], start, model) for index in missing if "input_ids" in found[index]]
    if model.can_generate():
        written = _written([found[index] for index in missing], model, start, length, padding_id)
    elif len(written) < len(missing):
        raise CalibrationError(
            f"{type(model).__name__} has a decoder and writes no text, so the calibration data has to hold what it "
            f"reads: add {IDS!r}, or 'labels'."
        )
    for index, ids in zip(missing, written, strict=True):
        found[index] |= {IDS: ids, MASK: torch.ones_like(ids)}
    return found


def _of_labels(example: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """An example with its labels turned into decoder inputs, where it has some and no such inputs."""
    rest = {name: value for name, value in example.items() if name != LABELS}
    labels = example.get(LABELS)
    if labels is None or labels.ndim != 2 or labels.is_floating_point():
        return dict(example)
    if rest.keys() & {IDS, "decoder_inputs_embeds"}:
        return rest
    labels = labels.long()
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    try:
        ids = None if shift is None else shift(labels)
    except (ValueError, TypeError, AssertionError):  # without a start token in the config
        ids = None
    if ids is None:
        ids = _shifted(labels, _start_token(model), model)
    real = torch.cat([torch.ones_like(labels[:, :1]), (labels[:, :-1] != -100).long()], dim=1)
    return {**rest, IDS: ids, MASK: real}


def _shifted(ids: Tensor, start: int, model: Any) -> Tensor:
    """Ids one place to the right, after the start token; what is no token becomes padding."""
    padding = getattr(model.config.get_text_config(decoder=True), "pad_token_id", None) or 0
    shifted = torch.cat([torch.full_like(ids[:, :1], start), ids[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == -100, padding)


def _start_token(model: Any) -> int:
    """The token that a decoder begins with.

    Raises:
        CalibrationError: where nothing says which.
    """
    configs = (getattr(model, "generation_config", None), model.config, model.config.get_text_config(decoder=True))
    for name in ("decoder_start_token_id", "bos_token_id"):
        for config in configs:
            token = getattr(config, name, None)
            token = token[0] if isinstance(token, (list, tuple)) and token else token
            if isinstance(token, int):
                return token
    raise CalibrationError(
        f"nothing says with which token the decoder of {type(model).__name__} begins: set "
        f"model.config.decoder_start_token_id, or give {IDS!r}."
    )


@torch.no_grad()
def _written(
    examples: Sequence[Mapping[str, Tensor]], model: Any, start: int, length: int, padding_id: int
) -> list[Tensor]:
    """What the model writes for each example, int64 [1, T] that begins with the start token, without an end."""
    parameter = next(model.parameters())
    limit = max(min(length, MOST_TOKENS, _positions(model) - 1), 1)
    ends = _end_tokens(model)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    written: list[Tensor] = []
    try:
        # In their order, and only those of a kind together.
        for batch in make_batches(examples, TOGETHER, padding_id):
            inputs = {
                name: value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)
                for name, value in batch.items()
                if name not in _OF_DECODER
            }
            # Whisper's own cuts long sounds and drops the tokens that it was made to begin with.
            options = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1, "max_new_tokens": limit}
            ids = GenerationMixin.generate(model, **inputs, **options, decoder_start_token_id=start)
            ids = ids if isinstance(ids, Tensor) else ids.sequences
            if int(ids[0, 0]) != start:
                ids = torch.cat([torch.full_like(ids[:, :1], start), ids], dim=1)
            written += [_without_end(row, ends)[None] for row in ids.cpu()]
    except CalibrationError:
        raise
    except Exception as error:  # whatever a model's own code does with inputs that it was not made for
        raise CalibrationError(
            f"{type(model).__name__} cannot write what its decoder reads for this data "
            f"({' '.join(str(error).split()) or type(error).__name__}): add {IDS!r} or 'labels' to the data, or name "
            "a column of targets as calibration.target_column."
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
    return written


def _without_end(ids: Tensor, ends: set[int]) -> Tensor:
    """Ids up to the first end after the start, which a decoder writes and does not read."""
    end = next((place for place in range(1, len(ids)) if int(ids[place]) in ends), len(ids))
    return ids[:end]


def _end_tokens(model: Any) -> set[int]:
    ends: set[int] = set()
    for config in (getattr(model, "generation_config", None), model.config):
        found = getattr(config, "eos_token_id", None)
        ends |= {int(token) for token in (found if isinstance(found, (list, tuple)) else [found]) if token is not None}
    return ends


def _positions(model: Any) -> int:
    """Positions of the decoder; very many where nothing bounds them."""
    config = model.config.get_text_config(decoder=True)
    for name in ("max_target_positions", "max_decoder_position_embeddings", "max_position_embeddings", "n_positions"):
        if isinstance(limit := getattr(config, name, None), int) and limit > 1:
            return limit
    return 1 << 30


def reads_tokens(model: "PreTrainedModel") -> bool:
    """Whether the decoder of a model reads tokens that somebody has to give or to make."""
    return IDS in signature(model.forward).parameters
