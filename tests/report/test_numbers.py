"""What a run's report says of scores and singular values, against computations that share nothing with it."""

import json
from dataclasses import replace

import numpy
import pytest
import torch
from support.example_reports import example
from support.models import (
    METHODS,
    block_weights,
    correlated_tokens,
    induce,
    moments_of,
    prune,
    random_scale,
    random_weight,
    tiny,
)

from optimum_si import CheckpointError, SIPruner
from optimum_si.algorithms.pruning import get_method
from optimum_si.linalg.histograms import BINS, HIGH, LOW, affordable, relative_histogram, spread_positions
from optimum_si.report import REPORT_NAME, Report


STRONG = {"epochs": 2, "learning_rate": 0.05}


def counted(score: numpy.ndarray, mean: numpy.ndarray) -> numpy.ndarray:
    """Fractions of scores in each bin, counted one by one."""
    fractions = numpy.zeros(BINS)
    for value, middle in zip(score.ravel(), numpy.broadcast_to(mean, score.shape).ravel(), strict=True):
        if value > 0:
            bin_index = int(numpy.floor((numpy.log10(value / middle) - LOW) / (HIGH - LOW) * BINS))
            fractions[min(max(bin_index, 0), BINS - 1)] += 1 / score.size
    return fractions


@pytest.mark.parametrize("whole", [False, True])
def test_a_histogram_is_what_counting_gives(whole):
    score = random_weight(24, 32).abs() ** 3
    score[0, :5], score[1, 0], score[2, 0] = 0, 1e-12, 1e6
    mean = score.mean() if whole else score.mean(dim=1, keepdim=True)
    expected = counted(score.numpy(), mean.numpy())
    assert relative_histogram(score, whole).numpy() == pytest.approx(expected, abs=1e-12)


def test_rows_that_are_zero_are_in_no_bin():
    assert relative_histogram(torch.zeros(3, 4), whole=False).sum() == 0


@pytest.mark.parametrize("method", METHODS)
def test_before_is_the_plain_score_of_the_first_block(method):
    """Magnitude needs no inputs, so that the whole histogram can be counted from the weights alone."""
    model = tiny("llama")
    weights = {name: weight.clone() for name, weight in block_weights(model).items() if ".layers.0." in name}
    report = prune(model, method, induction=None).report
    first = report.blocks[0].importance
    assert first.after is None
    assert len(first.before) == BINS and sum(first.before) == pytest.approx(1, abs=1e-3)
    if method == "magnitude":
        sizes = numpy.array([weight.numel() for weight in weights.values()])
        counts = [counted(w.abs().double().numpy(), w.abs().double().mean().numpy()) for w in weights.values()]
        expected = (numpy.array(counts) * sizes[:, None]).sum(axis=0) / sizes.sum()
        # A score next to an edge may fall to the other side in fp32.
        assert numpy.abs(numpy.array(first.before) - expected).sum() < 2e-3


@pytest.mark.parametrize("method", METHODS)
def test_the_scaled_score_is_what_pruning_ranks_by(method):
    """Pruning a layer with all weights in one group takes away exactly the lowest scaled scores."""
    from optimum_si.algorithms.pruning.targets import Unstructured

    weight, moments, scale = random_weight(1, 16), moments_of(correlated_tokens()), random_scale(16)
    tool = get_method(method)()
    kept = tool.prune(weight, moments, Unstructured(0.5, "layer"), scale=scale) != 0
    score = tool.scaled_score(weight, moments, scale)
    assert score[kept].min() > score[~kept].max()


def test_after_is_there_where_induction_was_kept_and_only_there():
    report = prune(tiny("bert-relu"), "wanda", induction=STRONG).report
    assert any(block.choice == "induced" for block in report.blocks), "or this test shows nothing"
    for block in report.blocks:
        scores = block.importance
        assert (scores.after is None) == (block.choice == "plain")
        assert scores.after is None or scores.after != scores.before


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("induction", [None, {"epochs": 1}], ids=["plain", "induced"])
def test_singular_values_are_those_of_numpy(method, induction):
    model = tiny("llama")
    dense = {name: weight.double().numpy() for name, weight in block_weights(model).items()}
    dense = {name: weight.copy() for name, weight in dense.items()}
    if induction is not None:
        induction = {**induction, "absorb": False}
    values = prune(model, method, induction=induction).report.spectrum
    assert values.layer == "model.layers.1.self_attn.k_proj", "the first of the smallest in the middle block"
    pruned = block_weights(model)[values.layer].double().numpy()
    for found, weight in ((values.dense, dense[values.layer]), (values.pruned, pruned)):
        expected = numpy.linalg.svd(weight, compute_uv=False)[values.positions]
        assert found == pytest.approx(expected, rel=2e-4, abs=1e-4 * expected[0])


def test_absorbed_scales_do_not_show_in_the_singular_values():
    recipe = {"epochs": 2, "learning_rate": 0.1}
    reports = [prune(tiny("llama"), induction={**recipe, "absorb": absorb}).report for absorb in (True, False)]
    assert any(layer.absorbed for layer in reports[0].layers), "or this test shows nothing"
    assert reports[0].spectrum == reports[1].spectrum


def test_positions_are_few_and_hold_both_ends():
    assert spread_positions(5).tolist() == [0, 1, 2, 3, 4]
    positions = spread_positions(4096).tolist()
    assert len(positions) == len(set(positions)) == 64 and (positions[0], positions[-1]) == (0, 4095)


def test_singular_values_of_large_layers_are_left_out(monkeypatch):
    assert affordable(1024, 4096) and not affordable(4096, 4096)
    monkeypatch.setattr("optimum_si.linalg.histograms.AFFORDABLE", 100)
    assert prune(tiny("llama"), induction=None).report.spectrum is None


def test_induce_prunes_nothing_and_reports_no_singular_values():
    report = induce(tiny("llama")).report
    assert report.spectrum is None
    assert all(block.importance is not None for block in report.blocks)


def test_quantiles_lie_within_the_range_of_scales():
    report = prune(tiny("bert-relu"), "wanda", induction=STRONG).report
    scaled = [layer for layer in report.layers if layer.scale_min is not None]
    assert scaled, "or this test shows nothing"
    for layer in scaled:
        order = [layer.scale_min, layer.scale_p10, layer.scale_median, layer.scale_p90, layer.scale_max]
        assert order == sorted(order)


def test_the_class_of_the_model_is_reported():
    assert prune(tiny("opt"), induction=None).report.architecture == "OPTForCausalLM"


def test_the_reduction_of_the_loss_is_relative_to_the_plain_method():
    assert example(2).loss_reduction == pytest.approx(1 - (0.1 + 0.2) / (0.2 + 0.3))
    assert example(induction=False).loss_reduction is None
    lossless = replace(example(1).blocks[0], loss_before=0.0, loss_after=0.0)
    assert replace(example(1), blocks=[lossless]).loss_reduction is None


def test_what_was_saved_is_read_back(tmp_path):
    for report in (example(), example(induction=False), prune(tiny("llama")).report):
        report.save(tmp_path)
        assert Report.load(tmp_path) == report


def test_a_report_of_an_earlier_version_is_read(tmp_path):
    report = example()
    values = report.to_dict()
    for name in ("architecture", "spectrum"):
        del values[name]
    for block in values["blocks"]:
        del block["importance"]
        for layer in block["layers"]:
            del layer["scale_p10"], layer["scale_p90"]
    (tmp_path / REPORT_NAME).write_text(json.dumps(values))
    old = Report.load(tmp_path)
    assert (old.spectrum, old.architecture) == (None, None)
    assert [block.importance for block in old.blocks] == [None] * 4
    assert old.table() == report.table()


@pytest.mark.parametrize("change", [{"spectrum": 3}, {"spectrum": {"layer": "x"}}, {"blocks": [{"importance": 1}]}])
def test_damage_in_the_new_fields_is_named(tmp_path, change):
    (tmp_path / REPORT_NAME).write_text(json.dumps({**example().to_dict(), **change}))
    with pytest.raises(CheckpointError, match="damaged"):
        Report.load(tmp_path)


def test_a_large_model_costs_tens_of_kilobytes(tmp_path):
    report = example(80)
    report.save(tmp_path)
    whole = (tmp_path / REPORT_NAME).stat().st_size
    blocks = [replace(block, importance=None) for block in report.blocks]
    replace(report, blocks=blocks, spectrum=None).save(tmp_path)
    assert whole - (tmp_path / REPORT_NAME).stat().st_size < 100_000


def test_a_run_saves_its_report(tmp_path):
    pruner = prune(tiny("llama"), save_dir=tmp_path / "out")
    assert isinstance(pruner, SIPruner)
    assert Report.load(tmp_path / "out") == pruner.report
