"""Models in memory with adapters of peft in them: refused by name, and merged where that is asked for."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from optimum_si.errors import UnsupportedModelError


def refuse_adapters(model: Any) -> None:
    """Refuse a model with adapters, whose matrices would be pruned beside the weights that they change.

    Raises:
        UnsupportedModelError: with the line that merges them.
    """
    name = type(model).__name__
    if _is_of_peft(model) and not isinstance(model, PreTrainedModel):
        if not callable(getattr(model, "merge_and_unload", None)):
            raise UnsupportedModelError(
                f"{name} changes what the model reads and not its weights, so that nothing can be merged: prune the "
                "base model itself (model.get_base_model())."
            )
        raise UnsupportedModelError(
            f"{name} holds an adapter beside the weights: merge it first with `model = model.merge_and_unload()`."
        )
    found = _adapted(model) if isinstance(model, PreTrainedModel) else []
    if found or getattr(model, "_hf_peft_config_loaded", False):
        where = f" ({', '.join(found[:2])}{', ...' if len(found) > 2 else ''})" if found else ""
        raise UnsupportedModelError(
            f"{name} has adapters of peft in {len(found)} layers{where}: merge them first with "
            "`from optimum_si import merge_adapters; model = merge_adapters(model)`."
        )


def merge_adapters(model: Any) -> PreTrainedModel:
    """Merge the active adapters of peft into the weights, in place.

    What ``merge_and_unload`` does for a ``PeftModel``, also for a model that adapters were injected into
    (``add_adapter``, ``load_adapter``, ``inject_adapter_in_model``), which has no such method.

    Args:
        model: changed in place; one without adapters stays as it is.

    Returns:
        The ``PreTrainedModel``, without any layer of peft.

    Raises:
        UnsupportedModelError: for adapters that change inputs instead of weights.
    """
    if not isinstance(model, PreTrainedModel):
        if not callable(merge := getattr(model, "merge_and_unload", None)):
            refuse_adapters(model)
            raise UnsupportedModelError(f"{type(model).__name__} is no model with adapters: give one of transformers.")
        merged: PreTrainedModel = merge()
        return merged
    with torch.no_grad():
        # The innermost first: an adapter may wrap another one.
        for name, layer in reversed(list(model.named_modules())):
            if _is_of_peft(layer) and (plain := _merged(layer)) is not None:
                model.set_submodule(name, plain)
    model._hf_peft_config_loaded = False  # what saves the adapters alone
    if hasattr(model, "peft_config"):
        del model.peft_config
    _keep_untied(model)
    return model


def _merged(layer: nn.Module) -> nn.Module | None:
    """The layer that one of peft wraps, with its changes; None for what is a part of another one."""
    own: Any = layer
    if hasattr(layer, "unload_and_optionally_merge_module"):
        plain: nn.Module = own.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        return plain
    if hasattr(layer, "base_layer"):
        own.merge()
        plain = own.get_base_layer()
        return plain
    return None


def _keep_untied(model: PreTrainedModel) -> None:
    """Say in the config that output embeddings that an adapter replaced are others than those of the input."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(first, nn.Embedding) and isinstance(last, nn.Linear) and first.weight is not last.weight:
        for config in (model.config, model.config.get_text_config()):
            if getattr(config, "tie_word_embeddings", False):
                config.tie_word_embeddings = False


def _adapted(model: nn.Module) -> list[str]:
    """Names of the outermost layers of peft in a model."""
    found: list[str] = []
    for name, module in model.named_modules():
        if _is_of_peft(module) and not (found and name.startswith(f"{found[-1]}.")):
            found.append(name)
    return found


def _is_of_peft(module: Any) -> bool:
    """Whether a class of peft made it; the package itself is not asked, which may not be installed."""
    return any(kind.__module__.partition(".")[0] == "peft" for kind in type(module).__mro__)
