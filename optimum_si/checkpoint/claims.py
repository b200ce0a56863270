"""Whether a checkpoint is what its config says: a config is only a claim, and transformers fills gaps with noise."""

import copy
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils import (
    CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from optimum_si.config.small_files import read_small
from optimum_si.errors import CheckpointError
from optimum_si.warnings import warn

from .building import bounded_building
from .locate import find_file


#: Counts in a config by which a model is built in a loop.
_COUNTS = re.compile(
    r"^num_labels$|^(num|n|encoder|decoder)_?(\w+_)?(layers?|blocks?|experts|stages|codebooks)$|^(depths?|layers|attention_types)$"
)
#: Layers may share their weights, and experts lie together in one: so many need no tensor of their own.
_SHARED, TOGETHER = 128, 4096
#: And each class of a classifier is a row of one matrix.
_CLASSES = 1 << 20
#: Bytes of a header that anybody has a use for.
_LARGEST_HEADER = 1 << 28
#: Parameters of a model that may be random whatever is on disk.
_SMALL = 1 << 20


def check_claims(path: str, **kwargs: Any) -> list[Path]:
    """Refuse a config that its weights cannot fill, before transformers builds anything of it.

    Returns:
        The files of weights; none where they are not found under the usual names.
    """
    config = find_file(path, CONFIG_NAME, **kwargs)
    if config is None:
        return []
    values, files = json_object(config), weight_files(path, **kwargs)
    total = sum(file.stat().st_size for file in files)
    _check_counts(values, _count_tensors(files) if files else None, total, path)
    return files


def check_config(config: Path, bytes_of_weights: int) -> None:
    """The same for a config beside weights of another kind, such as an export's.

    Args:
        config: the file.
        bytes_of_weights: of all files of weights.

    Raises:
        CheckpointError: for what is no config, and names a field that the weights cannot fill.
    """
    _check_counts(json_object(config), None, bytes_of_weights, str(config.parent))


def weight_files(path: str, **kwargs: Any) -> list[Path]:
    """The files of a checkpoint's weights, in the order in which transformers looks for them."""
    if kwargs.get("variant"):
        return []
    for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME):
        file = find_file(path, name, **kwargs)
        if file is None:
            continue
        if not name.endswith(".json"):
            return [file]
        shards = json_object(file).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise CheckpointError(f"{str(file)!r} has no weight_map from names to files: it is damaged.")
        found = {shard: find_file(path, _plain(shard, file), **kwargs) for shard in sorted(set(shards.values()))}
        if missing := [shard for shard, place in found.items() if place is None]:
            raise CheckpointError(f"{path!r} lacks {missing[0]}, which {name} names: copy the whole directory.")
        return [place for place in found.values() if place is not None]
    return []


def _plain(name: str, index: Path) -> str:
    """A name that cannot lead out of the checkpoint."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise CheckpointError(f"{str(index)!r} names {name!r}, which lies outside the checkpoint: it is not loaded.")
    return name


def check_size(path: str, model_class: Any, config: Any, weights: list[Path]) -> None:
    """Refuse a model that would be larger than what its files hold: the rest of it would be random.

    Args:
        path: of the checkpoint, for the message.
        model_class: of transformers.
        config: of the model.
        weights: its files; none are not asked.

    Raises:
        CheckpointError: with both sizes.
    """
    if not weights:
        return
    held = sum(file.stat().st_size for file in weights)
    with bounded_building(path, held), torch.device("meta"):
        parameters = model_class(copy.deepcopy(config)).num_parameters()
    if parameters > max(2 * held, _SMALL):  # no dtype has less than a byte for each
        raise CheckpointError(
            f"{path!r} describes a model of {parameters:,} parameters in config.json, and its weights have {held:,} "
            "bytes: the config is damaged, or belongs to other weights."
        )


def check_complete(path: str, loading: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that lacks weights, which transformers fills with random ones, and name those left over."""
    missing = sorted(name for name in loading.get("missing_keys") or () if ".pooler." not in f".{name}")
    wrong = sorted(
        str(entry[0] if isinstance(entry, tuple) else entry) for entry in loading.get("mismatched_keys") or ()
    )
    if missing or wrong:
        what, names = ("lacks", missing) if missing else ("has another shape of", wrong)
        raise CheckpointError(
            f"{path!r} {what} {len(names)} weights of the architecture in its config ({_some(names)}), which would be "
            "random: give a complete checkpoint, or load the model yourself with the class that it was saved by and "
            "give it instead of its path."
        )
    if unexpected := sorted(loading.get("unexpected_keys") or ()):
        warn(f"{path!r} holds {len(unexpected)} weights that its architecture has no place for: {_some(unexpected)}.")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def json_object(file: Path) -> dict[str, Any]:
    """A small JSON object of a checkpoint.

    Raises:
        CheckpointError: for what is none, or larger than any config.
    """
    try:
        values = json.loads(read_small(file))
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: brackets in brackets
        raise CheckpointError(f"{str(file)!r} cannot be read as JSON ({error or type(error).__name__}).") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{str(file)!r} holds no JSON object: give a directory that `save_pretrained` wrote.")
    return values


def _count_tensors(files: list[Path]) -> int | None:
    """Tensors in files of weights, from their headers; None where one of them has no header that says so.

    Raises:
        CheckpointError: for a damaged header.
    """
    if not all(file.suffix == ".safetensors" for file in files):
        return None
    return sum(len(safetensors_header(file)) for file in files)


def _check_counts(config: Mapping[str, Any], tensors: int | None, bytes_of_weights: int, name: str) -> None:
    """Refuse a config that asks for more layers than its weights can fill.

    Args:
        config: as ``config.json`` has it.
        tensors: in the files of weights, see :func:`_count_tensors`.
        bytes_of_weights: size of these files.
        name: of the model, for the message.

    Raises:
        CheckpointError: names the field.
    """
    # Of other formats: no layer has less than a hundred bytes.
    most = bytes_of_weights // 100 if tensors is None else tensors
    for path, value in _counts(config):
        least = _CLASSES if "labels" in path else TOGETHER if "experts" in path else _SHARED
        if value > max(most, least):
            held = "weights" if tensors is None else f"{tensors:,} tensors"
            raise CheckpointError(
                f"{name!r} says {path}={value:,} in config.json, and its {held} cannot fill that many: the config is "
                "damaged, or belongs to other weights."
            )


def _counts(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _counts(value, f"{path}.")
        elif _COUNTS.match(key):
            yield from ((path, number) for number in _numbers(value))


def _numbers(value: Any) -> Iterator[int]:
    """Those in a value, and in lists of lists."""
    if isinstance(value, list):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


def safetensors_header(file: Path) -> dict[str, Any]:
    """The tensors that a safetensors file says it holds."""
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > min(size - 8, _LARGEST_HEADER):
                raise ValueError(f"its header would have {length:,} bytes, and the file has {size:,}")
            found = json.loads(opened.read(length))
        found.pop("__metadata__", None)
        return found
    except (OSError, ValueError, RecursionError, struct.error, AttributeError, TypeError) as error:
        raise CheckpointError(f"{str(file)!r} is no safetensors file, or is damaged ({error}).") from error
