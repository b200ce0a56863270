"""What an error of a layer's output costs: against the answers of a model whose layer really errs."""

import pytest
import torch
from support.models import FAMILIES, block_weights, calibration, inputs_of, prune, same_bytes, tiny
from torch.nn.functional import kl_div

from optimum_si.algorithms.allocation import sensitivity as module
from optimum_si.algorithms.allocation.sensitivity import sensitivities
from optimum_si.models.forward.modes import evaluation_mode, without_cache
from optimum_si.models.structure import find_structure


def measured(name, seed=0, count=16, dtype=torch.float32, model=None):
    model = model or tiny(name, dtype)
    structure = find_structure(model)
    views = [view for block in structure.blocks for view in block.views.values()]
    with evaluation_mode(model), without_cache(model), torch.no_grad():
        found = sensitivities(
            model, [block.module for block in structure.blocks], views, calibration(name, count), seed
        )
    return model, views, found


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing(side):
    model = tiny("llama")
    structure = find_structure(model)
    views, blocks = [*structure.blocks[1].views.values()], [block.module for block in structure.blocks]
    plain, padded = calibration("", 6), []
    for example, more in zip(plain, range(6), strict=True):
        tokens, filling = example["input_ids"], torch.full((1, more), 7)
        real = torch.ones_like(tokens), torch.zeros_like(filling)
        order = slice(None) if side == "right" else slice(None, None, -1)
        padded.append(
            {
                "input_ids": torch.cat((tokens, filling)[order], dim=1),
                "attention_mask": torch.cat(real[order], dim=1),
            }
        )
    with evaluation_mode(model), without_cache(model), torch.no_grad():
        first, second = (sensitivities(model, blocks, views, examples, 0) for examples in (plain, padded))
    for view in views:
        torch.testing.assert_close(first[view.name].curvature, second[view.name].curvature)
        torch.testing.assert_close(first[view.name].moments.diagonal, second[view.name].moments.diagonal)


@torch.no_grad()
def divergence_of_an_error(model, view, inputs, size):
    """Sum over tokens of KL(model || model whose layer errs by random values, ``size`` [d_out] in the mean)."""
    expected, total, draws = model(**inputs).logits.log_softmax(-1), 0.0, 8
    for draw in range(draws):
        generator = torch.Generator().manual_seed(draw)

        def err(layer, args, output, generator=generator):
            return output + size * torch.randn(output.shape, generator=generator, dtype=output.dtype)

        hook = view.module.register_forward_hook(err)
        found = model(**inputs).logits.log_softmax(-1)
        hook.remove()
        total += float(kl_div(found, expected, log_target=True, reduction="sum"))
    return total / draws


@pytest.mark.parametrize("name", ["llama", "opt", "bert"])
def test_it_tells_what_the_answers_move_by_when_a_layer_errs(name):
    model, views, found = measured(name, dtype=torch.float64)
    inputs = inputs_of("")
    for view in views:
        curvature = found[view.name].curvature
        relative = (curvature / curvature.mean()).clamp_min(1e-3)
        # Alike in what each output costs, so that all of them are seen.
        size = 1e-4 * relative.rsqrt()
        expected = float((curvature * size.square()).sum()) / 2
        assert divergence_of_an_error(model, view, inputs, size) == pytest.approx(expected, rel=0.4), view.name


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_them_in_the_layers_that_data_reaches(name):
    model, views, found = measured(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert {view.name for view in views} == found.keys()
    for view in views:
        assert found[view.name].curvature.shape == (view.shape[0],)
        assert found[view.name].moments.diagonal.shape == (view.shape[1],)
        assert bool(torch.isfinite(found[view.name].curvature).all()) and float(found[view.name].curvature.sum()) > 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())


def test_moments_are_those_of_the_inputs_and_the_same_seed_gives_the_same():
    _, views, first = measured("llama")
    _, _, again = measured("llama")
    model, _, other = measured("llama", seed=1)
    assert all(torch.equal(first[view.name].curvature, again[view.name].curvature) for view in views)
    assert not any(torch.equal(first[view.name].curvature, other[view.name].curvature) for view in views)
    read = []
    layer = model.get_submodule("model.layers.1.mlp.down_proj")
    with torch.no_grad(), layer.register_forward_hook(lambda layer, args, output: read.append(args[0])):
        model(**inputs_of(""))
    expected = read[0].flatten(0, -2).double().square().mean(dim=0)
    torch.testing.assert_close(other["model.layers.1.mlp.down_proj"].moments.diagonal, expected, atol=1e-5, rtol=5e-2)


def test_half_precision_tells_the_same():
    _, views, exact = measured("llama")
    for dtype in (torch.float16, torch.bfloat16):
        model, _, found = measured("llama", dtype=dtype)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        for view in views:
            ratio = found[view.name].curvature.sum() / exact[view.name].curvature.sum()
            assert 0.5 < float(ratio) < 2, view.name  # other draws, too


def test_more_data_than_is_looked_at_is_sampled_evenly(monkeypatch):
    monkeypatch.setattr(module, "TOKENS", 64)
    seen = []
    model = tiny("llama")
    hook = model.model.embed_tokens.register_forward_hook(lambda layer, args, output: seen.append(args[0].clone()))
    measured("llama", model=model)
    hook.remove()
    windows = torch.cat([example["input_ids"] for example in calibration("")])[::4]
    assert {tuple(row.tolist()) for batch in seen for row in batch} == {tuple(row.tolist()) for row in windows}


@pytest.mark.parametrize(
    ("method", "recipe"),
    [
        ("wanda", {"comparison_group": "layer"}),
        ("sparsegpt", {}),
        ("wanda", {"comparison_group": "layer", "reconstruction": "admm", "repair": 0.5}),
        ("wanda", {"comparison_group": "layer", "reconstruction": "admm", "repair": 0}),
    ],
)
def test_outputs_that_hardly_matter_and_layers_of_such_lose_most(method, recipe):
    def model():
        found = tiny("llama")
        with torch.no_grad():
            found.model.layers[0].mlp.down_proj.weight[:, ::2] *= 0.05  # rows of gate and up that hardly matter
            found.model.layers[1].mlp.down_proj.weight *= 0.05  # a layer whose inputs and outputs do
        return found

    recipe = {"sparsity": 0.5, "induction": None, **recipe}
    uniform, chosen = (prune(model(), method, allocation=name, **recipe) for name in ("uniform", "error"))
    weights, plain = block_weights(chosen.model), block_weights(uniform.model)
    assert not same_bytes(chosen.model, uniform.model)
    goals = {layer.name: layer.target_sparsity for layer in chosen.report.layers}
    for kind in ("gate_proj", "up_proj"):
        assert goals[f"model.layers.1.mlp.{kind}"] > 0.6 > goals[f"model.layers.0.mlp.{kind}"]
        name = f"model.layers.0.mlp.{kind}"
        zeros, before = (found[name].eq(0).float().mean(dim=1) for found in (weights, plain))
        assert zeros[::2].mean() - zeros[1::2].mean() > 0.2 + (before[::2].mean() - before[1::2].mean())


def test_a_model_that_works_in_place_is_left_as_it_is():
    layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(inplace=True), torch.nn.Linear(4, 2))
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    expected, watched = layers(values), [module._Watched(), module._Watched()]
    for layer, seen in zip((layers[0], layers[2]), watched, strict=True):
        layer.register_forward_hook(seen.called)
    layers.requires_grad_(False)
    found = layers(values)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    torch.testing.assert_close(watched[1].squares, torch.full((2,), 5.0, dtype=torch.float64))
    alive = (torch.nn.functional.linear(values, layers[0].weight, layers[0].bias) > 0).double()
    slope = layers[2].weight.double().sum(dim=0)
    torch.testing.assert_close(watched[0].squares, (alive * slope).square().sum(dim=0), atol=1e-6, rtol=1e-5)


def test_layers_that_answers_do_not_depend_on_have_none():
    model = tiny("llama")
    structure = find_structure(model)
    with evaluation_mode(model), without_cache(model), torch.no_grad():
        assert sensitivities(model, [block.module for block in structure.blocks], [], calibration(""), 0) == {}
