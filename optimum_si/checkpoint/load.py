"""Loading a checkpoint with the class that its own config names, and refusing what must not be pruned."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import GENERATION_CONFIG_NAME

from optimum_si.config.small_files import read_small
from optimum_si.errors import CheckpointError, ConfigurationError, SIError, UnsupportedModelError, reason_of
from optimum_si.warnings import warn

from .adapters import Adapter, find_adapter
from .claims import check_claims, check_complete, check_size
from .gguf import find_gguf, load_gguf_model, load_gguf_tokenizer, release_gguf
from .injected import refuse_adapters
from .locate import PLACE, find_file, place_of
from .saved_scales import SCALES_NAME, SavedScales
from .side_files import check_sizes


#: What means nothing for a single file.
_OF_REPOSITORIES = (*PLACE, "trust_remote_code")


def load_pretrained(
    model_or_path: PreTrainedModel | str | Path, tokenizer: PreTrainedTokenizerBase | str | Path | None, **kwargs: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, str]:
    """A model and its tokenizer, from a loaded model or from a place, and where they came from.

    Args:
        model_or_path: a loaded model, a directory, a GGUF file or a Hub id.
        tokenizer: a tokenizer, or where to load one; None tries the model's own place.
        kwargs: for ``from_pretrained`` of the model; ``gguf_file`` names a GGUF file in the directory or repository.

    Returns:
        The model, the tokenizer (None where there is none), and a Hub id or absolute path ("" for neither).
    """
    if isinstance(model_or_path, (str, Path)):
        model, source = load_model(model_or_path, **kwargs), str(model_or_path)
    else:
        if kwargs:
            raise ConfigurationError(f"{sorted(kwargs)} only apply to a path, but a loaded model was given.")
        model, source = model_or_path, getattr(model_or_path, "name_or_path", "")
    if tokenizer is None or isinstance(tokenizer, (str, Path)):
        own = tokenizer is None or str(tokenizer) == source
        # These are of the model's place, and mean nothing elsewhere.
        elsewhere = ("revision", "subfolder", "gguf_file")
        place = kwargs if own else {name: kwargs[name] for name in kwargs if name not in elsewhere}
        tokenizer = load_tokenizer(tokenizer or source, required=tokenizer is not None, **place)
    # A folder may be gone, or the working directory another one, when the card is written.
    return model, tokenizer, _lasting(source)


def load_model(path: str | Path, **kwargs: Any) -> PreTrainedModel:
    """A model with the class in its config's ``architectures``, so that heads are kept.

    Args:
        path: directory, GGUF file or Hub id; where an adapter is, it is merged into the model that it belongs to.
        kwargs: for ``from_pretrained``; ``dtype`` defaults to that of the checkpoint. ``gguf_file`` names a GGUF file
            in the directory or repository.

    Raises:
        UnsupportedModelError: for quantized weights, and for repositories that need their own code.
        CheckpointError: when nothing can be read there.
    """
    if not isinstance(path, (str, Path)) or not str(path):
        refuse_adapters(path)
        raise CheckpointError(f"{path!r} is no model: give a directory that `save_pretrained` wrote, or a Hub id.")
    return _load(str(path), kwargs, takes_adapters=True)


def _load(path: str, kwargs: dict[str, Any], takes_adapters: bool) -> PreTrainedModel:
    """:func:`load_model`; the base model of an adapter is none itself, for that would have no end."""
    trust = kwargs.get("trust_remote_code", False)
    kwargs.setdefault("dtype", "auto")
    try:
        if (gguf := find_gguf(path, kwargs.pop("gguf_file", None), **place_of(kwargs))) is not None:
            return load_gguf_model(gguf, **{name: kwargs[name] for name in kwargs if name not in _OF_REPOSITORIES})
        if (adapter := find_adapter(path, **kwargs)) is not None:
            adapter.require_peft()
            if not takes_adapters:
                raise UnsupportedModelError("it is an adapter itself, or holds one: merge that one first.")
            return _load_adapted(adapter, path, kwargs)
        weights = check_claims(path, **kwargs)
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust, **place_of(kwargs))
        refuse_config(path, config, trust)
        if (file := find_file(path, GENERATION_CONFIG_NAME, **kwargs)) is not None:
            read_generation_config(file)
        model_class = class_of(config)
        if hasattr(model_class, "_model_mapping"):
            kwargs["trust_remote_code"] = trust
        else:
            kwargs.pop("trust_remote_code", None)
            check_size(path, model_class, config, weights)
        # Shapes that differ are ours to name.
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, loading = model_class.from_pretrained(path, **kwargs)
        check_complete(path, loading)
        return model
    except SIError:
        raise
    except Exception as error:
        # OSError for missing files, SafetensorError for damaged ones, ValueError for code, and more.
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            raise UnsupportedModelError(_needs_code(path)) from error
        reason = reason_of(error)
        raise CheckpointError(
            f"{path!r} cannot be loaded as a transformers model: {reason} Give a directory that `save_pretrained` "
            "wrote, a GGUF file or a Hub id; with HF_HUB_OFFLINE=1 only what is in the cache is found."
        ) from error


def _load_adapted(adapter: Adapter, path: str, kwargs: dict[str, Any]) -> PreTrainedModel:
    """The base model of an adapter, with the adapter merged into it."""
    options = adapter.place_of_base(kwargs)
    if adapter.embedded:
        with adapter.without_it() as folder:
            try:
                base = _load(folder, options, takes_adapters=False)
            except SIError as error:
                raise type(error)(str(error).replace(folder, path)) from error
        base.config._name_or_path = base.name_or_path = path
        return adapter.merge_into(base)
    try:
        base = _load(adapter.base, options, takes_adapters=False)
    except SIError as error:
        raise type(error)(
            f"{path!r} is an adapter of {adapter.base!r} (base_model_name_or_path in its adapter_config.json), which "
            f"cannot be taken: {error}"
        ) from error
    return adapter.merge_into(base)


def load_tokenizer(source: str | Path, required: bool, **kwargs: Any) -> PreTrainedTokenizerBase | None:
    """The tokenizer at a place; None where there is none and it is not required.

    A tokenizer without any file of its own is none: transformers makes an empty one from the model's config alone.
    An adapter without one has that of its base model.

    Raises:
        CheckpointError: when it is required and cannot be loaded.
    """
    if not str(source):
        return None
    try:
        if (gguf := find_gguf(source, kwargs.get("gguf_file"), **place_of(kwargs))) is not None:
            return load_gguf_tokenizer(gguf, required)
        adapter = find_adapter(source, **kwargs)
        own = ("tokenizer_config.json", "tokenizer.json")
        if adapter is not None and not adapter.embedded and not any(find_file(source, n, **kwargs) for n in own):
            return load_tokenizer(adapter.base, required, **adapter.place_of_base(kwargs))
        check_sizes(source, kwargs.get("subfolder"))
        trust = kwargs.get("trust_remote_code", False)
        tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=trust, **place_of(kwargs))
        names = {"tokenizer_config.json", "tokenizer.json", *tokenizer.vocab_files_names.values()}
        if not any(find_file(source, name, **kwargs) for name in names):
            raise OSError(f"it has none of {', '.join(sorted(names))}.")
        return tokenizer
    except Exception as error:
        reason = reason_of(error)
        if not required:
            if Path(source, "tokenizer_config.json").is_file():
                warn(f"the tokenizer in {str(source)!r} cannot be loaded, and is left out: {reason}")
            return None
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"no tokenizer can be loaded from {str(source)!r}: {reason}") from error


def read_generation_config(file: Path) -> GenerationConfig:
    """``generation_config.json``, read strictly: transformers takes its defaults where the file is damaged.

    Raises:
        CheckpointError: when it is no JSON object, or holds values that contradict each other.
    """
    try:
        values = json.loads(read_small(file))
        return GenerationConfig.from_dict(values)
    except Exception as error:  # ValueError, TypeError and more, whatever is damaged
        raise CheckpointError(
            f"{str(file)!r} cannot be read ({type(error).__name__}: {error}): repair it, or delete it to generate "
            "with the defaults."
        ) from error


def move(model: PreTrainedModel, device: str | torch.device) -> None:
    """Move a model to a device.

    Raises:
        ConfigurationError: when there is no such device here.
    """
    try:
        model.to(torch.device(device))  # type: ignore[arg-type]
    except (RuntimeError, AssertionError) as error:  # torch's words for unknown and for missing devices
        raise ConfigurationError(
            f"device={str(device)!r} cannot be used ({str(error).splitlines()[0]}): give 'cpu', or 'cuda' where torch "
            f"was built for it and sees a GPU (torch.cuda.is_available() is {torch.cuda.is_available()} here)."
        ) from error


def maximum_length(model: PreTrainedModel) -> int | None:
    """Tokens that the model's positions allow, or None where they are unbounded."""
    config: Any = model.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"):
        if isinstance(length := getattr(config, name, None), int) and length > 0:
            # RoBERTa and its relatives start to count positions after the padding index.
            offset = config.pad_token_id + 1 if _counts_from_padding(model) else 0
            return length - offset
    return None


def saved_scales(model: PreTrainedModel, source: str, **kwargs: Any) -> SavedScales | None:
    """What `induce` left beside the weights that ``model`` was loaded from; None where it did not write them."""
    record = getattr(model.config, "sparsity_config", None)
    if not source or not isinstance(record, dict) or record.get("pruned", True):
        return None
    path = find_file(source, SCALES_NAME, **kwargs)
    return None if path is None else SavedScales.load(path)


def _lasting(source: str) -> str:
    path = Path(source)
    # The name of a file is kept: in a cache it may be a link to one without a name.
    return str(path.absolute()) if path.is_file() else str(path.resolve()) if path.is_dir() else source


def refuse_config(path: str, config: Any, trust: bool) -> None:
    _refuse_quantized(path, config)
    if (
        getattr(config, "auto_map", None)
        and not trust
        and not hasattr(transformers, (config.architectures or [""])[0])
    ):
        raise UnsupportedModelError(_needs_code(path))


def accept(model: PreTrainedModel) -> None:
    """Make an ordinary model of one from a GGUF file, whose weights are dense, and refuse other quantized ones.

    Raises:
        UnsupportedModelError: for quantized weights, for adapters, and for what is no model of transformers.
    """
    refuse_adapters(model)
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModelError(
            f"SIPruner takes a transformers PreTrainedModel, not {type(model).__name__}: load one, or give its "
            "path to SIPruner.from_pretrained."
        )
    release_gguf(model)
    _refuse_quantized(getattr(model, "name_or_path", "") or type(model).__name__, model.config)


def _refuse_quantized(name: str, config: Any) -> None:
    recipe = getattr(config, "quantization_config", None)
    if recipe:
        values = recipe if isinstance(recipe, dict) else recipe.to_dict()
        raise UnsupportedModelError(
            f"{name!r} holds quantized weights (quant_method={values.get('quant_method', 'unknown')!r}), which cannot "
            "be pruned: prune the original checkpoint and quantize the result."
        )


def _needs_code(path: str) -> str:
    return (
        f"{path!r} needs its own modeling code: read that code, then load it with trust_remote_code=True "
        "(--trust-remote-code on the command line)."
    )


def class_of(config: Any) -> Any:
    """The class of transformers that a config names, so that heads are kept, or the auto class that takes it."""
    name = (config.architectures or [""])[0]
    found = getattr(transformers, name, None)
    return _auto_class(config, name) if found is None else found


def _auto_class(config: Any, name: str) -> Any:
    """An Auto class for an architecture that transformers does not export by name."""
    for auto in getattr(config, "auto_map", None) or {}:
        if auto.startswith("AutoModel"):
            return getattr(transformers, auto)
    return AutoModel


def _counts_from_padding(model: PreTrainedModel) -> bool:
    return any(
        getattr(module, "padding_idx", None) is not None and name.endswith("position_embeddings")
        for name, module in model.named_modules()
    )
