"""Images and sounds of others: no program is started, no pipe waited for, and no size believed."""

import io
import os
import struct
import time
import wave
import zlib

import numpy as np
import pytest
from PIL import Image

from optimum_si import CalibrationError
from optimum_si.calibration.media import read_images, read_sound, resampled


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n(ran) (w) file closefile\nshowpage\n"


def png(width, height, pixels=b""):
    """A file whose header may say any size."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def wav(rate=16000, channels=1, bits=16, samples=b"\0" * 3200, claimed=None):
    """A file whose header may say anything."""
    block = max(channels * bits // 8, 1)
    form = struct.pack("<HHIIHH", 1, channels, rate, (rate * block) % 2**32, block % 2**16, bits)
    length = len(samples) if claimed is None else claimed
    return (
        b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", length) + samples
    )


@pytest.mark.parametrize("by", ["path", "bytes"])
def test_what_another_program_would_have_to_run_is_no_image(tmp_path, monkeypatch, by):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **options: pytest.fail("a program was started"))
    (tmp_path / "image.png").write_bytes(EPS)
    value = tmp_path / "image.png" if by == "path" else {"bytes": EPS, "path": None}
    with pytest.raises(CalibrationError, match="an image cannot be read: cannot identify"):
        read_images(value)


@pytest.mark.parametrize("side", [9000, 13000, 20000, 2**31 - 1])
def test_an_image_that_unpacks_to_any_size_is_refused_unread(tmp_path, side):
    (tmp_path / "image.png").write_bytes(png(side, side, zlib.compress(b"\0" * 100_000)))
    started = time.monotonic()
    with pytest.raises(CalibrationError, match="an image cannot be read: .*pixels"):
        read_images(tmp_path / "image.png")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("format", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_every_usual_format_is_read(tmp_path, format):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "image.png", format)
    (found,) = read_images(tmp_path / "image.png")
    assert found.size == (20, 20) and found.mode == "RGB"


@pytest.mark.parametrize("kind", ["image", "sound"])
@pytest.mark.parametrize("place", ["pipe", "device"])
def test_pipes_and_devices_are_not_read(tmp_path, kind, place):
    file = tmp_path / "file"
    if place == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    value = {"bytes": None, "path": str(file)}
    with pytest.raises(CalibrationError, match="no regular file"):
        read_images(value) if kind == "image" else read_sound(value)


def test_a_rate_that_makes_hours_of_seconds_is_refused():
    with pytest.raises(CalibrationError, match="1,000,000 samples at 1 a second lasts 1,000,000 s"):
        resampled(np.zeros(1_000_000, dtype=np.float32), 1, 16000)


@pytest.mark.parametrize(
    "content",
    [wav(channels=0), wav(bits=0), wav(bits=24), wav()[:30], b"RIFF", wav(channels=65535, bits=0)],
    ids=["no channels", "no bits", "24 bits", "cut off", "a mark", "many channels of nothing"],
)
def test_a_header_that_lies_is_one_line(content):
    with pytest.raises(CalibrationError, match="a sound cannot be decoded here"):
        read_sound({"bytes": content, "path": None})


@pytest.mark.parametrize("claimed", [0xFFFFFFFF, 10**6])
def test_samples_that_are_not_there_are_not_made_up(claimed):
    samples, rate = read_sound({"bytes": wav(claimed=claimed), "path": None})
    assert len(samples) <= 1600 and rate == 16000


def test_a_sound_by_its_path_is_that_by_its_bytes(tmp_path):
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.arange(100, dtype="<i2").tobytes())
    (tmp_path / "sound.wav").write_bytes(made.getvalue())
    by_path, _ = read_sound({"bytes": None, "path": str(tmp_path / "sound.wav")})
    by_bytes, _ = read_sound({"bytes": made.getvalue(), "path": None})
    assert np.array_equal(by_path, by_bytes) and len(by_path) == 100
