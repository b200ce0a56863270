"""``examples/compare_llm_compressor.py``: what it says without llm-compressor, and what it hands over to it."""

import json
import stat
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from optimum_si.calibration import prepare_examples
from optimum_si.config.groups import CalibrationConfig


SCRIPT = Path(__file__).parents[2] / "examples/compare_llm_compressor.py"


@pytest.fixture
def stand_in(tmp_path):
    """An interpreter that finds every package, and whose pruning leaves the model as it is; it keeps the windows."""
    file = tmp_path / "python"
    file.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\ncp -r "$2" "$6" && cp "$3" {tmp_path}/windows.safetensors\n')
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


@pytest.mark.parametrize("python", ["no-such-python", "false"])
def test_without_llm_compressor_it_says_how_to_set_it_up(run, checkpoint, python):
    finished = run("compare_llm_compressor.py", checkpoint, "--llm-compressor-python", python, code=1)
    message = finished.stderr.splitlines()[-1]
    assert message.startswith(f"llm-compressor cannot be imported by {python}")
    assert "python -m venv llmc && llmc/bin/pip install llmcompressor" in message


def test_perplexities_of_both_stand_side_by_side(run, checkpoint, text_file, stand_in):
    words = (checkpoint, "--calibration", text_file, "--evaluation", text_file, "--llm-compressor-python", stand_in)
    words = (*words, "--methods", "wanda", "--targets", "2:4")
    (row,) = json.loads(run("compare_llm_compressor.py", *words, "--json").stdout)
    assert row["llm_compressor"] == row["dense"] and row["plain"] != row["dense"]
    assert (stand_in.parent / "windows.safetensors").is_file()
    lines = run("compare_llm_compressor.py", *words).stdout.splitlines()
    assert lines[0].split()[:4] == ["method", "target", "dense", "llm-compressor"]
    assert lines[2].split()[:2] == ["wanda", "2:4"]


def test_the_samples_are_those_that_the_library_draws(checkpoint, text_file):
    spec = spec_from_file_location("compare_llm_compressor", SCRIPT)
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    windows = script.calibration_windows(str(text_file), tokenizer, 5, 12, 40)
    config = CalibrationConfig(num_samples=5, sequence_length=12)
    examples = prepare_examples(str(text_file), config, tokenizer, 40)
    assert windows.shape == (5, 12)
    assert torch.equal(windows, torch.cat([example["input_ids"] for example in examples]))
