"""``optimum-cli si evaluate`` of several models, on text and on tasks, in PyTorch and on ONNX Runtime."""

import json
import shutil
from argparse import ArgumentParser

import pytest
from support.lm_tasks import only_own_tasks, word_tokenizer, write_task
from support.models import calibration, prune
from support.onnx_models import causal

from optimum_si.commands.base import FAILED, WRONG_USAGE
from optimum_si.commands.evaluate import EvaluateCommand
from optimum_si.evaluation.results import Evaluation, Evaluations
from optimum_si.evaluation.tasks import ZERO_SHOT_TASKS, TaskScore
from optimum_si.onnx import export


pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dense and a pruned model, the export of that, a text and a task."""
    folder = tmp_path_factory.mktemp("evaluate")
    causal("llama").save_pretrained(folder / "dense")
    word_tokenizer().save_pretrained(folder / "dense")
    pruner = prune(causal("llama"), "wanda", calibration("llama"), pattern="2:4", induction=None)
    pruner.tokenizer = word_tokenizer()
    pruner.save_pretrained(folder / "sparse")
    export(folder / "sparse", folder / "onnx")
    write_task(folder / "tasks")
    (folder / "text.txt").write_text(" ".join(f"w{1 + number * number % 40}" for number in range(600)))
    return folder


@pytest.fixture(autouse=True)
def own_tasks(monkeypatch, tmp_path):
    only_own_tasks(monkeypatch, tmp_path)


def run(*words) -> int:
    parser = ArgumentParser()
    EvaluateCommand.parse_args(parser)
    command = EvaluateCommand.__new__(EvaluateCommand)
    command.args = parser.parse_args([str(word) for word in words])
    try:
        command.run()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_models_stand_side_by_side_with_what_changed_from_the_first(place, capsys):
    words = ("-m", *(place / name for name in ("dense", "sparse", "onnx")), "--dataset", place / "text.txt")
    words = (*words, "--sequence-length", 64, "--tasks", "guess", "--task-folder", place / "tasks")
    assert run(*words, "--json") == 0
    dense, sparse, onnx = json.loads(capsys.readouterr().out)
    assert [found["runtime"] for found in (dense, sparse, onnx)] == ["PyTorch", "PyTorch", "ONNX Runtime"]
    assert [found["sparsity"] for found in (dense, sparse, onnx)] == [0.0, 0.5, 0.5]
    assert onnx["perplexity"] == pytest.approx(sparse["perplexity"], rel=1e-4)
    assert onnx["tasks"] == sparse["tasks"] and sparse["tasks"]["guess"]["examples"] == 24
    assert sparse["mean"] is None, "of one task"

    assert run(*words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["dense", "sparse", "onnx"]
    ratio = sparse["perplexity"] / dense["perplexity"]
    assert lines[3].startswith("perplexity") and lines[3].endswith(f"({ratio:.3f} x)")
    change = 100 * (sparse["tasks"]["guess"]["value"] - dense["tasks"]["guess"]["value"])
    assert lines[4].startswith("guess (acc)") and lines[4].endswith(f"({change:+.1f})")
    assert lines[5] == f"Perplexity on {place / 'text.txt'}, and its ratio to dense."


def test_tasks_alone_need_no_text_and_one_model_gives_one_object(place, capsys):
    words = ("-m", place / "onnx", "--tasks", "guess", "--task-folder", place / "tasks", "--limit", 5)
    assert run(*words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tasks"]["guess"]["examples"] == 5 and "perplexity" not in found
    assert run(*words) == 0
    assert "Perplexity" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "give --dataset, --tasks or both"),
        (("--tasks", "guess", "--max-windows", "3"), "--max-windows says nothing without --dataset"),
        (("--dataset", "a.txt", "--limit", "3"), "--limit says nothing without --tasks"),
    ],
)
def test_options_that_measure_nothing_are_wrong_usage(words, message, capsys):
    assert run("-m", "model", *words) == WRONG_USAGE
    assert message in capsys.readouterr().err


def test_a_damaged_export_is_named(place, tmp_path, capsys):
    damaged = shutil.copytree(place / "onnx", tmp_path / "onnx")
    (damaged / "model.onnx").write_bytes(b"broken")
    assert run("-m", damaged, "--dataset", place / "text.txt") == FAILED
    assert "model.onnx" in capsys.readouterr().err


def scored(model: str, value: float) -> Evaluation:
    tasks = {name: TaskScore("acc", value, 0.01, 100) for name in ZERO_SHOT_TASKS}
    return Evaluation(model, "PyTorch", 0.5, "wikitext2", 20 * value, tasks)


def test_the_table_of_the_seven_tasks_has_their_mean_and_warns_of_other_means():
    lines = Evaluations([scored("a/model", 0.6), scored("b/model", 0.5)]).table().splitlines()
    assert lines[0].split() == ["a/model", "b/model"], "names that are alike are whole"
    assert lines[3].split() == ["perplexity", "12", "10", "(0.833", "x)"]
    assert lines[4].split() == ["boolq", "(acc)", "60.0", "±", "1.0", "50.0", "±", "1.0", "(-10.0)"]
    mean = ["mean", "of", "7", "tasks", "60.0", "±", "0.4", "50.0", "±", "0.4", "(-10.0)"]
    assert lines[11].split() == mean
    assert lines[-1].startswith("Papers leave out some of these tasks")


def test_other_metrics_than_accuracies_are_printed_as_they_are():
    other = Evaluation("model", "PyTorch", 0.0, tasks={"translate": TaskScore("bleu", 31.25, None, 9)})
    assert Evaluations([other]).table().splitlines()[3].split() == ["translate", "(bleu)", "31.2500"]
