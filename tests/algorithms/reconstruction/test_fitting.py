"""Layers fitted in sequence solve the least squares that design 1.5 states, and keep every promise of a plain run."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import (
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
from transformers import (
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from optimum_si import ConfigurationError, SIConfig
from optimum_si.algorithms.layers import LayerFit
from optimum_si.algorithms.reconstruction import least_squares
from optimum_si.algorithms.reconstruction.fitting import DAMPINGS, LayerFitter, _lowest
from optimum_si.algorithms.refinement import stage
from optimum_si.algorithms.refinement.refine import refine
from optimum_si.models.forward.layer_inputs import collect


WRITERS = ["model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj"]
RECIPE = {"pattern": "2:4", "induction": None, "reconstruction": "exact"}
DAMPING = 0.01


@pytest.fixture
def solved(monkeypatch):
    """Fits that go on until nothing is left to gain: they stop where the rest costs more than it brings."""
    for name, value in {"GAIN": 0.0, "ROUGH": 0.0, "MOST_ITERATIONS": 400}.items():
        monkeypatch.setattr(least_squares, name, value)


def seen(model, windows):
    """Inputs of the two writers, what they write, and the stream after each: tokens as rows."""
    found = {}
    layer = model.model.layers[0]
    modules = {"o": layer.self_attn.o_proj, "down": layer.mlp.down_proj, "norm": layer.post_attention_layernorm}

    def note(name):
        def hook(module, args, output):
            found[name], found[f"{name} out"] = args[0].flatten(0, -2), output.flatten(0, -2)

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    handles.append(layer.register_forward_hook(lambda _, __, output: found.update(stream=output.flatten(0, -2))))
    logits(model, windows)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.usefixtures("solved")
@pytest.mark.parametrize("repair", [0.25, 0.5, 1.0])
def test_each_layer_is_the_direct_solution_for_its_target(repair):
    windows = token_windows(16)
    dense = tiny("llama", torch.float64)
    pruner = prune(tiny("llama", torch.float64), data=windows, include=WRITERS, repair=repair, **RECIPE)
    pruned, dampings = pruner.model, {layer.name: layer.damping for layer in pruner.report.layers}
    in_dense, in_pruned = seen(dense, windows), seen(pruned, windows)
    stream = {"o": "norm", "down": "stream"}
    for name, module in (("o", "self_attn.o_proj"), ("down", "mlp.down_proj")):
        weight = dense.get_submodule(f"model.layers.0.{module}").weight
        found = pruned.get_submodule(f"model.layers.0.{module}").weight
        x_dense, x_pruned = in_dense[name], in_pruned[name]
        beside = [at[stream[name]] - at[f"{name} out"] for at in (in_dense, in_pruned)]
        target = x_pruned @ weight.T + repair * ((x_dense - x_pruned) @ weight.T + beside[0] - beside[1])
        gram = x_pruned.T @ x_pruned / len(x_pruned)
        damping = dampings[f"model.layers.0.{module}"] * gram.diagonal().mean()
        damped = gram + damping * torch.eye(len(gram), dtype=gram.dtype)
        aim = target.T @ x_pruned / len(x_pruned) + damping * weight
        for row in range(len(weight)):
            kept = found[row] != 0
            assert int(kept.sum()) == len(kept) // 2
            solution = torch.linalg.solve(damped[kept][:, kept], aim[row, kept])
            torch.testing.assert_close(found[row, kept], solution, rtol=1e-5, atol=1e-6)


def test_a_bias_is_fitted_with_its_weight():
    # Mean output error is zero only where the bias took up what pruning and earlier layers changed on average.
    windows, names = token_windows(16), ["model.decoder.layers.0.fc1", "model.decoder.layers.0.fc2"]
    dense, model = tiny("opt", torch.float64), tiny("opt", torch.float64)
    prune(model, data=windows, include=names, repair=1.0, **RECIPE)
    outputs = []
    for entry in (dense, model):
        handle = entry.model.decoder.layers[0].register_forward_hook(lambda _, __, out: outputs.append(out))
        logits(entry, windows)
        handle.remove()
    states = [out[0] if isinstance(out, tuple) else out for out in outputs]
    change = (states[1] - states[0]).flatten(0, -2)
    assert change.mean(0).norm() < 1e-9 * states[0].norm() and change.norm() > 0.01


def test_layers_that_nothing_broke_are_fitted_alike_whatever_the_repair():
    names = ["model.layers.0.self_attn.q_proj"]
    models = [
        prune(tiny("llama", torch.float64), include=names, repair=repair, **RECIPE).model
        for repair in (0.01, 0.5, 1.0, "auto")
    ]
    for model in models[1:]:
        for name, weight in block_weights(model).items():
            torch.testing.assert_close(weight, block_weights(models[0])[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "repair"),
    [(name, "auto") for name in ("llama", "opt", "bert", "gpt2", "gpt-neox", "t5", "vit")] + [("llama", 0.5)],
)
def test_every_family_keeps_its_pattern(name, repair):
    model = prune(tiny(name), "sparsegpt" if name == "opt" else "wanda", repair=repair, **RECIPE).model
    for weight in block_weights(model).values():
        assert int((weight.reshape(-1, 4) != 0).sum(1).max()) <= 2
        assert bool(torch.isfinite(weight).all())


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_repair_brings_the_whole_model_closer(name):
    windows = token_windows(64)
    dense = logits(tiny(name), windows)
    losses = [
        relative_change(logits(prune(tiny(name), data=windows, repair=repair, **RECIPE).model, windows), dense)
        for repair in (0, 0.5)
    ]
    assert losses[1] < losses[0]


def test_auto_chooses_layer_by_layer_and_none_does_nothing():
    models = [prune(tiny("llama"), repair=repair, **RECIPE).model for repair in (0, 0.25, 0.5, "auto")]
    for one in range(len(models)):
        for other in range(one):
            assert not same_bytes(models[one], models[other])


def test_the_report_says_how_each_layer_was_fitted():
    report = prune(tiny("llama"), repair="auto", **RECIPE).report
    assert all(0 <= layer.repair <= 1 for layer in report.layers) and len(report.layers) == 14
    assert {round(layer.damping / DAMPING) for layer in report.layers} <= set(DAMPINGS)
    assert prune(tiny("llama"), repair=0, **RECIPE).report.layers[0].repair is None


def test_padding_and_batches_change_nothing():
    model = prune(tiny("llama", torch.float64), data=token_windows(16), repair=0.5, **RECIPE).model
    rows = [{"input_ids": row[None], "attention_mask": torch.ones_like(row)[None]} for row in token_windows(16)]
    padded = [
        {
            "input_ids": torch.cat([torch.zeros(1, 4, dtype=torch.long), row["input_ids"]], 1),
            "attention_mask": torch.cat([torch.zeros(1, 4, dtype=torch.long), row["attention_mask"]], 1),
        }
        for row in rows
    ]
    for data, batch_size in ((padded, 8), (token_windows(16), 1)):
        again = prune(
            tiny("llama", torch.float64), data=data, repair=0.5, calibration={"batch_size": batch_size}, **RECIPE
        ).model
        for name, weight in block_weights(again).items():
            # Padding on the left moves positions, whose rotations are computed in fp32.
            torch.testing.assert_close(weight, block_weights(model)[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_models_are_fitted_in_single_precision(dtype):
    model = prune(tiny("llama", dtype), repair="auto", refine_epochs=1, **RECIPE).model
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    for weight in block_weights(model).values():
        assert int((weight.reshape(-1, 4) != 0).sum(1).max()) <= 2 and bool(torch.isfinite(weight).all())


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_pruning_what_was_induced_is_pruning_the_original(tmp_path, name):
    recipe = {
        "pattern": "2:4",
        "reconstruction": "exact",
        "refine_epochs": 1,
        "induction": {"epochs": 2, "learning_rate": 0.05},
    }
    data = calibration("", 32)
    whole = prune(tiny(name), "magnitude", data, **recipe)
    induce(tiny(name), "magnitude", data, save_dir=tmp_path / "induced", **recipe)
    in_two = prune(str(tmp_path / "induced"), "magnitude", data, **recipe)
    # Without biases fitted weights leave these scales nothing to gain.
    assert name == "llama" or any(block.choice != "plain" for block in whole.report.blocks)
    assert same_bytes(whole.model, in_two.model)


def test_layers_that_read_an_encoder_are_fitted_too():
    # More decoder than encoder blocks: the decoder is pruned, whose cross attention sees other tokens.
    config = T5Config(vocab_size=48, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_decoder_layers=2, num_heads=4)
    model = T5ForConditionalGeneration(config).eval()
    pruned = prune(model, data=calibration("t5"), repair="auto", **RECIPE).model
    weights = {name: weight for name, weight in block_weights(pruned).items() if name.startswith("decoder")}
    assert weights and all(int((weight.reshape(-1, 4) != 0).sum(1).max()) <= 2 for weight in weights.values())


@pytest.mark.parametrize("repair", [0.5, "auto"])
def test_experts_are_fitted_to_the_tokens_that_reach_them(repair):
    torch.manual_seed(0)
    config = SwitchTransformersConfig(
        vocab_size=48, d_model=32, d_kv=8, d_ff=48, num_heads=4, num_experts=6, num_layers=2, num_decoder_layers=1,
        num_sparse_encoder_layers=1, num_sparse_decoder_layers=0, expert_capacity=64,
    )  # fmt: skip
    pruner = prune(
        SwitchTransformersForConditionalGeneration(config).eval(), data=calibration("t5"), repair=repair, **RECIPE
    )
    for weight in block_weights(pruner.model).values():
        assert bool(torch.isfinite(weight).all())
    assert any("expert" in layer.name and layer.sparsity >= 0.5 for layer in pruner.report.layers)


@pytest.mark.usefixtures("solved")
def test_weights_that_are_judged_are_fitted_to_the_training_windows_only(monkeypatch):
    found = []

    def watched(state, *rest):
        calls, dense = state.calls, block_weights(tiny("llama", torch.float64))
        training = [stop for number, stop in enumerate(calls.pruned) if not calls.is_held_out(number)]
        assert 0 < len(training) < len(calls.pruned)
        # What the first layers read is what the block is given, whatever becomes of it later.
        first = [view for view in state.views if view.name.endswith(("q_proj", "k_proj", "v_proj"))]
        (layer_input,), _ = collect(state.block, first, training, calls.tokens, True, False)
        for view in first if not found else ():
            weights = [kind[view.name][0] for kind in (state.without_held_out, state.weights)]
            found.append((dense[view.name], layer_input.moments.gram, state.fits[view.name].damping, *weights))
        return refine(state, *rest)

    monkeypatch.setattr(stage, "refine", watched)
    prune(tiny("llama", torch.float64), data=token_windows(24), repair=0.5, refine_epochs=1, **RECIPE)
    assert len(found) == 3
    for dense, gram, damping, judged, fitted_to_all in found:
        damped = gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        assert torch.equal(judged != 0, fitted_to_all != 0)
        # Nothing is left to gain inside of the mask.
        gradient = ((judged - dense) @ damped) * (judged != 0)
        other = ((fitted_to_all - dense) @ damped) * (judged != 0)
        assert gradient.norm() < 1e-2 * other.norm()


def error_on_held_out(fitter, weight, bias):
    """Squared distance from the dense model's output on held-out windows, up to a constant, by its definition."""
    layer, paired = fitter.layer, fitter.paired.held_out
    moments = paired.moments()
    # Everything as a function of x and 1.
    features = len(moments.mean)
    whole = torch.ones(features + 1, features + 1, dtype=torch.float64)
    whole[:features, :features], whole[:features, -1], whole[-1, :features] = moments.gram, moments.mean, moments.mean
    change = torch.zeros(len(weight), features + 1, dtype=torch.float64)
    change[:, :features] = weight - layer.weight
    change[:, -1] = 0 if bias is None else bias - layer.bias
    aim = [paired.target_shift(layer.weight, center=False), paired.mean_target_shift(layer.weight)[:, None]]
    return float(((change @ whole - 2 * torch.cat(aim, dim=1)) * change).sum())


@pytest.mark.usefixtures("solved")
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_no_repair_that_was_not_chosen_errs_less_on_the_held_out_windows(monkeypatch, name):
    choices = []

    def watched(fitter, repair):
        chosen, mask = choose(fitter, repair), fitter._by_method() != 0
        errors = {fit: error_on_held_out(fitter, *fitter.within(mask, fit)) for fit in [chosen, *all_fits()]}
        choices.append((errors.pop(chosen), min(errors.values()), max(errors.values())))
        return chosen

    choose = LayerFitter.choose
    monkeypatch.setattr(LayerFitter, "choose", watched)
    prune(tiny(name, torch.float64), data=token_windows(24), repair="auto", **RECIPE)
    assert choices
    for chosen, least, most in choices:
        assert chosen <= least + 1e-3 * (most - least) + 1e-12


def all_fits():
    return [LayerFit(step / 4, DAMPING * factor) for step in range(5) for factor in DAMPINGS]


def test_repairs_out_of_range_are_refused():
    for wrong in (-0.1, 1.5, "most", True):
        with pytest.raises(ConfigurationError, match=r"repair=.*'auto'"):
            SIConfig(reconstruction="exact", repair=wrong)


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(-5, 5))
def test_the_best_share_is_the_lowest_point_of_the_parabola(bend, slope, start):
    def error(repair):
        return start + repair * (slope + repair * bend)

    share, least = _lowest(error(0), error(0.5), error(1))
    assert 0 <= share <= 1 and least == pytest.approx(error(share), abs=1e-6)
    assert all(least <= error(step / 100) + 1e-6 for step in range(101))
