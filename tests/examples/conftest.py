"""What the examples are run on: a tiny model with a tokenizer, a text, and a process of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.models import save_with_tokenizer, tiny


EXAMPLES = Path(__file__).parents[2] / "examples"
TEXT = Path(__file__).with_name("test_prune.py").read_text(encoding="utf-8") * 12


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny OPT with a tokenizer of its own."""
    directory = tmp_path_factory.mktemp("examples") / "tiny-opt"
    save_with_tokenizer(tiny("opt"), directory, TEXT)
    return directory


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """A text that fills some windows."""
    file = tmp_path / "notes.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """run("prune.py", MODEL, ...): the script in a process of its own, with SI_QUICK=1."""

    def run(script: str, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(EXAMPLES / script), *map(str, words)]
        environment = {**os.environ, "SI_QUICK": "1", "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(tmp_path)}
        finished = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert finished.returncode == code, finished.stderr
        return finished

    return run
