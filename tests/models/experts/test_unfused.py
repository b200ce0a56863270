"""Experts as linear layers: the same function, the same storage, every token where it belongs."""

import pytest
import torch
from support.mixtures import MIXTURES, mixture, mixture_data

from optimum_si import SIConfig, SIPruner
from optimum_si.models.experts.expert import Experts
from optimum_si.models.experts.unfused import experts_as_linears
from optimum_si.models.structure import find_structure


def logits(model, example):
    with torch.no_grad():
        return model(**example).logits


def expert_weights(model):
    """Every matrix of an expert, by name, as linear layers have it."""
    with experts_as_linears(model):
        names = {
            f"{name}.{local}"
            for name, module in model.named_modules()
            if isinstance(module, Experts)
            for local, layer in module.named_modules()
            if isinstance(layer, torch.nn.Linear)
        }
        return {name: model.get_submodule(name).weight.detach().clone() for name in sorted(names)}


@pytest.mark.parametrize("name", MIXTURES)
def test_the_function_stays_the_same(name):
    model, examples = mixture(name, torch.float64), mixture_data(name)
    expected = [logits(model, example) for example in examples]
    with experts_as_linears(model):
        assert any(isinstance(module, Experts) for module in model.modules())
        for example, answer in zip(examples, expected, strict=True):
            torch.testing.assert_close(logits(model, example), answer, rtol=1e-5, atol=1e-6)
    assert not any(isinstance(module, Experts) for module in model.modules())


@pytest.mark.parametrize("name", MIXTURES)
def test_every_weight_of_the_experts_is_a_layer_and_shares_its_storage(name):
    model = mixture(name)
    parameters = {key: value.detach().clone() for key, value in model.named_parameters()}
    with experts_as_linears(model), torch.no_grad():
        for module in model.modules():
            for layer in module.modules() if isinstance(module, Experts) else ():
                if isinstance(layer, torch.nn.Linear):
                    layer.weight.zero_()
    changed = {key for key, value in model.named_parameters() if not torch.equal(value, parameters[key])}
    for key in changed:
        assert not model.get_parameter(key).any(), key
    left = {
        key
        for key in parameters
        if "expert" in key and key.endswith(("proj", "w1", "v1", "w2")) and key not in changed
    }
    assert changed and not left
    assert {key for key, _ in model.named_parameters()} == set(parameters)


@pytest.mark.parametrize("target", [{"sparsity": 0.5}, {"pattern": "2:4"}], ids=["50%", "2:4"])
@pytest.mark.parametrize("name", MIXTURES)
def test_every_expert_is_pruned_and_keeps_its_zeros(name, target, tmp_path):
    model = mixture(name)
    SIPruner(model).prune(
        SIConfig("wanda", induction=None, calibration={"batch_size": 1}, **target),
        mixture_data(name),
        tmp_path / "out",
        progress=False,
    )
    for key, weight in expert_weights(model).items():
        assert float((weight == 0).double().mean()) == 0.5, key
    again = type(model).from_pretrained(tmp_path / "out", dtype="auto")
    for (key, value), (_, other) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(value, other), key


@pytest.mark.parametrize("name", MIXTURES)
def test_routers_stay_dense(name):
    with experts_as_linears(model := mixture(name)):
        names = [view.owner for block in find_structure(model).blocks for view in block.views.values()]
    assert not [key for key in names if key.endswith((".gate", ".router", ".layer", ".classifier"))]


@pytest.mark.parametrize("target", [{"sparsity": 0.5}, {"pattern": "2:4"}], ids=["50%", "2:4"])
@pytest.mark.parametrize("recipe", [{"preset": "fast"}, {"preset": "best"}, {"induction": {"epochs": 1}}], ids=str)
@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.slow
def test_experts_take_every_recipe(name, recipe, target, tmp_path):
    recipe = dict(recipe)
    preset = recipe.pop("preset", None)
    changes = {**target, "calibration": {"batch_size": 2}, **recipe}
    config = SIConfig("wanda", **changes) if preset is None else SIConfig.preset(preset, **changes)
    model = mixture(name)
    pruner = SIPruner(model)
    pruner.prune(config, mixture_data(name, 16), save_dir=tmp_path / "out", progress=False)
    assert abs(pruner.report.sparsity - 0.5) < 0.01
    if "pattern" in target:  # else presets share the zeros out
        for key, weight in expert_weights(model).items():
            assert float((weight == 0).double().mean()) == 0.5, key
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    saved = type(model).from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())


def test_a_model_in_bf16_keeps_the_storage_of_its_experts():
    model = mixture("mixtral", torch.bfloat16)
    place = model.model.layers[0].mlp.experts.down_proj.data_ptr()
    SIPruner(model).prune(SIConfig("wanda", induction=None), mixture_data("mixtral"), progress=False)
    weight = model.model.layers[0].mlp.experts.down_proj
    assert weight.data_ptr() == place and weight.dtype == torch.bfloat16
    assert float((weight == 0).double().mean()) == 0.5


@pytest.mark.parametrize("name", ["mixtral", "llama4", "switch", "jetmoe"])
@pytest.mark.parametrize("induction", [None, {"epochs": 0}], ids=["plain", "si"])
def test_padding_is_sent_to_no_expert(name, induction):
    """Data of one length in one batch, and the same with padding behind it."""
    examples = mixture_data(name)
    padded = [
        {
            **example,
            "input_ids": torch.nn.functional.pad(example["input_ids"], (0, 12), value=5),
            "attention_mask": torch.cat([torch.ones(1, 12), torch.zeros(1, 12)], dim=1).long(),
        }
        for example in examples
    ]
    zeros = []
    for data in (examples, padded):
        model = mixture(name, torch.float64)
        config = SIConfig("wanda", induction=induction, calibration={"batch_size": 4, "min_expert_tokens": 0})
        SIPruner(model).prune(config, data, progress=False)
        zeros.append({key: weight == 0 for key, weight in expert_weights(model).items()})
    for key, mask in zeros[0].items():
        assert torch.equal(mask, zeros[1][key]), key


def test_an_expert_without_tokens_is_named_and_pruned_on_those_of_others():
    model, data = mixture("mixtral", torch.float64), mixture_data("mixtral")
    with torch.no_grad():
        model.model.layers[0].mlp.gate.weight[3] = 0  # never among the best two of four
        model.model.layers[0].mlp.gate.weight[:3].abs_()
    handle = model.model.layers[0].mlp.gate.register_forward_hook(
        lambda module, args, output: tuple(
            value.clamp(max=2) if value.dtype == torch.long else value for value in output
        )
    )
    with pytest.warns(UserWarning, match=r"sent to 1 of 4 experts in model.layers.0.mlp.experts \(3\)"):
        SIPruner(model).prune(SIConfig("wanda", induction=None), data, progress=False)
    handle.remove()
    weights = expert_weights(model)
    for part in ("gate_up_proj", "down_proj"):
        assert float((weights[f"model.layers.0.mlp.experts.3.{part}"] == 0).double().mean()) == 0.5


def test_few_tokens_are_topped_up_from_all_of_the_layer():
    """With as many tokens asked for as there are, every expert of a layer is calibrated on all of them."""
    model, data = mixture("mixtral", torch.float64), mixture_data("mixtral")
    dense = mixture("mixtral", torch.float64)
    seen = []
    dense.model.layers[0].mlp.experts.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    config = SIConfig(
        "wanda", induction=None, include="*experts*", calibration={"min_expert_tokens": 10**6, "batch_size": 1}
    )
    SIPruner(model).prune(config, data, progress=False)
    with experts_as_linears(dense), torch.no_grad():
        before = dense.model.layers[0].mlp.experts.expert(0).gate_up_proj.weight.clone()
    for example in data:
        logits(dense, example)
    with experts_as_linears(model):
        pruned = model.model.layers[0].mlp.experts.expert(0).gate_up_proj.weight.detach().clone()
    with torch.no_grad():
        score = before.abs() * torch.cat(seen).square().sum(0).sqrt()
    kept = torch.ones_like(score).scatter_(1, score.argsort(dim=1, stable=True)[:, :16], 0)
    assert ((pruned != 0) == (kept != 0)).double().mean() > 0.97  # own tokens count twice
