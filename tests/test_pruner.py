"""``SIPruner`` on every tiny model: exact sparsity and the same function."""

import pytest
import torch
from support.models import (
    DECLARED,
    FAMILIES,
    METHODS,
    block_weights,
    calibration,
    induce,
    inputs_of,
    logits,
    prune,
    relative_change,
    same_bytes,
    tiny,
    token_windows,
)
from transformers import LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from optimum_si import NumericalError, SIConfig, SIPruner
from optimum_si.models.structure import find_structure


TARGETS = [{"sparsity": 0.5}, {"pattern": "2:4"}]
STRONG = {"epochs": 3, "learning_rate": 0.02}


def assert_sparse(model, target):
    """Every layer has its zeros: one weight of each row may be lost in rounding; every group of a pattern is full."""
    for name, weight in block_weights(model).items():
        assert torch.isfinite(weight).all()
        if "pattern" in target:
            kept, of = map(int, target["pattern"].split(":"))
            assert ((weight.reshape(-1, of) != 0).sum(dim=1) == kept).all(), name
        else:
            zeros = int((weight == 0).sum())
            assert abs(zeros - target["sparsity"] * weight.numel()) <= len(weight) / 2, name


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: next(iter(target)))
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_sparsity_is_exact_in_every_layer_of_every_family(name, method, target):
    for induction in (None, {"epochs": 1}):
        pruner = prune(tiny(name), method, calibration(name, 4), induction=induction, **target)
        assert_sparse(pruner.model, target)
        assert pruner.report.sparsity == pytest.approx(0.5, abs=0.01)
        assert torch.isfinite(logits(pruner.model, inputs_of(name, 2))).all()


@pytest.mark.parametrize("pattern", ["1:2", "4:8", "1:4", "3:4"])
@pytest.mark.parametrize("method", METHODS)
def test_other_patterns_hold_too(method, pattern):
    assert_sparse(prune(tiny("llama"), method, pattern=pattern).model, {"pattern": pattern})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sparsity", [0.0, 0.33, 0.9])
def test_other_sparsities_hold_too(method, sparsity):
    assert_sparse(prune(tiny("opt"), method, sparsity=sparsity).model, {"sparsity": sparsity})


@pytest.mark.parametrize("induction", [None, {"epochs": 1}])
@pytest.mark.parametrize("method", METHODS)
def test_no_sparsity_changes_no_bit(method, induction):
    assert same_bytes(prune(tiny("opt"), method, sparsity=0.0, induction=induction).model, tiny("opt"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_plain_methods_touch_nothing_but_weights_inside_blocks(name, method):
    before, after = tiny(name), prune(tiny(name), method, induction=None).model
    blocks = find_structure(before).blocks
    weights = {f"{view.owner}.weight" for block in blocks for view in block.views.values()}
    for parameter, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[parameter]) == (parameter not in weights), parameter


@pytest.mark.parametrize("name", FAMILIES)
def test_induction_leaves_embeddings_and_heads(name):
    before, after = tiny(name), prune(tiny(name), induction=STRONG).model
    outside = [parameter for parameter in before.state_dict() if not any(
        parameter.startswith(layer.rsplit(".", 1)[0]) for layer in block_weights(before)
    ) and not any(part.isdigit() for part in parameter.split("."))]  # fmt: skip
    assert outside
    for parameter in outside:
        assert torch.equal(before.state_dict()[parameter], after.state_dict()[parameter]), parameter


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_kept_weights_of_plain_methods_are_the_dense_ones(method):
    dense, sparse = block_weights(tiny("llama")), block_weights(prune(tiny("llama"), method, induction=None).model)
    for name, weight in sparse.items():
        assert torch.equal(weight[weight != 0], dense[name][weight != 0])


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bytes(method):
    models = []
    for noise in (1, 2):
        model = tiny("opt")
        torch.manual_seed(noise)
        models.append(prune(model, method, induction=STRONG).model)
    assert same_bytes(*models)


@pytest.mark.parametrize("method", METHODS)
def test_induction_changes_what_is_pruned(method):
    plain, induced = prune(tiny("opt"), method, induction=None), prune(tiny("opt"), method, induction=STRONG)
    assert any(block.choice != "plain" for block in induced.report.blocks)
    masks = [{name: weight == 0 for name, weight in block_weights(run.model).items()} for run in (plain, induced)]
    assert any(not torch.equal(mask, masks[1][name]) for name, mask in masks[0].items())


@pytest.mark.parametrize("task", [prune, induce])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["llama", "opt", "gpt2"])
def test_induction_never_raises_the_held_out_loss(name, method, task):
    for block in task(tiny(name), method, pattern="2:4", induction=STRONG).report.blocks:
        assert 0 <= block.loss_after <= block.loss_before
        assert (block.loss_after < block.loss_before) == (block.choice != "plain")


@pytest.mark.parametrize("name", FAMILIES)
def test_induction_moves_weights_and_keeps_the_function(name):
    inputs = inputs_of(name, 4)
    pruner = induce(tiny(name), "magnitude", pattern="2:4", induction=STRONG)
    assert relative_change(logits(pruner.model, inputs), logits(tiny(name), inputs)) <= 1e-5
    assert not same_bytes(pruner.model, tiny(name))
    assert pruner.model.config.sparsity_config["pruned"] is False


@pytest.mark.parametrize("name", DECLARED)
def test_induction_moves_weights_but_no_bit_of_bf16_logits(name):
    learned = {"epochs": 6, "learning_rate": 0.04}
    model = induce(tiny(name, torch.bfloat16), "magnitude", pattern="2:4", induction=learned).model
    assert not same_bytes(model, tiny(name, torch.bfloat16))
    assert torch.equal(logits(model), logits(tiny(name, torch.bfloat16)))


def test_induction_of_some_layers_keeps_the_function():
    model = induce(tiny("llama"), "magnitude", include="*.down_proj", induction=STRONG).model
    assert not same_bytes(model, tiny("llama")) and torch.equal(logits(model), logits(tiny("llama")))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_models_are_pruned_in_their_own_dtype(name, method, dtype):
    pruner = prune(tiny(name, dtype), method, pattern="2:4")
    assert {parameter.dtype for parameter in pruner.model.parameters()} == {dtype}
    for weight in block_weights(pruner.model).values():
        assert torch.isfinite(weight).all() and ((weight.reshape(-1, 4) != 0).sum(dim=1) <= 2).all()
    assert pruner.report.sparsity == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("induction", [None, {"epochs": 2}])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["llama", "opt", "bert"])
def test_padding_changes_nothing(name, method, induction):
    def padded(rows, missing):
        ids = [torch.cat([row, torch.full((missing,), 3)]) for row in rows]
        return [{"input_ids": row, "attention_mask": (torch.arange(len(row)) < 12).long()} for row in ids]

    # Windows of two lengths in turn, so that each batch pads some of them again.
    rows = token_windows(16, 12)
    alone = prune(tiny(name), method, padded(rows, 0), induction=induction).model
    mixed = [
        example for short, long in zip(padded(rows[::2], 2), padded(rows[1::2], 7), strict=True)
        for example in (short, long)
    ]  # fmt: skip
    weights, expected = (
        block_weights(prune(tiny(name), method, mixed, induction=induction).model),
        block_weights(alone),
    )
    for layer, weight in expected.items():
        torch.testing.assert_close(weights[layer], weight, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_batch_size_changes_no_plain_method(method):
    def found(size):
        return block_weights(prune(tiny("llama"), method, induction=None, calibration={"batch_size": size}).model)

    for layer, weight in found(1).items():
        torch.testing.assert_close(found(16)[layer], weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_of_a_sparse_model_stay_and_count(method):
    model = prune(tiny("llama"), "wanda", sparsity=0.3, induction=None).model
    zeros = {name: weight == 0 for name, weight in block_weights(model).items()}
    again = prune(model, method, sparsity=0.5, comparison_group=None if method == "sparsegpt" else "row")
    for name, weight in block_weights(again.model).items():
        assert not weight[zeros[name]].any()
    assert again.report.sparsity == pytest.approx(0.5, abs=1e-6)


def test_later_blocks_see_what_earlier_ones_became():
    whole, alone = (
        prune(tiny("llama"), "sparsegpt", induction=None, sparsity=0.7, **choice).model
        for choice in ({}, {"include": "*.1.*"})
    )
    name = "model.layers.1.mlp.up_proj"
    assert not torch.equal(block_weights(whole)[name], block_weights(alone)[name])


def test_include_and_exclude_choose_layers():
    pruner = prune(tiny("llama"), include="*.mlp.*", exclude=["*.0.mlp.up_proj"], induction=None)
    chosen = {
        "model.layers.0.mlp.gate_proj",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.1.mlp.down_proj",
    }
    assert {layer.name for layer in pruner.report.layers} == chosen
    dense = block_weights(tiny("llama"))
    for name, weight in block_weights(pruner.model).items():
        assert torch.equal(weight, dense[name]) == (name not in chosen)
        assert (name in pruner.report.dense) == (name not in chosen)


def test_a_block_without_chosen_layers_is_passed_through():
    model = prune(tiny("llama"), include="*.1.*", induction={"epochs": 1}).model
    before = tiny("llama")
    for name, value in before.model.layers[0].state_dict().items():
        assert torch.equal(value, model.model.layers[0].state_dict()[name])


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_new_biases_are_declared_and_load_in_stock_transformers(tmp_path, name):
    pruner = prune(tiny(name), save_dir=tmp_path / "out", induction={"epochs": 1, "new_biases": True})
    loaded = type(pruner.model).from_pretrained(tmp_path / "out")
    assert loaded.config.attention_bias and (name != "llama" or loaded.config.mlp_bias)
    assert loaded.model.layers[0].self_attn.o_proj.bias.any()
    assert (loaded.model.layers[0].mlp.down_proj.bias is None) == (name != "llama")
    assert torch.equal(logits(loaded), logits(pruner.model))
    assert same_bytes(loaded, pruner.model)


def test_new_biases_can_be_trained_like_the_weights_beside_them():
    model = prune(tiny("llama"), induction={"epochs": 1, "new_biases": True}).model
    assert model.model.layers[0].self_attn.q_proj.bias.requires_grad


def test_new_biases_that_no_config_can_declare_are_said_to_be_impossible():
    with pytest.warns(UserWarning, match="declares no biases"):
        prune(tiny("opt"), induction={"epochs": 1, "new_biases": True})


def test_each_module_keeps_its_mode():
    model = tiny("opt").train()
    model.model.decoder.layers[0].fc1.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    prune(model, induction={"epochs": 1})
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_no_hook_and_no_frozen_parameter_is_left_behind():
    model = tiny("opt")
    prune(model, induction={"epochs": 1})
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_learning_leaves_no_gradient_behind(method):
    model = prune(tiny("opt"), method, induction={"epochs": 1}).model
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == []


def test_gradients_that_were_there_are_kept():
    model = tiny("opt")
    model(input_ids=token_windows(2), labels=token_windows(2)).loss.backward()
    before = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    prune(model, induction={"epochs": 1})
    assert all(torch.equal(parameter.grad, before[name]) for name, parameter in model.named_parameters())


def test_it_runs_inside_no_grad():
    with torch.no_grad():
        inside = prune(tiny("opt"), induction=STRONG).model
    assert same_bytes(inside, prune(tiny("opt"), induction=STRONG).model)


def test_a_frozen_model_gives_the_same_bytes():
    frozen = tiny("opt").requires_grad_(False)
    assert same_bytes(prune(frozen, induction=STRONG).model, prune(tiny("opt"), induction=STRONG).model)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recipe", [{"pattern": "2:4"}, {"sparsity": 0.6}], ids=str)
def test_pruning_after_inducing_in_one_session_equals_pruning(method, recipe):
    config = SIConfig(method, induction=STRONG, **recipe)
    pruner = SIPruner(tiny("opt"))
    pruner.induce(config, token_windows(), progress=False)
    pruner.prune(config, token_windows(), progress=False)
    assert same_bytes(pruner.model, SIPruner(tiny("opt")).prune(config, token_windows(), progress=False))


def test_inducing_twice_learns_by_the_second_recipe():
    first, second = (
        SIConfig("wanda", induction={**STRONG, "initialization": "ones"}),
        SIConfig("wanda", induction=STRONG),
    )
    pruner = SIPruner(tiny("opt"))
    pruner.induce(first, token_windows(), progress=False)
    pruner.induce(second, token_windows(), progress=False)
    direct = SIPruner(tiny("opt"))
    direct.induce(second, token_windows(), progress=False)
    assert pruner.scales.tensors.keys() == direct.scales.tensors.keys()
    assert all(torch.equal(value, direct.scales.tensors[key]) for key, value in pruner.scales.tensors.items())


def test_a_run_that_failed_after_inducing_leaves_the_scales_usable():
    pruner = SIPruner(tiny("opt"))
    config = SIConfig("magnitude", pattern="2:4", induction=STRONG)
    pruner.induce(config, token_windows(), progress=False)
    singular = SIConfig("sparsegpt", damping=0.0, induction=STRONG)
    with pytest.raises(NumericalError), pytest.warns(UserWarning, match="anew"):
        pruner.prune(singular, token_windows(1, 4), progress=False)
    pruner.prune(config, token_windows(), progress=False)
    assert same_bytes(pruner.model, SIPruner(tiny("opt")).prune(config, token_windows(), progress=False))


def test_the_report_tells_what_was_pruned():
    pruner = prune(tiny("llama"), "sparsegpt", pattern="2:4", induction=None)
    report = pruner.report
    assert (report.task, report.method, report.target, report.induction) == ("prune", "sparsegpt", "2:4", False)
    assert [layer.name for layer in report.layers] == list(block_weights(pruner.model))
    assert report.zeros == sum(int((weight == 0).sum()) for weight in block_weights(pruner.model).values())
    assert report.calibration_windows == 16 and report.calibration_tokens == 256
    assert report.parameters == pruner.model.num_parameters() and report.dense == []
    for layer in report.layers:
        assert layer.sparsity == layer.target_sparsity == 0.5 and 0 < layer.error_after < 1


def test_reported_errors_are_those_of_the_layers_outputs():
    dense, sparse = block_weights(tiny("llama")), prune(tiny("llama"), induction=None, include="*.0.self_attn.q_proj")
    (layer,) = sparse.report.layers
    inputs = []
    model = tiny("llama")
    model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda module, args, output: inputs.append(args[0]))
    logits(model, token_windows())
    x = inputs[0].reshape(-1, 32)
    difference = dense[layer.name] - block_weights(sparse.model)[layer.name]
    expected = (x @ difference.T).square().sum() / (x @ dense[layer.name].T).square().sum()
    assert layer.error_after == pytest.approx(float(expected), rel=1e-3)


def test_a_loaded_model_is_pruned_in_place():
    model = tiny("llama")
    pruner = SIPruner.from_pretrained(model)
    found = pruner.prune(SIConfig("magnitude", induction=None), token_windows(), progress=False)
    assert found is model and isinstance(found, LlamaForCausalLM) and pruner.tokenizer is None


def test_padding_of_an_encoder_is_not_that_of_the_decoder():
    """Both as long as each other, so that no shape tells them apart."""

    def deep_decoder():
        torch.manual_seed(0)
        sizes = {"vocab_size": 48, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4}
        return T5ForConditionalGeneration(T5Config(**sizes, num_layers=2, num_decoder_layers=3)).eval()

    short = {"input_ids": token_windows(8, 6), "decoder_input_ids": token_windows(8, 16, seed=2)}
    mask = torch.cat([torch.ones(8, 6), torch.zeros(8, 10)], dim=1).long()
    padded = {**short, "input_ids": torch.nn.functional.pad(short["input_ids"], (0, 10)), "attention_mask": mask}
    runs = [prune(deep_decoder(), "wanda", [data], sparsity=0.5, induction=None) for data in (short, padded)]
    assert not runs[0].report.dense
    assert runs[0].report.calibration_tokens == runs[1].report.calibration_tokens == 8 * 6
    for name, weight in block_weights(runs[0].model).items():
        assert torch.equal(weight == 0, block_weights(runs[1].model)[name] == 0), name


@pytest.mark.parametrize("method", METHODS)
def test_zeros_count_also_where_inputs_are_always_zero(method):
    model = tiny("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.input_layernorm.weight[16:24] = 0
            layer.self_attn.q_proj.weight[:, :4] = 0
            layer.self_attn.q_proj.weight[:, 24:] = 0
    pruned = prune(model, method, sparsity=0.5, induction=None).model
    for layer in pruned.model.layers:
        assert (layer.self_attn.q_proj.weight == 0).double().mean() == 0.5


def test_features_are_given_in_the_dtype_of_the_model():
    pruned = prune(tiny("vit", torch.bfloat16), "wanda", calibration("vit"), sparsity=0.5, induction=None)
    assert 0.49 < pruned.report.sparsity < 0.51
