"""``examples/reproduce_paper*.py`` run on a local model, and print the paper's numbers beside ours."""

import json

import pytest
from support.lm_tasks import write_task


def test_the_papers_pairs_stand_beside_ours(run, checkpoint, text_file):
    words = ("--models", f"opt-125m={checkpoint}", "--calibration", text_file, "--evaluation", text_file)
    finished = run("reproduce_paper.py", *words, "--methods", "wanda", "--targets", "50%", "2:4")
    lines = [line.split() for line in finished.stdout.splitlines()[3:]]
    assert lines[0][:5] == ["opt-125m", "dense", "-", "27.65", "-"]
    assert lines[1][:5] == ["opt-125m", "50%", "wanda", "38.99", "38.00"]
    assert lines[2][:5] == ["opt-125m", "2:4", "wanda", "79.89", "79.11"]
    assert all(float(value) > 1 for line in lines[1:] for value in line[5:])


def test_json_has_tasks_and_a_model_that_the_paper_lacks(run, checkpoint, text_file, tmp_path):
    pytest.importorskip("lm_eval")
    folder = write_task(tmp_path / "tasks")
    words = ("--models", checkpoint, "--calibration", text_file, "--evaluation", text_file, "--methods", "magnitude")
    words = (*words, "--targets", "4:8", "--tasks", "guess", "--task-folder", folder, "--json")
    dense, pruned = json.loads(run("reproduce_paper.py", *words).stdout)
    assert dense["model"] == pruned["model"] == "tiny-opt" and "paper_base_perplexity" not in pruned
    assert {"base_perplexity", "si_perplexity", "base_accuracy", "si_accuracy", "si_seconds"} <= set(pruned)
    assert dense["base_tasks"]["guess"]["examples"] == 24


def test_both_ways_of_refreshing_are_timed_and_latency_needs_a_gpu(run, checkpoint, text_file):
    words = (checkpoint, "--calibration", text_file, "--json")
    result = json.loads(run("reproduce_paper_speed.py", *words).stdout)
    assert result["samples"] == 4 and 0 < result["scaled_seconds"] and 0 < result["forward_seconds"]
    assert "needs --device cuda" in result["latency"]
