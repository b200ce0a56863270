"""Captured calls replay a model block by block, and collecting sees the inputs that blocks see."""

import pytest
import torch
from support.models import FAMILIES, inputs_of, tiny, token_windows

from optimum_si.errors import NumericalError, UnsupportedModelError
from optimum_si.models.forward.calls import block_output
from optimum_si.models.forward.calls import capture as capture_with
from optimum_si.models.forward.layer_inputs import collect
from optimum_si.models.structure import find_structure
from optimum_si.pipeline.block import widened


def capture(model, blocks, batches):
    return capture_with(model, blocks, batches, block_output(model, blocks, batches[0]))


def block_outputs(model, blocks, inputs):
    """What each block gives in an ordinary forward pass."""
    found = []
    hooks = [
        block.module.register_forward_hook(
            lambda module, args, output: found.append(output if isinstance(output, torch.Tensor) else output[0])
        )
        for block in blocks
    ]
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_replayed_calls_give_the_outputs_of_a_forward_pass(name):
    model, inputs = tiny(name), inputs_of(name, 3)
    blocks = find_structure(model).blocks
    expected = block_outputs(model, blocks, inputs)
    (captured,) = capture(model, blocks, [inputs])
    hidden = captured.hidden
    with torch.no_grad():
        for block, call, output in zip(blocks, captured.calls, expected, strict=True):
            hidden = call.run(block.module, hidden)
            torch.testing.assert_close(hidden, output, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "opt", "bert", "gpt2"])
def test_replayed_calls_know_padding(name):
    model = tiny(name)
    mask = (torch.arange(16) < torch.tensor([[16], [9]])).long()
    inputs = {"input_ids": token_windows(2), "attention_mask": mask}
    blocks = find_structure(model).blocks
    (captured,) = capture(model, blocks, [inputs])
    assert torch.equal(captured.mask, mask.bool())
    with torch.no_grad():
        output = captured.calls[0].run(blocks[0].module, captured.hidden)
    torch.testing.assert_close(output[mask.bool()], block_outputs(model, blocks, inputs)[0][mask.bool()])


def test_a_full_mask_is_no_padding():
    model = tiny("llama")
    inputs = {"input_ids": token_windows(2), "attention_mask": torch.ones(2, 16, dtype=torch.long)}
    (captured,) = capture(model, find_structure(model).blocks, [inputs])
    assert captured.mask is None


@pytest.mark.parametrize("name", FAMILIES)
def test_capturing_leaves_the_model_as_it_was(name):
    model, inputs = tiny(name), inputs_of(name, 2)
    forwards = [block.module.__dict__.get("forward") for block in find_structure(model).blocks]
    with torch.no_grad():
        before = model(**inputs).logits
    cache = getattr(model.config, "use_cache", None)
    list(capture(model, find_structure(model).blocks, [inputs]))
    assert [block.module.__dict__.get("forward") for block in find_structure(model).blocks] == forwards
    assert getattr(model.config, "use_cache", None) == cache
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, before)


def test_a_call_is_cast_to_the_dtype_that_the_block_computes_in():
    model = tiny("llama", torch.bfloat16)
    blocks = find_structure(model).blocks
    (captured,) = capture(model, blocks, [{"input_ids": token_windows(2)}])
    with widened(blocks[0].module) as dtype, torch.no_grad():
        assert dtype == torch.float32
        assert captured.calls[0].run(blocks[0].module, captured.hidden.float()).dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_model_that_skips_blocks_is_refused():
    model = tiny("llama")
    blocks = find_structure(model).blocks
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    with pytest.raises(UnsupportedModelError, match="called its 2 blocks in 'model.layers' 1 times"):
        block_output(model, blocks, {"input_ids": token_windows(2)})


def collected(model, inputs, gram=True, block=0):
    structure = find_structure(model)
    (captured,) = capture(model, structure.blocks, [inputs])
    block = structure.blocks[block]
    views = list(block.views.values())
    batches = [(captured.hidden, captured.calls[0], captured.mask, captured.other_mask)]
    return collect(block.module, views, batches, captured.hidden[..., 0].numel(), gram, True), block, captured


def test_layers_that_read_one_activation_share_a_site():
    (sites, _), _, _ = collected(tiny("llama"), {"input_ids": token_windows(2)})
    readers = [[view.name.rsplit(".", 1)[1] for view in site.views] for site in sites]
    assert readers == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]


def test_moments_are_those_of_the_inputs_without_padding():
    model = tiny("opt")
    mask = (torch.arange(16) < torch.tensor([[16], [9]])).long()
    (sites, outputs), block, captured = collected(model, {"input_ids": token_windows(2), "attention_mask": mask})
    tokens = block.module.self_attn_layer_norm(captured.hidden).detach()[mask.bool()].double()
    assert sites[0].moments.count == 25
    torch.testing.assert_close(sites[0].moments.gram, tokens.T @ tokens / 25, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sites[0].sample, tokens.float())
    assert outputs[0].shape == captured.hidden.shape


def test_inputs_with_nan_name_the_layer():
    model = tiny("llama")
    model.model.layers[0].input_layernorm.weight.data[3] = float("nan")
    with pytest.raises(NumericalError, match=r"model\.layers\.0\.self_attn\.q_proj.*NaN"):
        collected(model, {"input_ids": token_windows(2)})
