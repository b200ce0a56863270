"""What is checked of weights and calibration data before a run changes anything."""

import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.layers import Layer
from optimum_si.algorithms.soundness import fault
from optimum_si.config.si_config import SIConfig
from optimum_si.errors import CalibrationError, ConfigurationError, NumericalError, UnsupportedModelError
from optimum_si.models.weight_view import WeightView
from optimum_si.report import BlockReport


def check_call(config: Any) -> None:
    """Check what a run is called with, and the mode that torch is in.

    Raises:
        ConfigurationError: for anything but a valid recipe, and inside ``torch.inference_mode()``.
    """
    if not isinstance(config, SIConfig):
        raise ConfigurationError(f"config={config!r}: expected an SIConfig.")
    config.validate()
    if torch.is_inference_mode_enabled():
        raise ConfigurationError("pruning changes weights: leave torch.inference_mode() before calling it.")


def check_placed(model: PreTrainedModel) -> None:
    """Raise :class:`UnsupportedModelError` where weights lie on a disk or were never loaded."""
    away = [name for name, parameter in model.named_parameters() if parameter.device.type == "meta"]
    if away:
        raise UnsupportedModelError(
            f"{len(away)} weights are offloaded or not loaded, such as {away[0]!r}: load the model where all of it "
            "fits into memory, without device_map or with device_map='cpu', in a narrower dtype if need be."
        )


DAMAGED = "the checkpoint is damaged, or was saved in a dtype too narrow for it. Load another copy"


def check_finite(model: PreTrainedModel, because: str = DAMAGED) -> None:
    """Raise :class:`NumericalError` for NaN or infinity in any parameter, pruned or not.

    Args:
        model: what is looked at.
        because: what follows from it.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise NumericalError(f"layer {name.removesuffix('.weight')!r} holds NaN or infinity: {because}.")


def check_generation(model: PreTrainedModel) -> None:
    """Raise :class:`ConfigurationError` for a generation config that cannot be saved, before anything is done."""
    config = getattr(model, "generation_config", None)
    if config is None:
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            "model.generation_config contradicts itself, and could not be saved with the result: "
            f"{' '.join(str(error).split())} Mend it (for example, model.generation_config.do_sample = True)."
        ) from error


def check_layer(state: BlockState, layer: Layer, more_zeros: bool) -> None:
    """Raise :class:`NumericalError` where what a layer is about to become is not finite or has not the zeros wanted.

    Args:
        state: its block, with weights as they will be stored.
        layer: dense.
        more_zeros: whether it may have further zeros, as of weights rounded to a grid.
    """
    wrong = fault(layer.target, layer.weight, *state.weights[layer.view.name], state.counts_rows, more_zeros)
    if wrong:
        raise NumericalError(
            f"layer {layer.view.name!r} ended with {wrong}, so nothing is saved: load the model in dtype='float32', "
            "or exclude that layer."
        )


def check_result(
    model: PreTrainedModel, views: Iterable[Mapping[str, WeightView]], reports: Iterable[BlockReport]
) -> None:
    """Raise :class:`NumericalError` where what came after the blocks left a weight not finite, or moved a zero.

    Args:
        model: after a run.
        views: that were pruned, of each block.
        reports: of the blocks, each made when its block was done.
    """
    check_finite(model, "the run made it overflow, so nothing is saved: load the model in dtype='float32'")
    layers = {layer.name: layer for report in reports for layer in report.layers}
    for view in (view for block in views for view in block.values()):
        layer, found = layers.get(view.name), int((view.read() == 0).sum())
        if layer is None or layer.sparsity is None:  # no data came to it
            continue
        made = round(layer.sparsity * layer.num_weights)
        if found != made:
            raise NumericalError(
                f"layer {view.name!r} ended with {found:,} zeros where {made:,} were made, so nothing is saved: run "
                "without recovery, and report this."
            )


def check_vocabulary(examples: list[dict[str, Tensor]], model: PreTrainedModel) -> None:
    """Token ids that a model has no embedding for would end in an index error deep inside it."""
    for name, part in (("input_ids", model), ("decoder_input_ids", _decoder(model))):
        ids = [example[name] for example in examples if name in example]
        if not ids:
            continue
        highest, lowest = max(int(values.max()) for values in ids), min(int(values.min()) for values in ids)
        if lowest < 0:
            raise CalibrationError(
                f"the calibration data holds token {lowest}: ids begin with 0. Labels such as -100 do not belong into "
                f"{name}; give the ids of the text itself, with an attention_mask for padding."
            )
        try:
            size = getattr(part.get_input_embeddings(), "num_embeddings", None)
        except (NotImplementedError, AttributeError):  # a model of several towers
            continue
        if size is not None and highest >= size:
            raise CalibrationError(
                f"the calibration data holds token {highest}, but the model embeds {size} tokens (0 to {size - 1}): "
                "use the tokenizer that belongs to this model."
            )


def _decoder(model: PreTrainedModel) -> Any:
    """The part of a model that embeds what a decoder reads; the model itself where nothing tells."""
    try:
        return model.get_decoder() or model
    except (AttributeError, NotImplementedError):
        return model
