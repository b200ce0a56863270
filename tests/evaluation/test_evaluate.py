"""``evaluate``: several models on text and on tasks, in PyTorch and on ONNX Runtime, as the command does it too."""

import json
import re
import shutil

import pytest
from optimum.commands.optimum_cli import main
from support.lm_tasks import only_own_tasks, word_tokenizer, write_task
from support.models import calibration, prune
from support.onnx_models import causal
from transformers import AutoModelForCausalLM

from optimum_si import CheckpointError, ConfigurationError, UnsupportedModelError, evaluate, perplexity, task_accuracy
from optimum_si.evaluation.perplexity import evaluation_texts
from optimum_si.evaluation.tasks import load_tasks
from optimum_si.hub.results import load_results
from optimum_si.onnx import export


pytest.importorskip("lm_eval")

NAMES = ("dense", "sparse", "onnx")


@pytest.fixture(scope="module")
def place(tmp_path_factory, traced_once):
    """A dense and a pruned model, the export of that, a text and a task."""
    folder = tmp_path_factory.mktemp("evaluate")
    causal("llama").save_pretrained(folder / "dense")
    word_tokenizer().save_pretrained(folder / "dense")
    pruner = prune(causal("llama"), "wanda", calibration("llama"), pattern="2:4", induction=None)
    pruner.tokenizer = word_tokenizer()
    pruner.save_pretrained(folder / "sparse")
    with traced_once():
        export(folder / "sparse", folder / "onnx")
    write_task(folder / "tasks")
    (folder / "text.txt").write_text(" ".join(f"w{1 + number * number % 40}" for number in range(600)))
    return folder


@pytest.fixture(autouse=True)
def own_tasks(monkeypatch, tmp_path):
    only_own_tasks(monkeypatch, tmp_path)


def test_models_are_measured_side_by_side_wherever_they_run(place):
    data = {"dataset": place / "text.txt", "sequence_length": 64, "tasks": "guess", "task_folder": place / "tasks"}
    found = evaluate([place / name for name in NAMES], **data, progress=False)
    dense, sparse, onnx = found
    assert [one.model for one in found] == [str(place / name) for name in NAMES]
    assert [one.runtime for one in found] == ["PyTorch", "PyTorch", "ONNX Runtime"]
    assert [one.sparsity for one in found] == [0.0, 0.5, 0.5]
    assert onnx.perplexity == pytest.approx(sparse.perplexity, rel=1e-4)
    assert onnx.tasks == sparse.tasks and sparse.tasks["guess"].examples == 24
    assert sparse.mean is None, "of one task"
    assert found.to_dict() == [one.to_dict() for one in found] and found.saved_in == []

    lines = found.table().splitlines()
    assert lines[0].split() == [*NAMES]
    assert lines[3].startswith("perplexity") and lines[3].endswith(f"({sparse.perplexity / dense.perplexity:.3f} x)")
    change = 100 * (sparse.tasks["guess"].value - dense.tasks["guess"].value)
    assert lines[4].startswith("guess (acc)") and lines[4].endswith(f"({change:+.1f})")
    assert lines[5] == f"Perplexity on {place / 'text.txt'}, and its ratio to dense."


def test_numbers_are_those_of_the_functions_and_of_the_command(place, monkeypatch, capsys):
    (found,) = evaluate(
        place / "sparse", dataset=place / "text.txt", max_windows=2, sequence_length=64, tasks=["guess"],
        task_folder=place / "tasks", limit=5,
    )  # fmt: skip
    model, tokenizer = AutoModelForCausalLM.from_pretrained(place / "sparse"), word_tokenizer()
    texts = evaluation_texts(str(place / "text.txt"))
    assert found.perplexity == perplexity(model, tokenizer, texts, sequence_length=64, max_windows=2)
    assert found.tasks == task_accuracy(model, tokenizer, load_tasks("guess", place / "tasks"), limit=5)

    words = ["-m", place / "sparse", "--dataset", place / "text.txt", "--max-windows", 2, "--sequence-length", 64]
    words += ["--tasks", "guess", "--task-folder", place / "tasks", "--limit", 5, "--json"]
    monkeypatch.setattr("sys.argv", ["optimum-cli", "si", "evaluate", *map(str, words)])
    capsys.readouterr()
    main()
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_dict()))


def test_a_loaded_model_and_texts_are_taken_as_they_are(place):
    model = AutoModelForCausalLM.from_pretrained(place / "dense")
    texts = [(place / "text.txt").read_text()]
    (found,) = evaluate(model, dataset=texts, progress=False)
    (named,) = evaluate(place / "dense", dataset=place / "text.txt", progress=False)
    assert (found.perplexity, found.sparsity) == (named.perplexity, 0.0)
    assert (found.model, found.dataset) == (str(place / "dense"), "text")
    assert perplexity(model, word_tokenizer(), texts) == found.perplexity

    fresh = causal("llama")
    (given,) = evaluate([fresh], word_tokenizer(), dataset=texts, progress=False)
    assert given.model == "LlamaForCausalLM" and given.perplexity == found.perplexity


def test_tasks_alone_need_no_text(place):
    (found,) = evaluate(place / "onnx", tasks="guess", task_folder=place / "tasks", limit=5, progress=False)
    assert found.tasks["guess"].examples == 5 and found.perplexity is None and found.dataset is None
    assert "perplexity" not in found.to_dict()


def test_numbers_are_saved_beside_what_prune_wrote(place, tmp_path):
    sparse = shutil.copytree(place / "sparse", tmp_path / "sparse")
    found = evaluate([place / "dense", sparse], dataset=place / "text.txt", max_windows=2, save=True, progress=False)
    assert found.saved_in == [sparse]
    (result,) = load_results(sparse)
    assert (result.value, result.dense) == (found[1].perplexity, found[0].perplexity)
    assert result.details == "first 2 windows"
    assert f"{found[1].perplexity:.4g}" in (sparse / "README.md").read_text()


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ("model", {}, "there is nothing to measure: give dataset, tasks or both."),
        ([], {"dataset": "a.txt"}, "there is no model to evaluate"),
        ("model", {"tasks": "guess", "max_windows": 3}, "max_windows says nothing without dataset: give both"),
        ("model", {"dataset": "a.txt", "limit": 3}, "limit says nothing without tasks: give both"),
        ("model", {"tasks": "guess", "limit": 0}, "limit=0: expected a whole number of at least 1"),
        ("model", {"dataset": "a.txt", "save": True}, "save keeps numbers in folders that `prune` wrote"),
    ],
)
def test_options_that_measure_nothing_are_refused_before_any_work(models, options, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        evaluate(models, **options)


def test_what_is_no_model_is_refused(place):
    with pytest.raises(UnsupportedModelError, match="int cannot be evaluated: give a Hub id"):
        evaluate(3, dataset=place / "text.txt")


def test_a_damaged_export_is_named(place, tmp_path):
    damaged = shutil.copytree(place / "onnx", tmp_path / "onnx")
    (damaged / "model.onnx").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="model.onnx"):
        evaluate(damaged, dataset=place / "text.txt")
