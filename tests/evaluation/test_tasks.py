"""Accuracy on tasks of lm-eval: what it counts, on which runtimes, and what is said when a task cannot be run."""

import logging
import math
import sys

import pytest
import torch
from support.lm_tasks import QUESTIONS, only_own_tasks, word_tokenizer, write_task
from support.models import tiny
from support.onnx_models import causal
from transformers import BertConfig, BertForMaskedLM

from optimum_si import (
    CalibrationError,
    ConfigurationError,
    ORTSIModelForCausalLM,
    TaskError,
    UnsupportedModelError,
    task_accuracy,
)
from optimum_si.evaluation.tasks import ZERO_SHOT_TASKS, TaskScore, load_tasks, mean_score
from optimum_si.onnx import export


pytest.importorskip("lm_eval")


@pytest.fixture
def folder(tmp_path):
    return write_task(tmp_path / "tasks")


@pytest.fixture(autouse=True)
def own_tasks(monkeypatch, tmp_path):
    only_own_tasks(monkeypatch, tmp_path)


def by_hand(model, questions):
    """The definition: 1 where the log-likelihood of the right answer is the largest."""
    tokenizer = word_tokenizer()
    hits = []
    for question in questions:
        likelihoods = []
        for choice in question["choices"]:
            prompt, answer = (tokenizer(text)["input_ids"] for text in (question["question"], choice))
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
            places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
            likelihoods.append(sum(float(logits[place, token]) for place, token in zip(places, answer, strict=True)))
        hits.append(max(range(3), key=likelihoods.__getitem__) == question["label"])
    return hits


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_accuracy_is_what_its_definition_says(folder, name):
    model = tiny(name)
    hits = by_hand(model, QUESTIONS)
    score = task_accuracy(model, word_tokenizer(), "guess", folder=folder)["guess"]
    share = sum(hits) / len(hits)
    assert 0 < share < 1
    stderr = math.sqrt(share * (1 - share) / (len(hits) - 1))
    assert score == TaskScore("acc", pytest.approx(share), pytest.approx(stderr), len(QUESTIONS))


def test_limit_takes_the_first_examples_and_batch_size_does_not_matter(folder):
    model = tiny("llama")
    found = [
        task_accuracy(model, word_tokenizer(), "guess", folder=folder, limit=7, batch_size=size)["guess"]
        for size in (1, 3, 64)
    ]
    assert found[0] == found[1] == found[2]
    assert found[0].examples == 7 and found[0].value == pytest.approx(sum(by_hand(model, QUESTIONS[:7])) / 7)


@pytest.mark.usefixtures("trace_cache")
def test_pytorch_and_onnx_runtime_agree(folder, tmp_path):
    model = causal("llama")
    runtime = ORTSIModelForCausalLM.from_pretrained(export(model, tmp_path / "onnx"))
    tasks = load_tasks(["guess"], folder)
    assert task_accuracy(runtime, word_tokenizer(), tasks) == task_accuracy(model, word_tokenizer(), tasks)


def test_likelihoods_of_a_bfloat16_model_are_taken_in_float32(folder, monkeypatch):
    dtypes = []
    log_softmax = torch.nn.functional.log_softmax

    def noted(*args, **options):
        dtypes.append(options["dtype"])
        return log_softmax(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "log_softmax", noted)
    task_accuracy(tiny("llama", torch.bfloat16), word_tokenizer(), "guess", folder=folder)
    assert set(dtypes) == {torch.float32}


def test_model_tokenizer_and_loggers_are_left_as_they_were(folder):
    model, tokenizer, logger = tiny("llama").train(), word_tokenizer(), logging.getLogger("lm_eval")
    tokenizer.pad_token = None
    level = logger.level
    task_accuracy(model, tokenizer, "guess", folder=folder)
    assert model.training and tokenizer.pad_token is None and logger.level == level


def test_plain_accuracy_is_taken_before_other_metrics_and_else_the_first_one(folder):
    write_task(folder, "both", "metric_list:\n  - metric: acc_norm\n  - metric: acc\n")
    write_task(folder, "other", "metric_list:\n  - metric: acc_norm\n")
    scores = task_accuracy(tiny("llama"), word_tokenizer(), ["both", "other"], folder=folder)
    assert {name: score.metric for name, score in scores.items()} == {"both": "acc", "other": "acc_norm"}
    assert mean_score(scores) is None, "there is no mean of different metrics"


def test_a_tag_is_its_tasks_and_a_group_its_own_metric(folder):
    for name in ("one", "two"):
        write_task(folder, name, "tag: pair\nmetric_list:\n  - metric: acc\n")
    (folder / "all.yaml").write_text(
        "group: all\ntask: [one, guess]\naggregate_metric_list:\n  - metric: acc\n    weight_by_size: true\n"
    )
    (folder / "loose.yaml").write_text("group: loose\ntask: [guess]\n")
    scores = task_accuracy(tiny("llama"), word_tokenizer(), ["pair", "all", "loose"], folder=folder)
    assert list(scores) == ["one", "two", "all", "guess"]
    assert scores["all"].examples == 2 * len(QUESTIONS)


def test_the_mean_weighs_tasks_alike_and_its_error_is_that_of_independent_tasks():
    scores = {"a": TaskScore("acc", 0.5, 0.03, 100), "b": TaskScore("acc", 0.7, 0.04, 10)}
    assert mean_score(scores) == TaskScore("acc", pytest.approx(0.6), pytest.approx(0.025), 110)
    assert mean_score({**scores, "c": TaskScore("acc", 0.6, None, 10)}).stderr is None


def test_zero_shot_stands_for_the_seven_tasks_which_need_the_hub(monkeypatch):
    from lm_eval.tasks import TaskManager

    asked = []
    monkeypatch.setattr(TaskManager, "all_tasks", ZERO_SHOT_TASKS)

    def load(self, names):
        asked.extend(names)
        if names == ["openbookqa"]:
            raise ConnectionError("Couldn't reach 'openbookqa' on the Hub (OfflineModeIsEnabled)")
        return {"tasks": {}}

    monkeypatch.setattr(TaskManager, "load", load)
    with pytest.raises(TaskError, match="'openbookqa' cannot be loaded: Couldn't reach.*HF_HUB_OFFLINE=1"):
        load_tasks()
    assert asked == list(ZERO_SHOT_TASKS)


def test_an_unknown_task_names_those_that_are_close(folder):
    with pytest.raises(ConfigurationError, match="'gues' is unknown.*did you mean guess.*--task-folder"):
        load_tasks("gues", folder)
    with pytest.raises(ConfigurationError, match="did you mean zero-shot"):
        load_tasks("zeroshot", folder)
    with pytest.raises(ConfigurationError, match="no task is given"):
        load_tasks([], folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere.*no directory"):
        load_tasks("guess", tmp_path / "nowhere")


def test_data_that_is_not_there_is_named(folder):
    (folder / "questions.jsonl").unlink()
    with pytest.raises(TaskError, match="'guess' cannot be loaded: .*questions.jsonl"):
        load_tasks("guess", folder)


def test_a_task_that_runs_the_models_code_is_refused(folder):
    write_task(folder, "risky", "unsafe_code: true\n")
    with pytest.raises(TaskError, match="'risky' runs code"):
        load_tasks("risky", folder)


def test_a_missing_extra_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.evaluator", None)
    with pytest.raises(TaskError, match=r'pip install "optimum-si\[eval\]"'):
        load_tasks("guess", folder)


def test_a_tokenizer_that_is_missing_or_marks_nothing_is_an_error(folder):
    with pytest.raises(CalibrationError, match="there is no tokenizer"):
        task_accuracy(tiny("llama"), None, "guess", folder=folder)
    tokenizer = word_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(CalibrationError, match="set its bos_token or eos_token"):
        task_accuracy(tiny("llama"), tokenizer, "guess", folder=folder)


def test_a_model_that_predicts_no_next_tokens_is_refused(folder):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(UnsupportedModelError, match="BertForMaskedLM predicts no next tokens"):
        task_accuracy(BertForMaskedLM(BertConfig(vocab_size=48, **sizes)), word_tokenizer(), "guess", folder=folder)


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"limit": 0}, {"limit": 0.5}])
def test_numbers_out_of_range_are_errors(folder, option):
    with pytest.raises(ConfigurationError, match=f"{next(iter(option))}="):
        task_accuracy(tiny("llama"), word_tokenizer(), "guess", folder=folder, **option)


def test_progress_can_be_silent(folder, capfd):
    tasks = load_tasks("guess", folder)
    capfd.readouterr()
    task_accuracy(tiny("llama"), word_tokenizer(), tasks, progress=False)
    assert capfd.readouterr() == ("", "")
