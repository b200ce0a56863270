"""The option puts the saved weights of any recipe on the grid of an export, and the export then loses little."""

import json
import warnings

import pytest
import torch
from support.models import (
    METHODS,
    block_weights,
    calibration,
    induce,
    logits,
    prune,
    relative_change,
    same_bytes,
    tiny,
    token_windows,
)
from support.onnx_models import causal

from optimum_si import ORTSIModelForCausalLM, SIPruner
from optimum_si.algorithms.quantization.grids import GRIDS
from optimum_si.models.structure import find_structure
from optimum_si.onnx import export


def on_grid(model, values: str) -> bool:
    return all(torch.equal(GRIDS[values].nearest(weight), weight) for weight in block_weights(model).values())


@pytest.mark.parametrize("values", GRIDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_on_the_grid_with_its_own_zeros(method, values):
    recipe = {"method": method, "pattern": "2:4", "induction": None}
    plain = prune(tiny("llama"), **recipe).model
    model = prune(tiny("llama"), **recipe, quantization=values).model
    assert on_grid(model, values) and not on_grid(plain, values)
    # Later blocks see other inputs, so only the masks of the first are the same.
    first, masks = find_structure(plain).blocks[0].name, {name: w != 0 for name, w in block_weights(plain).items()}
    for name, weight in block_weights(model).items():
        assert int((weight != 0).reshape(len(weight), -1, 4).sum(dim=2).max()) <= 2
        if name.startswith(first):
            assert not weight[~masks[name]].any()


@pytest.mark.parametrize(
    "recipe",
    [
        {"reconstruction": "exact", "repair": 0},
        {"reconstruction": "admm", "repair": 0},
        {"reconstruction": "exact", "repair": "auto"},
        {"reconstruction": "none", "refine_epochs": 1},
        {"reconstruction": "exact", "repair": 0.5, "refine_epochs": 1, "induction": {"epochs": 1}},
    ],
    ids=lambda recipe: " ".join(f"{value}" for value in recipe.values()),
)
@pytest.mark.parametrize("name", ["llama-tied-biased", "opt"])
def test_it_composes_with_reconstruction_and_refinement(name, recipe):
    recipe = {"induction": None, **recipe}
    assert on_grid(prune(tiny(name), **recipe, quantization="int4").model, "int4")


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox", "bert", "t5", "vit", "qwen3"])
def test_fused_and_transposed_weights_lie_on_the_grid_too(name):
    assert on_grid(prune(tiny(name), induction=None, quantization="int8").model, "int8")


@pytest.mark.parametrize("values", GRIDS)
@pytest.mark.parametrize("name", ["llama", "opt", "bert-relu"])
def test_absorbed_scales_leave_the_saved_weights_on_the_grid(name, values, tmp_path):
    induction = {"epochs": 1, "learning_rate": 0.5}
    pruner = prune(tiny(name), "magnitude", save_dir=tmp_path / "model", induction=induction, quantization=values)
    assert any(layer.absorbed for block in pruner.report.blocks for layer in block.layers)
    saved = SIPruner.from_pretrained(str(tmp_path / "model")).model
    assert same_bytes(saved, pruner.model) and on_grid(saved, values)


def test_biases_that_may_move_take_up_the_mean_of_the_error():
    recipe = {"reconstruction": "exact", "repair": 1.0, "induction": None}
    model, plain = (prune(tiny("opt"), **recipe, quantization=values).model for values in ("int4", "none"))
    names = [name for name, _ in plain.named_parameters() if name.endswith("layers.0.fc1.bias")]
    for name in names:
        assert not torch.equal(model.get_parameter(name), plain.get_parameter(name))
    assert names


@pytest.mark.parametrize("values", GRIDS)
def test_half_precision_keeps_the_codes(values):
    model = prune(tiny("llama", torch.bfloat16), induction=None, quantization=values).model
    for weight in block_weights(model).values():
        wide = weight.float()
        # bf16 rounds by up to 2 ** -9, scales included; half a step of the grid would be 2 ** -7 at its end.
        torch.testing.assert_close(GRIDS[values].nearest(wide), wide, rtol=2**-7, atol=0)


def test_the_same_seed_gives_the_same_bytes():
    runs = [prune(tiny("llama"), quantization="int4").model for _ in range(2)]
    assert same_bytes(*runs)


def test_inducing_ignores_it():
    models = [induce(tiny("llama"), "magnitude", quantization=values).model for values in ("none", "int4")]
    assert same_bytes(*models)


def test_the_checkpoint_and_the_report_tell(tmp_path):
    pruners = [
        prune(tiny("llama"), save_dir=tmp_path / values, induction=None, quantization=values)
        for values in ("none", "int4")
    ]
    recorded = [json.loads((tmp_path / values / "config.json").read_text()) for values in ("none", "int4")]
    assert [entry["sparsity_config"]["quantization"] for entry in recorded] == ["none", "int4"]
    plain, rounded = (pruner.report.blocks[0].layers[0].error_after for pruner in pruners)
    assert plain < rounded


@pytest.mark.slow
@pytest.mark.usefixtures("trace_cache")
@pytest.mark.parametrize("values", GRIDS)
def test_an_export_is_closer_to_its_checkpoint_than_without(values, tmp_path):
    distances = []
    for quantization in ("none", values):
        model = causal("llama-shallow")
        # The head is no part of any block, and is rounded by both exports: here it costs nothing. Its rows are no
        # longer than a group of int4, so that what is on this grid is on that of int8 too.
        head = model.lm_head.weight
        head.data = GRIDS["int4"].nearest(head.data)
        assert torch.equal(GRIDS[values].nearest(head), head)
        model = prune(model, "wanda", calibration("llama"), pattern="2:4", induction=None, quantization=quantization)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save_pretrained(tmp_path / quantization)
            export(tmp_path / quantization, tmp_path / f"{quantization}-onnx", values=values)
        exported = ORTSIModelForCausalLM.from_pretrained(tmp_path / f"{quantization}-onnx", verify=False)
        ids = token_windows(8)
        distances.append(relative_change(exported(ids).logits, logits(model.model, ids)))
    # In int8 activations, which are rounded in both, are most of the distance.
    assert distances[1] < (0.5 if values == "int4" else 0.9) * distances[0]
