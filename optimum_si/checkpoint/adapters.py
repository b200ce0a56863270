"""Folders with an adapter of peft alone: found, doubted like any config, and merged into the model they belong to."""

import math
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME, CONFIG_NAME

from optimum_si.errors import CheckpointError, UnsupportedModelError

from .claims import json_object, safetensors_header, weight_files
from .locate import find_file


#: Names of modules, which peft reads as a regular expression where they are one string.
_NAMES = ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern")
#: Fields whose entries or keys peft reads as regular expressions.
_PATTERNS = ("layers_pattern", "rank_pattern", "alpha_pattern")
#: What repeats in a regular expression: without it none takes long.
_REPEATS = "*+{"
#: Fields that say how large the adapter's matrices are.
_RANKS = ("r", "init_r", "target_r", "rank_pattern")
#: Fields that import modules by name, or make the model larger than its weights, and that nothing can merge.
_REFUSED = ("megatron_config", "layer_replication")
#: Copies that peft saves of embeddings with new tokens, beside those that it reads.
_OF_WRAPPERS = re.compile(r"\.(modules_to_save|original_module)\.")
#: The least bytes for each unit of a rank: a row and a column of the smallest matrices that anybody adapts.
_BYTES_OF_RANK = 16


@dataclass(frozen=True)
class Adapter:
    """An adapter in a folder.

    Args:
        folder: where its files are, on this machine.
        base: Hub id or path of the model that it belongs to.
        revision: of that model; None is the newest.
        embedded: whether the model itself lies in the same folder.
    """

    folder: Path
    base: str
    revision: str | None
    embedded: bool

    def place_of_base(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments that load the base model, from those that load the adapter."""
        options = {name: value for name, value in kwargs.items() if name not in ("revision", "subfolder")}
        return {**options, "revision": self.revision} if self.revision is not None else options

    def require_peft(self) -> None:
        """Raise :class:`CheckpointError` where the package is missing: transformers would leave the adapter out."""
        if find_spec("peft") is None:
            raise CheckpointError(
                f"{str(self.folder)!r} holds an adapter, and adapters need peft: pip install peft, or "
                'pip install "optimum-si[peft]".'
            )

    @contextmanager
    def without_it(self) -> Iterator[str]:
        """A folder of links to all but the adapter, which transformers would load instead of checking the model."""
        with tempfile.TemporaryDirectory() as links:
            for file in self.folder.resolve().iterdir():
                if file.name not in (ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME):
                    Path(links, file.name).symlink_to(file)
            yield links

    def merge_into(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model with the adapter's changes in its weights; of the adapter nothing stays.

        Raises:
            UnsupportedModelError: for adapters that change inputs instead of weights.
            CheckpointError: for an adapter of another model.
        """
        from peft import PeftConfig, PeftModel

        folder = str(self.folder)
        config = PeftConfig.from_pretrained(folder)
        if config.is_prompt_learning or config.is_adaption_prompt:
            kind = getattr(config.peft_type, "value", config.peft_type)
            raise UnsupportedModelError(
                f"{folder!r} is an adapter of the kind {kind}, which changes what a model reads and not its weights, "
                f"so that nothing can be merged: prune the base model {self.base!r} itself."
            )
        _make_room(model, self.folder)
        adapted = PeftModel.from_pretrained(model, folder, config=config)
        # What belongs nowhere is left out without a word, and what is missing stays as it was made.
        found = adapted.load_adapter(folder, "default")
        wrong = [*found.missing_keys, *(name for name in found.unexpected_keys if not _OF_WRAPPERS.search(name))]
        if wrong:
            raise CheckpointError(
                f"the adapter {folder!r} does not fit {type(model).__name__} of {self.base!r} ({len(wrong)} weights, "
                f"such as {min(wrong)}): load both with the class that the adapter was trained with, merge them "
                "(model = model.merge_and_unload()) and give the model."
            )
        merged: PreTrainedModel = adapted.merge_and_unload()
        return merged


def find_adapter(source: str | Path, **kwargs: Any) -> Adapter | None:
    """The adapter at a place; None where there is none.

    Args:
        source: directory or Hub id.
        kwargs: where on the Hub, see :data:`~optimum_si.checkpoint.locate.PLACE`.

    Raises:
        CheckpointError: for an adapter that is damaged, names no base model, or would take no end of time or memory.
    """
    file = find_file(source, ADAPTER_CONFIG_NAME, **kwargs) if str(source) else None
    if file is None:
        return None
    values = json_object(file)
    _check_patterns(file, values)
    # On the Hub, weights beside an adapter are not looked at by transformers either.
    local = Path(source).is_dir() and find_file(source, CONFIG_NAME, **kwargs) is not None
    if local and weight_files(str(source), **kwargs):
        return Adapter(file.parent, str(source), kwargs.get("revision"), embedded=True)
    weights = find_file(source, ADAPTER_SAFE_WEIGHTS_NAME, **kwargs) or find_file(
        source, ADAPTER_WEIGHTS_NAME, **kwargs
    )
    if weights is None:
        raise CheckpointError(f"{str(source)!r} has {ADAPTER_CONFIG_NAME} and no {ADAPTER_SAFE_WEIGHTS_NAME}.")
    _check_size(file, values, weights)
    base, revision = values.get("base_model_name_or_path"), values.get("revision")
    if not isinstance(base, str) or not base:
        raise CheckpointError(
            f"{str(file)!r} names no base_model_name_or_path: write there which model the adapter belongs to, or give "
            "the merged model."
        )
    return Adapter(file.parent, base, revision if isinstance(revision, str) else None, embedded=False)


def _check_patterns(file: Path, values: dict[str, Any]) -> None:
    """Refuse what is never done matching, imports by name, or grows."""
    for name in _NAMES:
        if isinstance(values.get(name), str) and not values[name].replace("_", "").replace("-", "").isalnum():
            raise CheckpointError(
                f"{str(file)!r} has {name}={values[name][:60]!r}, a regular expression: list names of modules, or "
                "merge the adapter (model.merge_and_unload()) and give the merged model."
            )
    for name in _PATTERNS:
        given = values.get(name)
        for pattern in given if isinstance(given, list | dict) else ():
            if any(character in str(pattern) for character in _REPEATS):
                raise CheckpointError(
                    f"{str(file)!r} has {str(pattern)[:60]!r} in {name}, a regular expression that repeats: merge the "
                    "adapter yourself (model.merge_and_unload()) and give the merged model."
                )
    for name in _REFUSED:
        if values.get(name):
            raise CheckpointError(
                f"{str(file)!r} has {name}, with which adapters are not merged here: give the merged model."
            )


def _check_size(file: Path, values: dict[str, Any], weights: Path) -> None:
    """Refuse a config whose matrices the adapter's weights cannot fill, before they are made."""
    most = weights.stat().st_size // _BYTES_OF_RANK
    if weights.suffix == ".safetensors":
        shapes = [tensor.get("shape") or [0] for tensor in safetensors_header(weights).values()]
        most = max((max(shape) for shape in shapes), default=0)
    for name, rank in _ranks(values):
        # LoKr takes a rank that is too large for whole matrices.
        if rank > most and values.get("peft_type") != "LOKR":
            raise CheckpointError(
                f"{str(file)!r} says {name}={rank:,}, and {weights.name} cannot fill that many: the config is "
                "damaged, or belongs to another adapter."
            )


def _ranks(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name in _RANKS:
        value = values.get(name)
        for number in value.values() if isinstance(value, dict) else [value]:
            if isinstance(number, int | float) and math.isfinite(number):
                yield name, number


def _make_room(model: PreTrainedModel, folder: Path) -> None:
    """Give a model as many tokens as an adapter has embeddings for, where it was trained with new ones."""
    file = folder / ADAPTER_SAFE_WEIGHTS_NAME
    embeddings = model.get_input_embeddings()
    name = next((name for name, module in model.named_modules() if module is embeddings), None)
    if name is None or not file.is_file():
        return
    tensor = safetensors_header(file).get(f"base_model.model.{name}.weight") or {}
    shape = tensor.get("shape") or [0]
    if shape[0] > getattr(embeddings, "num_embeddings", math.inf):
        model.resize_token_embeddings(shape[0], mean_resizing=False)
