"""Layers that write to the residual stream are found by what flows, in any architecture."""

import pytest
import torch
from support.forward import stopped_at
from support.models import inputs_of, tiny

from optimum_si.models.forward.residual_stream import OUTPUT, stream_readouts


#: The writers of a block and the place where the stream can be read first, by names inside the block.
EXPECTED = {
    "llama": {"self_attn.o_proj": "post_attention_layernorm", "mlp.down_proj": OUTPUT},
    "qwen3": {"self_attn.o_proj": "post_attention_layernorm", "mlp.down_proj": OUTPUT},
    "opt": {"self_attn.out_proj": "final_layer_norm", "fc2": OUTPUT},
    "opt-post-norm": {"self_attn.out_proj": "self_attn_layer_norm", "fc2": "final_layer_norm"},
    "bert": {"attention.output.dense": "attention.output.LayerNorm", "output.dense": "output.LayerNorm"},
    "gpt2": {"attn.c_proj": "ln_2", "mlp.c_proj": OUTPUT},
    # Attention and MLP side by side: only the output of the block holds both.
    "gpt-neox": {"attention.dense": OUTPUT, "mlp.dense_4h_to_h": OUTPUT},
}


def places(name, index=1):
    inputs = {key: value[:2] for key, value in inputs_of(name).items()}
    with stopped_at(tiny(name), inputs, index) as (block, stop):
        found = stream_readouts(block.module, stop, block.views.values())
        names = {module: name for name, module in block.module.named_modules()}
    return {
        name.removeprefix(f"{block.name}."): place if isinstance(place, str) else names[place]
        for name, place in found.items()
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_writers_and_the_place_to_read_the_stream_are_found(name):
    assert places(name) == EXPECTED[name]


def test_the_probe_leaves_no_hook_behind():
    model = tiny("llama")
    with stopped_at(model, inputs_of("llama")) as (block, stop):
        before = stop.run(block.module)
        stream_readouts(block.module, stop, block.views.values())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert torch.equal(before, stop.run(block.module))
