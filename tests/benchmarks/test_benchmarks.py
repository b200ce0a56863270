"""Every benchmark starts, and the one of speed runs at its smallest."""

import subprocess
import sys
from pathlib import Path

import pytest


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LIBRARIES = (
    "ablation.py",
    "corpus.py",
    "real_model_rows.py",
    "real_model_steps.py",
    "spoken.py",
    "subjects.py",
    "whisper_base.py",
    "whole_commands.py",
)

pytestmark = pytest.mark.slow


def run(*command):
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", [file.name for file in BENCHMARKS.glob("*.py") if file.name not in LIBRARIES])
def test_each_benchmark_says_how_it_is_used(name):
    done = run(BENCHMARKS / name, "--help")
    assert done.returncode == 0 and f"python benchmarks/{name}" in done.stdout, done.stderr


def test_speed_prints_both_tables():
    done = run(BENCHMARKS / "speed.py", "--windows", 16, "--length", 16, "--epochs", 1, "--repeats", 1, "--tokens", 2)
    assert done.returncode == 0, done.stderr
    assert "SI / wanda" in done.stdout and "fast update" in done.stdout
