"""``optimum-cli si evaluate``: what it asks of ``evaluate``, and what it prints."""

import json
from argparse import ArgumentParser
from pathlib import Path

import pytest

from optimum_si.commands.base import WRONG_USAGE
from optimum_si.commands.evaluate import EvaluateCommand
from optimum_si.evaluation import evaluate as module
from optimum_si.evaluation.results import Evaluation, Evaluations
from optimum_si.evaluation.tasks import TaskScore


def measured(model: str) -> Evaluation:
    return Evaluation(model, "PyTorch", 0.5, "a.txt", 12.345, {"guess": TaskScore("acc", 0.25, 0.1, 24)})


@pytest.fixture
def asked(monkeypatch) -> dict:
    """What ``evaluate`` was asked; it answers with made-up numbers."""
    asked: dict = {}

    def evaluate(models, **options):
        asked.update(options, models=models)
        return Evaluations(map(measured, models), [Path("kept")] if options["save"] else [])

    monkeypatch.setattr(module, "evaluate", evaluate)
    return asked


def run(*words: str) -> int:
    parser = ArgumentParser()
    EvaluateCommand.parse_args(parser)
    command = EvaluateCommand.__new__(EvaluateCommand)
    command.args = parser.parse_args(words)
    try:
        command.run()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_every_argument_is_passed_on(asked):
    data = ("--dataset", "a.txt", "--dataset-config", "b", "--split", "c", "--column", "d", "--sequence-length", "64")
    tasks = ("--tasks", "guess", "other", "--task-folder", "e", "--limit", "5", "--max-windows", "3")
    assert run("-m", "one", "two", *data, *tasks, "--batch-size", "4", "--dtype", "float16", "--device", "cpu") == 0
    assert asked == {
        "models": ["one", "two"], "dataset": "a.txt", "dataset_config": "b", "split": "c", "column": "d",
        "sequence_length": 64, "max_windows": 3, "tasks": ["guess", "other"], "task_folder": Path("e"), "limit": 5,
        "batch_size": 4, "dtype": "float16", "device": "cpu", "trust_remote_code": False, "save": False,
    }  # fmt: skip


def test_what_is_not_given_is_left_to_the_function(asked):
    assert run("-m", "one", "--dataset", "a.txt", "--trust-remote-code") == 0
    assert asked == {"models": ["one"], "dataset": "a.txt", "trust_remote_code": True, "save": False}


def test_one_model_on_text_takes_two_lines(asked, capsys):
    run("-m", "one", "--dataset", "a.txt")
    assert capsys.readouterr().out == (
        "perplexity: 12.35 on a.txt\n"
        "sparsity: 50.00% of the weights in the transformer blocks' linear layers are zero\n"
    )


def test_several_models_or_tasks_take_a_table(asked, capsys):
    for words in (("-m", "one", "two", "--dataset", "a.txt"), ("-m", "one", "--tasks", "guess")):
        run(*words)
        assert capsys.readouterr().out == Evaluations(map(measured, asked["models"])).table() + "\n"


def test_json_is_an_object_for_one_model_and_a_list_for_several(asked, capsys):
    run("-m", "one", "--dataset", "a.txt", "--json")
    assert json.loads(capsys.readouterr().out) == measured("one").to_dict()
    run("-m", "one", "two", "--dataset", "a.txt", "--json")
    assert json.loads(capsys.readouterr().out) == [measured("one").to_dict(), measured("two").to_dict()]


def test_where_numbers_were_kept_is_said_beside_the_output(asked, capsys, tmp_path):
    (tmp_path / "si_report.json").write_text("{}")
    assert run("-m", str(tmp_path), "--dataset", "a.txt", "--save") == 0
    assert capsys.readouterr().err == "numbers kept in kept\n"


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "there is nothing to measure: give --dataset, --tasks or both."),
        (("--tasks", "guess", "--max-windows", "3"), "--max-windows says nothing without --dataset: give both"),
        (("--dataset", "a.txt", "--limit", "3"), "--limit says nothing without --tasks: give both"),
        (("--dataset", "a.txt", "--save"), "--save keeps numbers in folders that `prune` wrote, and none of the"),
    ],
)
def test_options_that_measure_nothing_are_wrong_usage(asked, words, message, capsys):
    assert run("-m", "model", *words) == WRONG_USAGE
    assert message in capsys.readouterr().err
    assert not asked
