"""The header of a GGUF file: what a model is and how its weights are stored, without reading any of them."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from optimum_si.errors import CheckpointError


_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
#: Names of more dimensions, and strings longer than this, are those of a damaged file.
_MAX_DIMENSIONS, _MAX_STRING = 8, 1 << 26


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of the file.

    Args:
        type: number of its ggml type.
        elements: count of its values.
        offset: bytes from the start of the data.
    """

    type: int
    elements: int
    offset: int


@dataclass(frozen=True)
class GGUFHeader:
    """Metadata and table of tensors.

    Args:
        metadata: by name; of arrays only the length.
        tensors: by name.
        data_start: bytes before the data.
    """

    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]
    data_start: int

    @property
    def architecture(self) -> str:
        """llama.cpp's name of it."""
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def has_tokenizer(self) -> bool:
        """Whether a vocabulary is inside."""
        return bool(self.metadata.get("tokenizer.ggml.tokens"))


def read_header(path: Path) -> GGUFHeader:
    """The header of a file.

    Raises:
        CheckpointError: when it is no GGUF file, or ends inside the header.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise CheckpointError(f"{str(path)!r} is no GGUF file: it does not start with the letters GGUF.")
            return _read(file)
    except (struct.error, UnicodeDecodeError, KeyError, OverflowError, MemoryError) as error:
        raise CheckpointError(
            f"{str(path)!r} is truncated or damaged: its header cannot be read to the end. Download it again."
        ) from error


def _read(file: BinaryIO) -> GGUFHeader:
    _, tensor_count, value_count = _numbers(file, "IQQ")
    metadata = {}
    for _ in range(value_count):
        name = _string(file)
        metadata[name] = _value(file, *_numbers(file, "I"))
    tensors = {}
    for _ in range(tensor_count):
        name = _string(file)
        (dimensions,) = _numbers(file, "I")
        if dimensions > _MAX_DIMENSIONS:
            raise struct.error("dimensions")
        elements = 1
        for size in _numbers(file, f"{dimensions}Q"):
            elements *= size
        tensors[name] = StoredTensor(_numbers(file, "I")[0], elements, _numbers(file, "Q")[0])
    alignment = max(1, metadata.get("general.alignment", 32))
    return GGUFHeader(metadata, tensors, -(-file.tell() // alignment) * alignment)


def _numbers(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack("<" + form, file.read(struct.calcsize("<" + form)))


def _string(file: BinaryIO) -> str:
    (length,) = _numbers(file, "Q")
    if length > _MAX_STRING:
        raise struct.error("string")
    content = file.read(length)
    if len(content) < length:
        raise struct.error("string")
    return content.decode("utf-8")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _numbers(file, _NUMBERS[kind])[0]
    of, length = _numbers(file, "IQ")
    if of in _NUMBERS:
        file.seek(length * struct.calcsize("<" + _NUMBERS[of]), 1)
    else:
        for _ in range(length):
            _value(file, of)
    return length
