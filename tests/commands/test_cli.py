"""optimum-cli si as a user meets it: in a process of its own, by what it prints and how it exits."""

import json
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

from optimum_si.commands.si import SICommand


SUBCOMMANDS = {info.name: info.subcommand_class for info in SICommand.SUBCOMMANDS}
CLI = [sys.executable, "-m", "optimum.commands.optimum_cli"]


def cli(*words: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *words], capture_output=True, text=True, timeout=120, **options)


def test_the_installed_command_knows_si():
    command = Path(sys.executable).with_name("optimum-cli")
    done = subprocess.run([command, "si"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert all(name in done.stdout for name in SUBCOMMANDS)


def test_the_other_commands_of_optimum_still_work():
    assert "env" in cli("--help").stdout


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_teaches_by_example(name):
    done = cli("si", name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    examples = done.stdout.split("examples:\n")[1]
    assert examples.count(f"optimum-cli si {name}") >= 3
    assert "exit codes: 0 done, 1 the run failed, 2 wrong usage" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 119


def examples(text: str) -> list[list[str]]:
    """The words of every ``optimum-cli si VERB ...`` line of a text, from VERB on."""
    lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
    return [shlex.split(line)[2:] for line in lines if re.match(r"optimum-cli si \w", line)]


README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [*(command.EXAMPLES for command in SUBCOMMANDS.values()), README])
def test_examples_are_accepted_by_the_parser(text):
    found = examples(text)
    for verb, *words in found:
        parser = ArgumentParser()
        SUBCOMMANDS[verb].parse_args(parser)
        parser.parse_args(words[: words.index(">")] if ">" in words else words)
    assert len(found) >= 3


def test_help_says_where_the_gain_of_induction_is_kept():
    text = " ".join(cli("si", "induce", "--help").stdout.split())
    assert "is dense and computes the same function" in text
    assert "saved beside the weights as si_scales.safetensors, and `prune` of that checkpoint takes them up" in text
    assert "not from the weights that absorbed them" in text


def heavy_imports(script: str, *words: str) -> str:
    """Which of the packages that take seconds to import a script has imported, in a process of its own."""
    script += (
        "import sys\n"
        "heavy = {'torch', 'transformers', 'numpy', 'huggingface_hub', 'datasets'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=120)
    return done.stderr


@pytest.mark.parametrize("words", [("--help",), *[(name, "--help") for name in SUBCOMMANDS]])
def test_help_imports_neither_torch_nor_transformers(words):
    script = "from optimum.commands.optimum_cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
    assert heavy_imports(script, "si", *words) == "heavy: []\n"


@pytest.mark.parametrize("module", ["optimum_si", "optimum_si.onnx", "optimum_si.demo", "optimum_si.config.recipe"])
def test_importing_the_package_imports_neither_torch_nor_transformers(module):
    assert heavy_imports(f"import {module}\n") == "heavy: []\n"


@pytest.mark.parametrize("words", [
    ("prune", "-m", "model"),
    ("prune", "-m", "m", "-o", "o", "--dataset", "c4", "--sparsity", "0.5", "--pattern", "2:4"),
    ("prune", "-m", "m", "-o", "o", "--dataset", "c4", "--sparsity", "1.5"),
    ("induce", "-m", "m", "-o", "o", "--dataset", "c4", "--no-induction"),
    ("evaluate", "-m", "model"),
    ("demo", "--model", "m"),
    ("demo", "--minutes", "0"),
    ("melt",),
])  # fmt: skip
@pytest.mark.slow
def test_wrong_usage_exits_with_2(words, tmp_path):
    done = cli("si", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())


def test_a_failed_run_exits_with_1_and_one_line(tmp_path):
    done = cli("si", "report", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "si_report.json" in done.stderr


def test_debug_adds_the_traceback(tmp_path):
    done = cli("si", "report", str(tmp_path), "--debug")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback") and done.stderr.splitlines()[-1].startswith("error: ")


def test_a_reader_that_leaves_early_costs_one_line(tmp_path):
    from optimum_si.report import Report

    Report("prune", "wanda", "50%", False).save(tmp_path)
    with subprocess.Popen([*CLI, "si", "report", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        assert done.stdout and done.stderr
        done.stdout.close()
        assert done.stderr.read().decode() == "error: [Errno 32] Broken pipe\n"
    assert done.returncode == 1


@pytest.mark.slow
def test_a_saved_report_is_printed_as_a_table_and_as_json(tmp_path):
    from optimum_si.report import BlockReport, LayerReport, Report

    layer = LayerReport("layers.0.fc1", (4, 8), 0.5, 0.5, None, 0.1)
    report = Report("prune", "wanda", "50%", False, [BlockReport("layers.0", "plain", None, None, 1.0, [layer])])
    report.save(tmp_path)
    assert "layers.0.fc1" in cli("si", "report", str(tmp_path)).stdout
    assert json.loads(cli("si", "report", str(tmp_path), "--json").stdout) == json.loads(json.dumps(report.to_dict()))
