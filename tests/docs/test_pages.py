"""What the documentation says is true: its commands and its code run, its links lead somewhere, its messages exist."""

import re
import shlex
import sys
from argparse import ArgumentParser
from pathlib import Path

import huggingface_hub.constants
import pytest
from optimum.commands.optimum_cli import main as optimum_cli
from support.gguf_files import Quantization, tiny_llama, write_gguf
from support.models import _OPT, save_with_tokenizer
from transformers import OPTConfig, OPTForCausalLM

from optimum_si.commands.si import SICommand


ROOT = Path(__file__).parents[2]
PAGES = sorted(page for folder in (".", "docs", "benchmarks", "examples") for page in (ROOT / folder).glob("*.md"))
#: What pages that add something call it.
INVENTED = ("ria", "starcoder2", "rescaling")
SUBCOMMANDS = {info.name: info.subcommand_class for info in SICommand.SUBCOMMANDS}
#: Commands whose truth other tests, or a clean machine, establish.
ELSEWHERE = (
    "make ",
    "pip install ",
    "source ",
    "git ",
    "hf ",
    "python benchmarks/",
    "python docs/",
    "python examples/",
    ".venv/bin/",
)


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


def small_opt() -> OPTForCausalLM:
    """Room for what `benchmark` measures, and little else."""
    return OPTForCausalLM(OPTConfig(**{**_OPT, "max_position_embeddings": 100, "num_hidden_layers": 1}))


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, remark, text) of the code blocks of a page."""
    return re.findall(r"^```(\w+)([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(block: str) -> list[list[str]]:
    """The words of each command of a shell block, comments left out."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture
def machine(local_hub, tmp_path, monkeypatch):
    """A folder with a text and a GGUF file, and a Hub that has the models of the pages, very small."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    save_with_tokenizer(small_opt(), tmp_path / "model", Path(__file__).read_text())
    files = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    local_hub.repositories["facebook/opt-125m"] = files
    folder = tmp_path / "work"
    (folder / "texts").mkdir(parents=True)
    for name in ("wikitext2.txt", "texts/notes.txt"):
        (folder / name).write_text(Path(__file__).read_text())
    write_gguf(folder / "my-model.Q8_0.gguf", tiny_llama(), Quantization.Q8_0)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.usefixtures("trace_cache")
@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_command_and_every_code_block_of_a_page_runs(machine, page, monkeypatch):
    names: dict = {}
    for language, remark, text in blocks(page):
        text = text.replace("wikitext2", "wikitext2.txt")
        if language == "bash":
            for words in commands(text):
                run(words, monkeypatch, parse_only=bool(remark.strip()))
        elif language == "python":
            exec(text, names)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, parse_only: bool) -> None:
    line = " ".join(words)
    if line.startswith(ELSEWHERE):
        check_elsewhere(words)
        return
    assert words[:2] == ["optimum-cli", "si"], f"{line!r} is not run by this test: see ELSEWHERE"
    if parse_only:
        parser = ArgumentParser()
        SUBCOMMANDS[words[2]].parse_args(parser)
        parser.parse_args(words[3:])
    else:
        invoke(words)


def invoke(words: list[str]) -> None:
    """A command in this process, which has imported what takes long already."""
    before = sys.argv
    sys.argv = words
    try:
        optimum_cli()
    except SystemExit as stop:
        assert not stop.code, f"{shlex.join(words)} ended with {stop.code}"
    finally:
        sys.argv = before


def check_elsewhere(words: list[str]) -> None:
    """What is not run is there, at least."""
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    for extras in re.findall(r"\[([\w,-]+)\]", " ".join(words)):
        known = (ROOT / "pyproject.toml").read_text()
        assert all(re.search(rf"^{extra} = ", known, re.M) for extra in extras.split(","))
    for word in words:
        if word.endswith(".py"):
            assert (ROOT / word).is_file(), word


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, target


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_paths_of_the_code_exist(page):
    """Whole ones, and those below ``optimum_si/``."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    packages = "|".join(folder.name for folder in (ROOT / "optimum_si").iterdir() if folder.is_dir())
    for name in re.findall(rf"`((?:examples|benchmarks|docs|tests|optimum_si|{packages})/[\w/.-]*)`", text):
        found = any((root / name).exists() for root in (ROOT, ROOT / "optimum_si"))
        assert found or any(word in name for word in INVENTED), name


def test_the_messages_of_the_troubleshooting_page_exist():
    rows = re.findall(r"^\| `(.+?)` \| ", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    source = "".join(file.read_text() for file in (ROOT / "optimum_si").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    assert len(rows) > 30
    assert [row for row in rows if row not in source] == []


def test_every_error_class_is_in_the_reference():
    reference = (ROOT / "docs" / "reference.md").read_text()
    errors = re.findall(r"class (\w+)\(SIError", (ROOT / "optimum_si" / "errors.py").read_text())
    assert len(errors) >= 8 and all(f"`{name}`" in reference for name in errors)
