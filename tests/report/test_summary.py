"""The summary of a run, which must fit a screen however many layers there are."""

from dataclasses import replace

import pytest
from support.example_reports import KINDS, example
from support.models import prune, tiny

from optimum_si.report.kinds import MAX_KINDS, MAX_WORST, kinds_of_layers, worst_layers
from optimum_si.report.recovery import RecoveryReport


def test_a_kind_is_counted_and_measured_over_all_blocks():
    report = example(3)
    block = report.blocks[1]
    layers = [*block.layers[:-1], replace(block.layers[-1], shape=(64, 64), sparsity=0.2, error_after=0.7)]
    report.blocks[1] = replace(block, layers=layers)
    kinds = kinds_of_layers(report)
    assert [kind.name for kind in kinds] == list(KINDS)
    last = kinds[-1]
    assert (last.count, last.num_weights, last.worst_error) == (3, (32 + 64 + 32) * 64, 0.7)
    assert last.sparsity == pytest.approx(0.25 * 0.5 + 0.5 * 0.2 + 0.25 * 0.5), "a layer counts by its size"
    assert last.mean_error == pytest.approx((0.07 + 0.7 + 0.07) / 3)
    assert last.mean_error_before == pytest.approx(0.077)
    assert worst_layers(report)[0].name == "model.layers.1.down_proj"


def test_experts_of_a_block_are_one_kind():
    report = example(2)
    report.blocks[:] = [
        replace(
            block,
            layers=[replace(layer, name=f"{block.name}.experts.{n}.up_proj2") for n, layer in enumerate(block.layers)],
        )
        for block in report.blocks
    ]
    (kind,) = kinds_of_layers(report)
    assert (kind.name, kind.count) == ("experts.*.up_proj2", 14)


def test_the_summary_has_a_line_for_each_kind_the_worst_layers_and_the_totals():
    lines = example(30).summary().splitlines()
    assert [line.split()[0] for line in lines[2:9]] == list(KINDS)
    assert lines[2].split() == ["q_proj", "30", "50.00%", "0.0110", "0.0100", "0.0100"]
    worst = lines[lines.index("") + 3 :][:MAX_WORST]
    assert all("down_proj" in line for line in worst)
    assert "layers: 210 in 30 blocks, 8,030,261,248 parameters in the model" in lines
    assert "perplexity on a little calibration text: 12.5 dense, 1,875 now" in lines


def test_of_many_kinds_the_largest_are_shown_and_the_others_counted():
    report = example(30, experts=24)
    for position, block in enumerate(report.blocks):
        layers = [replace(layer, shape=(1, 2)) if "expert_3." in layer.name else layer for layer in block.layers]
        report.blocks[position] = replace(block, layers=layers)
    lines = report.summary().splitlines()
    shown = [line.split()[0] for line in lines[2 : 2 + MAX_KINDS - 1]]
    assert shown[:7] == list(KINDS) and shown[7:] == [
        f"expert_{n}.{kind}" for n, kind in [(0, "gate_proj"), (0, "up_proj"), (0, "down_proj"), (1, "gate_proj")]
    ]
    assert lines[2 + MAX_KINDS - 1] == f"... and {7 + 3 * 24 - (MAX_KINDS - 1)} more kinds"


def test_the_largest_kinds_are_those_that_are_shown():
    report = example(2, experts=24)
    for position, block in enumerate(report.blocks):
        layers = [replace(layer, shape=(99, 99)) if "expert_20." in layer.name else layer for layer in block.layers]
        report.blocks[position] = replace(block, layers=layers)
    shown = report.summary().split("\n\n")[0]
    assert "expert_20.down_proj" in shown and "expert_1.down_proj" not in shown and "q_proj" in shown


def test_what_a_run_does_not_have_takes_no_column():
    plain = prune(tiny("llama"), induction=None).report.summary()
    assert "plain" not in plain.split("\n\n")[0] and "mean error" in plain
    assert "mean error plain" in prune(tiny("llama")).report.summary()


def test_recovery_has_a_line_which_says_why_it_ended_early():
    run = example()
    assert "recovery" not in run.summary()
    done = RecoveryReport(64, 32_768, 8, 1, 28, "weights", 0.61234, 0.4, 180.0, "Adam, checkpointing")
    for changes, expected in (
        ({}, "0.6123 before, 0.4 after 28 steps over 32,768 tokens in 180.0 s (Adam, checkpointing)"),
        ({"ended": "time"}, ", ended by its time limit"),
        ({"ended": "NaN"}, ", ended by a loss that was not finite"),
        ({"loss_before": None, "loss_after": None, "memory": "off"}, "recovery: off, for want of memory"),
    ):
        run.recovery = replace(done, **changes)
        (line,) = [line for line in run.summary().splitlines() if line.startswith("recovery")]
        assert line.endswith(expected)
