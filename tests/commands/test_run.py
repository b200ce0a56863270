"""What each command asks of the public API, with a stub in place of the pruner; and how failures end."""

import json
import shlex
import sys
import warnings
from argparse import ArgumentParser
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from support.example_reports import example

from optimum_si import ConfigurationError, NumericalError, SIConfig
from optimum_si.commands.base import FAILED, INTERRUPTED, WRONG_USAGE
from optimum_si.commands.si import SICommand


SUBCOMMANDS = {info.name: info for info in SICommand.SUBCOMMANDS}
TABLE, SUMMARY = "layer  zeros", "sparsity: 50%"


class Recorder:
    """Stands in for SIPruner: notes what it is called with, fails where it is told to."""

    def __init__(self) -> None:
        self.calls: dict[str, dict] = {}
        self.failure: BaseException | None = None
        self.warning: str | None = None
        self.report = SimpleNamespace(table=lambda: TABLE, summary=lambda: SUMMARY)
        self.tokenizer = None
        config = SimpleNamespace(is_encoder_decoder=False)
        self.model = SimpleNamespace(can_generate=lambda: True, config=config)

    def from_pretrained(self, model, **options):
        self.calls["load"] = {"model": model, **options}
        return self

    def prune(self, config, **options):
        self.calls["prune"] = {"config": config, **options}
        if self.warning:
            warnings.warn(self.warning, stacklevel=2)
        if self.failure:
            raise self.failure

    def induce(self, config, **options):
        self.calls["induce"] = {"config": config, **options}

    def save_pretrained(self, output, **options):
        self.calls["save"] = {"output": output, **options}


@pytest.fixture
def pruner(monkeypatch) -> Recorder:
    recorder = Recorder()
    module = ModuleType("optimum_si.pruner")
    module.SIPruner = recorder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "optimum_si.pruner", module)
    return recorder


def run(name: str, *words: str) -> int:
    """Exit code of a subcommand run in this process."""
    command = SUBCOMMANDS[name].subcommand_class
    subparsers = ArgumentParser("optimum-cli si").add_subparsers()
    args = command(subparsers, command=SUBCOMMANDS[name]).parser.parse_args(words)
    try:
        args.func(args).run()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


PRUNE = ("prune", "-m", "some/model", "--dataset", "wikitext2", "-o", "out dir")


def test_prune_loads_and_prunes(pruner):
    assert run(*PRUNE, "--pattern", "2:4", "--dtype", "bfloat16", "--overwrite", "--trust-remote-code") == 0
    output = Path("out dir")
    assert pruner.calls == {
        "load": {"model": "some/model", "trust_remote_code": True, "dtype": "bfloat16"},
        "prune": {
            "config": SIConfig(pattern="2:4", calibration={"dataset": "wikitext2"}),
            "dataset": "wikitext2",
            "save_dir": output,
            "overwrite": True,
        },
    }


def test_prune_ends_with_the_summary_and_the_next_commands(pruner, capsys):
    run(*PRUNE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == SUMMARY
    assert "  optimum-cli si report 'out dir'" in lines
    assert lines[-1] == "  optimum-cli si evaluate -m some/model 'out dir' --dataset wikitext2"


def test_verbose_prints_every_layer_before_the_summary(pruner, capsys):
    run(*PRUNE, "--verbose")
    assert capsys.readouterr().out.splitlines()[:3] == [TABLE, "", SUMMARY]


def test_verbose_prints_every_layer_that_induce_scaled(pruner, capsys):
    run("induce", *PRUNE[1:], "--verbose")
    assert capsys.readouterr().out.splitlines()[:2] == [TABLE, ""]


def test_a_run_of_thirty_blocks_ends_in_forty_lines(pruner, capsys):
    for report in (example(30), example(30, experts=24)):
        pruner.report = report
        run(*PRUNE)
        out = capsys.readouterr().out.splitlines()
        assert len(out) <= 40 and max(map(len, out)) <= 120


@pytest.mark.parametrize("command", ["prune", "induce"])
def test_a_folder_that_is_not_empty_is_refused_before_the_model_is_loaded(pruner, capsys, tmp_path, command):
    (tmp_path / "si_report.json").write_text("")
    assert run(command, "-m", "m", "--dataset", "c4", "-o", str(tmp_path)) == FAILED
    assert "is not empty" in capsys.readouterr().err
    assert not pruner.calls
    assert run(command, "-m", "m", "--dataset", "c4", "-o", str(tmp_path), "--overwrite") == 0


def test_a_warning_is_one_line(pruner, capsys):
    pruner.warning = "the saved scales\n are old"
    run(*PRUNE)
    assert capsys.readouterr().err == "warning: the saved scales are old\n"


def test_induce_saves_what_it_learned_and_names_the_prune_command(pruner, capsys):
    assert run("induce", "-m", "m", "--dataset", "a.txt", "-o", "out", "--method", "wanda", "--pattern", "2:4") == 0
    assert list(pruner.calls) == ["load", "induce", "save"]
    assert pruner.calls["save"] == {"output": Path("out"), "overwrite": False}
    next_command = capsys.readouterr().out.splitlines()[-1]
    assert next_command == (
        "  optimum-cli si prune --model out --dataset a.txt --method wanda --pattern 2:4 --output out-pruned"
    )
    words = shlex.split(next_command)[2:]
    assert run(*words) == 0
    assert pruner.calls["prune"]["config"] == pruner.calls["induce"]["config"]


@pytest.mark.parametrize("failure, code, message", [
    (NumericalError("NaN in layer x"), FAILED, "error: NaN in layer x"),
    (OSError("disk\n  full"), FAILED, "error: disk full"),
    (KeyError("x"), FAILED, "error: KeyError: 'x' (--debug shows the traceback)"),
    (AssertionError(), FAILED, "error: AssertionError (--debug shows the traceback)"),
    (ConfigurationError("include='z' matches nothing"), WRONG_USAGE, "error: include='z' matches nothing"),
    (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
])  # fmt: skip
def test_a_failure_is_one_line_and_an_exit_code(pruner, capsys, failure, code, message):
    pruner.failure = failure
    assert run(*PRUNE) == code
    assert capsys.readouterr().err == message + "\n"


def test_debug_keeps_the_exit_code_and_shows_the_traceback(pruner, capsys):
    pruner.failure = ConfigurationError("no")
    assert run(*PRUNE, "--debug") == WRONG_USAGE
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["prune", "induce"])
def test_a_gguf_file_and_a_tokenizer_are_passed_on(pruner, capsys, verb):
    words = ("-m", "some/model", "--dataset", "text.txt", "-o", "out", "--gguf-file", "a.gguf", "--tokenizer", "b")
    assert run(verb, *words) == 0
    loaded = {"model": "some/model", "gguf_file": "a.gguf", "tokenizer": "b", "trust_remote_code": False}
    assert pruner.calls["load"] == loaded
    assert ("--gguf-file a.gguf" in capsys.readouterr().out) == (verb == "prune"), "to be measured beside the result"


@pytest.fixture
def evaluated(monkeypatch):
    """A tiny Llama whose first projection is half zeros, and what was loaded and measured."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from optimum_si.evaluation import evaluate, opening

    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, num_hidden_layers=1))
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[:4] = 0
    asked = {}

    def load_model(name, **options):
        asked["load"] = {"model": name, **options}
        return model

    def perplexity(model, tokenizer, texts, sequence_length, batch_size, progress, max_windows):
        asked["texts"], asked["windows"] = texts, (sequence_length, max_windows)
        return 12.5

    monkeypatch.setattr(opening, "load_model", load_model)
    monkeypatch.setattr(evaluate, "perplexity", perplexity)
    return asked


def test_evaluate_prints_perplexity_and_the_zeros_it_counts(evaluated, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("some text")
    words = ("-m", "m", "--dataset", str(tmp_path / "a.txt"), "--max-windows", "3", "--sequence-length", "4")
    assert run("evaluate", *words, "--dtype", "float32") == 0
    loaded = {"model": "m", "trust_remote_code": False, "dtype": "float32"}
    assert evaluated == {"load": loaded, "texts": ["some text"], "windows": (4, 3)}
    out = capsys.readouterr().out
    assert "perplexity: 12.5 on " in out and "sparsity: 7.14%" in out

    assert run("evaluate", *words, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["perplexity"] == 12.5
    assert result["sparsity"] == pytest.approx(32 / (7 * 64))


def test_of_several_models_the_first_is_in_the_gguf_file(evaluated, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("some text")
    words = ("--dataset", str(tmp_path / "a.txt"), "--gguf-file", "a.gguf")
    assert run("evaluate", "-m", "m", *words) == 0 and evaluated["load"]["gguf_file"] == "a.gguf"
    assert run("evaluate", "-m", "m", "n", *words) == 0 and "gguf_file" not in evaluated["load"]


def test_evaluate_names_a_dataset_that_is_not_there(evaluated, capsys):
    assert run("evaluate", "-m", "m", "--dataset", "./nowhere.txt") == FAILED
    assert "nowhere.txt" in capsys.readouterr().err
    assert not evaluated, "the data is looked for before the model is loaded"


def test_demo_passes_its_arguments_on(monkeypatch):
    calls = []
    module = ModuleType("optimum_si.demo")
    module.run_demo = lambda **options: calls.append(options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "optimum_si.demo", module)
    assert run("demo") == 0
    assert run("demo", "--model", "m", "--dataset", "d", "--output", "o", "--quick") == 0
    assert run("demo", "--embeddings") == 0
    default = {"language_model": False, "minutes": 5.0, "model": None, "dataset": None, "output": None, "quick": False}
    default |= {"embeddings": False, "overwrite": False}
    own = {**default, "model": "m", "dataset": "d", "output": Path("o"), "quick": True}
    assert calls == [default, own, {**default, "embeddings": True}]
