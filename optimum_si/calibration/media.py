"""Images and sounds: which values are some, and what a processor reads of them."""

import io
import sys
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from optimum_si.config.small_files import read_small
from optimum_si.errors import CalibrationError


IMAGES, SOUNDS = "images", "sounds"
#: Files that are images.
IMAGE_FILES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
#: Formats that are read, whatever the name of a file says: others start programs, as EPS does.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
#: Bytes of a file, pixels of an image and samples of a sound, before a processor makes them smaller.
_LARGEST_FILE, _PIXELS, _SAMPLES = 1 << 28, 1 << 26, 1 << 26
#: How files of sound begin.
_SOUND_MARKS = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3")


def media_kind(value: Any) -> str | None:
    """:data:`IMAGES` or :data:`SOUNDS` for one of these, or a list of them; None for anything else.

    Known are PIL images, paths of image files, and what a column of ``datasets`` gives: {"bytes", "path"}, {"array",
    "sampling_rate"}, and decoders of torchcodec.
    """
    if isinstance(value, list) and value:
        return media_kind(value[0])
    if isinstance(value, Path):
        return IMAGES if value.suffix.lower() in IMAGE_FILES else None
    if isinstance(value, Mapping):
        if {"array", "sampling_rate"} <= value.keys():
            return SOUNDS
        if value.keys() == {"bytes", "path"}:
            return _kind_of_file(value["bytes"], value["path"])
        return None
    if hasattr(value, "get_all_samples"):
        return SOUNDS
    pil = sys.modules.get("PIL.Image")
    return IMAGES if pil is not None and isinstance(value, pil.Image) else None


def read_images(value: Any) -> list[Any]:
    """PIL images of three channels.

    Raises:
        CalibrationError: for a file that is no image, or without Pillow.
    """
    return [_image(entry) for entry in (value if isinstance(value, list) else [value])]


def read_sound(value: Any) -> tuple[np.ndarray, int]:
    """Samples of one channel, fp32 [T], and how many make a second.

    Raises:
        CalibrationError: for what is no sound, or cannot be decoded here.
    """
    if isinstance(value, Mapping) and "array" not in value:
        return _decoded(value)
    array, rate = value["array"], int(value["sampling_rate"])
    samples = np.asarray(array.cpu() if isinstance(array, Tensor) else array, dtype=np.float32)
    if samples.ndim == 2:  # the mean of the channels, whichever axis they are
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    if samples.ndim != 1 or not samples.size or rate < 1:
        raise CalibrationError(
            f"a sound has shape {list(samples.shape)} at {rate} samples a second: give samples [T], as numbers."
        )
    return samples, rate


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Samples at another rate: the same spectrum up to the lower of the two limits.

    Raises:
        CalibrationError: for more than an hour, which a wrong rate makes of seconds.
    """
    length = max(round(len(samples) * wanted / rate), 1)
    if length > _SAMPLES:
        raise CalibrationError(
            f"a sound of {len(samples):,} samples at {rate} a second lasts {len(samples) / rate:,.0f} s: cut it into "
            "pieces of seconds, or correct its sampling rate."
        )
    if rate == wanted or length == len(samples):
        return samples
    spectrum = np.fft.rfft(samples)[: length // 2 + 1]
    return (np.fft.irfft(spectrum, length) * (length / len(samples))).astype(np.float32)


def _kind_of_file(content: Any, path: Any) -> str | None:
    if isinstance(content, bytes):
        return SOUNDS if content.startswith(_SOUND_MARKS) and content[8:12] != b"WEBP" else IMAGES
    if isinstance(path, str):
        return IMAGES if path.lower().endswith(IMAGE_FILES) else SOUNDS
    return None


def _content(value: Mapping[str, Any]) -> bytes:
    """The bytes of a file, as they are or where they lie."""
    return value["bytes"] or read_small(str(value["path"]), _LARGEST_FILE)


def _image(value: Any) -> Any:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise CalibrationError("reading images needs Pillow: pip install pillow.") from error
    if value is None:
        raise CalibrationError("there is no image in it.")
    try:
        if isinstance(value, Image.Image):
            return value.convert("RGB")
        content = _content(value) if isinstance(value, Mapping) else read_small(value, _LARGEST_FILE)
        Image.init()
        opened = Image.open(io.BytesIO(content), formats=[kind for kind in _FORMATS if kind in Image.OPEN])
        if opened.width * opened.height > _PIXELS:
            raise ValueError(f"it has {opened.width} x {opened.height} pixels, and at most {_PIXELS:,} are read")
        return opened.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise CalibrationError(f"an image cannot be read: {error}.") from error


def _decoded(value: Mapping[str, Any]) -> tuple[np.ndarray, int]:
    """The samples of an uncompressed WAV file."""
    try:
        with wave.open(io.BytesIO(_content(value))) as opened:
            rate, channels, width = opened.getframerate(), opened.getnchannels(), opened.getsampwidth()
            raw = opened.readframes(opened.getnframes())
        if width not in (2, 4):
            raise wave.Error(f"{8 * width} bits a sample")
        samples = np.frombuffer(raw, dtype=f"<i{width}").astype(np.float32) / 2 ** (8 * width - 1)
        return samples.reshape(-1, channels).mean(axis=1), rate
    except (wave.Error, EOFError, OSError, ValueError) as error:
        raise CalibrationError(
            f"a sound cannot be decoded here ({error}): pip install torchcodec and let datasets decode the column "
            '(cast_column("audio", datasets.Audio())), or give {"array", "sampling_rate"}.'
        ) from error
