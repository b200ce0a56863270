"""A block decided layer by layer: what is decided is what is stored, and what later layers see."""

import pytest
import torch
from support.experts import tiny_mixtral
from support.models import block_weights, calibration, prune, relative_change, tiny, token_windows

from optimum_si.algorithms.quantization import stage as rounding
from optimum_si.algorithms.quantization.grids import GRIDS
from optimum_si.algorithms.sequence import decide
from optimum_si.algorithms.sequence.decide import decide_in_sequence
from optimum_si.models.forward.layer_walk import LayerWalk
from optimum_si.models.forward.stops import hidden_of
from optimum_si.pipeline import block as pipeline_block


METHODS = [
    {"method": "wanda"},
    {"method": "sparsegpt"},
    {"method": "wanda", "reconstruction": "exact", "repair": 0},
    {"method": "wanda", "reconstruction": "exact", "repair": "auto"},
]


@pytest.fixture
def states(monkeypatch):
    """What each block of a run is when its stages are through, and what it returns then."""
    found = []
    advance = pipeline_block.BlockPruner._advance

    def watched(self, index, streams, state, dtype):
        with torch.no_grad():
            again = [state.call(stop, state.weights, state.norm_params) for stop in state.calls.pruned]
        found.append((state, again))
        return advance(self, index, streams, state, dtype)

    monkeypatch.setattr(pipeline_block.BlockPruner, "_advance", watched)
    return found


@pytest.mark.parametrize("recipe", METHODS, ids=str)
@pytest.mark.parametrize("name", ["llama", "opt", "bert", "gpt2", "gpt-neox", "t5", "vit"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_outputs_are_those_of_the_block_with_its_weights(states, name, recipe, dtype, tolerance):
    prune(tiny(name, dtype), data=calibration(name, 16), induction=None, **recipe)
    assert states
    for state, again in states:
        assert len(state.outputs) == len(again)
        for output, expected in zip(state.outputs, again, strict=True):
            assert relative_change(hidden_of(output), hidden_of(expected)) < tolerance


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "recipe", [*METHODS, {"method": "wanda", "refine_epochs": 1}, {"method": "wanda", "quantization": "int8"}], ids=str
)
def test_what_follows_sees_what_is_stored(states, dtype, recipe):
    model = tiny("opt", dtype)
    dense_norms = {name: value.clone() for name, value in model.named_parameters() if "layer_norm" in name}
    prune(model, induction=None, **recipe)
    (state, again), stored = states[0], block_weights(model)
    for layer in state.layers:
        weight, bias = state.weights[layer.view.name]
        assert torch.equal(weight, weight.to(dtype).float()) and torch.equal(weight.to(dtype), stored[layer.view.name])
        assert torch.equal(bias, bias.to(dtype).float()) and torch.equal(bias.to(dtype), layer.view.read_bias())
    for name, value in state.norm_params.items():
        assert torch.equal(value, value.to(dtype).float())
        assert torch.equal(value.to(dtype), model.get_parameter(f"{state.name}.{name}"))
    changed = any(not torch.equal(value, model.get_parameter(name)) for name, value in dense_norms.items())
    assert changed == bool(recipe.get("refine_epochs"))
    for output, expected in zip(state.outputs or again, again, strict=True):
        assert relative_change(hidden_of(output), hidden_of(expected)) < 1e-5


@pytest.mark.parametrize("recipe", METHODS, ids=str)
def test_each_activation_is_listed_once_with_its_readers(states, recipe):
    prune(tiny("llama"), induction=None, **recipe)
    readers = [[view.name.rsplit(".", 1)[1] for view in found.views] for found in states[0][0].layer_inputs]
    assert readers == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]


@pytest.mark.parametrize("recipe", METHODS, ids=str)
def test_experts_that_no_token_comes_to_stay_dense(recipe):
    model = tiny_mixtral(experts=16, calls_all=True)
    dense = {name: weight.clone() for name, weight in block_weights(model).items()}
    with pytest.warns(UserWarning, match="never called with the calibration data and stay dense"):
        pruner = prune(model, data=token_windows(2, 3), induction=None, **recipe)
    treated = {layer.name for layer in pruner.report.layers}
    left = {name for name in dense if name not in treated}
    assert left and treated and all("experts" in name for name in left) and left <= set(pruner.report.dense)
    for name, weight in block_weights(model).items():
        assert bool(torch.isfinite(weight).all())
        assert torch.equal(weight, dense[name]) == (name in left)


def test_experts_that_no_token_comes_to_any_more_lie_on_the_grid_too(monkeypatch):
    missing = "model.layers.0.mlp.experts.list.3."

    def walk(block, views, stops, **more):
        return LayerWalk(block, [view for view in views if not view.name.startswith(missing)], stops)

    monkeypatch.setattr(rounding, "LayerWalk", walk)
    model = prune(tiny_mixtral(), data=token_windows(8), induction=None, quantization="int8").model
    weights = block_weights(model)
    assert sum(name.startswith(missing) for name in weights) == 3
    for weight in weights.values():
        assert int((weight == 0).sum()) >= weight.numel() // 2
        torch.testing.assert_close(GRIDS["int8"].nearest(weight), weight)


def test_of_each_block_its_own_layers_are_looked_at(monkeypatch):
    streams = []

    def watched(block, views, stops, dense, stream, further):
        streams.append({name for name, module in block.named_modules() if module in stream})
        return LayerWalk(block, views, stops, dense, stream)

    monkeypatch.setattr(decide, "LayerWalk", watched)
    # Of one shape, so that the blocks differ in nothing but the layers that were chosen.
    chosen = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.o_proj"]
    prune(tiny("llama"), include=chosen, induction=None, reconstruction="exact", repair=0.5)
    assert streams == [set(), {"self_attn.o_proj"}]


def test_an_error_in_the_middle_leaves_the_block_as_it_was(states):
    prune(tiny("llama"), induction=None)
    state = states[0][0]
    before = [(dict(module._forward_pre_hooks), module.__dict__.get("forward")) for module in state.block.modules()]

    def fail(layer, paired, caution):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decide_in_sequence(state, fail, True, gram=False, paired=False)
    after = [(dict(module._forward_pre_hooks), module.__dict__.get("forward")) for module in state.block.modules()]
    assert after == before
