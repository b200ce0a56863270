"""Allocation gives layers targets of their own, of which the whole model has as many zeros as of the uniform one."""

import json

import pytest
import torch
from support.models import METHODS, block_weights, induce, prune, same_bytes, tiny

from optimum_si import SIConfig
from optimum_si.pipeline.plan import make_plan


ALLOCATIONS = ("owl", "error")


def zeros(model) -> int:
    return sum(int((weight == 0).sum()) for weight in block_weights(model).values())


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_it_up_under_the_same_count(method, allocation):
    uniform, chosen, again = (
        prune(tiny("llama"), method, sparsity=0.6, induction=None, allocation=name)
        for name in ("uniform", allocation, allocation)
    )
    assert not same_bytes(uniform.model, chosen.model) and same_bytes(chosen.model, again.model)
    rows = 16  # what all numbers of rows are multiples of; SparseGPT counts single weights when it is uniform
    assert abs(zeros(uniform.model) - zeros(chosen.model)) <= (rows / 2 if method == "sparsegpt" else 0)
    goals = {layer.name: layer.target_sparsity for layer in chosen.report.layers}
    assert len(set(goals.values())) > 1
    for name, weight in block_weights(chosen.model).items():
        assert 0.45 - 0.02 <= goals[name] <= 0.75 + 0.02
        assert float((weight == 0).double().mean()) == pytest.approx(goals[name], abs=1e-9)


@pytest.mark.parametrize("group", ["row", "layer"])
@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_both_comparison_groups_are_exact(allocation, group):
    recipe = {"sparsity": 0.55, "induction": None, "comparison_group": group}
    uniform, chosen = (
        prune(tiny("gpt2"), "wanda", allocation=name, **recipe).model for name in ("uniform", allocation)
    )
    assert zeros(uniform) == zeros(chosen) and not same_bytes(uniform, chosen)
    counts = {len(set((weight == 0).sum(dim=1).tolist())) for weight in block_weights(chosen).values()}
    assert (counts == {1}) == (group == "row")


@pytest.mark.parametrize("reconstruction", ["exact", "admm"])
@pytest.mark.parametrize("repair", [0, 0.5])
def test_with_reconstruction_too(reconstruction, repair):
    recipe = {"sparsity": 0.6, "induction": None, "reconstruction": reconstruction, "repair": repair}
    uniform, chosen = (prune(tiny("opt"), "wanda", allocation=name, **recipe).model for name in ("uniform", "error"))
    assert zeros(uniform) == zeros(chosen) and not same_bytes(uniform, chosen)


def test_owl_treats_the_layers_of_a_block_alike():
    report = prune(tiny("opt"), "wanda", sparsity=0.5, induction=None, allocation="owl").report
    for block in report.blocks:
        # All rows of a layer have as many zeros: a layer is off by one or two of them.
        goals = [layer.target_sparsity for layer in block.layers]
        assert max(goals) - min(goals) <= 2 / 32
        assert all(0.42 - 2 / 32 <= goal <= 0.58 + 2 / 32 for goal in goals)


def test_patterns_are_mixed_and_keep_no_more_than_the_uniform_one():
    recipe = {"pattern": "4:8", "induction": None}
    uniform, chosen = (prune(tiny("llama"), "wanda", allocation=name, **recipe) for name in ("uniform", "owl"))
    patterns = {layer.name: layer.pattern or "4:8" for layer in chosen.report.layers}
    assert len(set(patterns.values())) > 1
    for name, weight in block_weights(chosen.model).items():
        kept = int(patterns[name].split(":")[0])
        assert 1 <= kept < 8 and int((weight.reshape(-1, 8) != 0).sum(dim=1).max()) == kept
    granularity = max(weight.numel() for weight in block_weights(chosen.model).values()) / 8
    assert 0 <= zeros(chosen.model) - zeros(uniform.model) < granularity
    assert all(layer.pattern is None for layer in uniform.report.layers)
    assert patterns[chosen.report.layers[0].name] in chosen.report.table() and "3:8" in chosen.report.table()


def test_uniform_targets_are_one_target():
    plan = make_plan(SIConfig("wanda", sparsity=0.6), tiny("llama"), write=True)
    assert len(set(plan.targets.values())) == 1


@pytest.mark.parametrize(("method", "allocation"), [("magnitude", "owl"), ("wanda", "error"), ("sparsegpt", "error")])
def test_prune_after_induce_is_prune_of_the_original(method, allocation, tmp_path):
    recipe = {"sparsity": 0.6, "allocation": allocation, "induction": {"epochs": 2, "learning_rate": 0.05}}
    induced = induce(tiny("llama"), method, save_dir=tmp_path, **recipe)
    if method == "magnitude":  # scales went in; those of the others round to 1 here
        assert not same_bytes(induced.model, tiny("llama"))
    at_once, later = prune(tiny("llama"), method, **recipe), prune(str(tmp_path), method, **recipe)
    assert same_bytes(at_once.model, later.model)
    goals = [[layer.target_sparsity for layer in pruner.report.layers] for pruner in (induced, at_once, later)]
    assert goals[0] == goals[1] == goals[2] and len(set(goals[0])) > 1


def test_half_precision_and_layers_left_out():
    chosen = prune(
        tiny("llama", torch.bfloat16), "wanda", sparsity=0.5, induction=None, allocation="error", exclude=["*.0.*"]
    )
    assert {layer.name.split(".")[2] for layer in chosen.report.layers} == {"1"}
    weights = [chosen.model.get_submodule(layer.name).weight for layer in chosen.report.layers]
    assert sum(int((weight == 0).sum()) for weight in weights) == sum(weight.numel() for weight in weights) // 2


def test_the_checkpoint_says_so(tmp_path):
    pruner = prune(tiny("llama"), "wanda", save_dir=tmp_path, sparsity=0.5, induction=None, allocation="error")
    assert json.loads((tmp_path / "config.json").read_text())["sparsity_config"]["allocation"] == "error"
    assert "allocation by errors" in pruner.report.summary()
