"""Modules in the working directory, named like those that the library and its helpers import, are never run."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.models import calibration, prune, save_with_tokenizer, tiny


#: Of the standard library, of ours and of others.
PLANTED = (
    "multiprocessing pickle socket selectors tempfile json site sitecustomize usercustomize "
    "optimum_si torch numpy transformers jinja2 onnx onnxruntime matplotlib PIL pip huggingface_hub"
).split()
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory):
    """A sparse checkpoint beside planted modules, each of which leaves a mark where it is run."""
    folder = tmp_path_factory.mktemp("downloaded")
    save_with_tokenizer(tiny("llama"), folder / "model", "some text to learn from, and some more of it")
    prune(tiny("llama"), "wanda", calibration("llama"), folder / "sparse", pattern="2:4", induction=None)
    (folder / "model" / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "chats.json").write_text(
        "[" + ", ".join('{"messages": [{"role": "user", "content": "some text"}]}' for _ in range(9)) + "]"
    )
    marker = folder.parent / f"{folder.name} ran"
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write({name!r})\nraise SystemExit({name!r})\n")
    return folder, marker


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["benchmark", "sparse", "--prompt", "8", "--new-tokens", "4"],
        ["report", "sparse"],
        ["export", "sparse", "onnx", "--weights", "sparse"],
        ["inspect", "model"],
        ["prune", "-m", "model", "-o", "out", "--dataset", "chats.json", "--sequence-length", "8", "--pattern", "2:4"],
    ],
    ids=lambda words: words[0],
)
def test_modules_of_the_working_directory_are_not_run(downloaded, words):
    folder, marker = downloaded
    command = Path(sys.executable).with_name("optimum-cli")
    done = subprocess.run([command, "si", *words], cwd=folder, capture_output=True, text=True, timeout=300)
    assert not marker.exists(), marker.read_text()
    assert done.returncode == 0, done.stderr
