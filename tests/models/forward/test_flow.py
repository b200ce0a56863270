"""What flows inside a block is found in any architecture: who reads one activation, who writes to the stream."""

import pytest
import torch
from support.forward import stopped_at
from support.models import FAMILIES, inputs_of, relative_change, tiny

from optimum_si.models.forward.flow import BLOCK_INPUT, flow_of
from optimum_si.models.forward.stops import hidden_of
from optimum_si.models.norms import is_norm
from optimum_si.models.structure import find_structure


INPUT = ("", "input")
#: For the writers of a block, where the stream before them can be read, by names inside the block.
STREAM = {
    "llama": {"self_attn.o_proj": [INPUT], "mlp.down_proj": [("post_attention_layernorm", "input")]},
    "qwen3": {"self_attn.o_proj": [INPUT], "mlp.down_proj": [("post_attention_layernorm", "input")]},
    "opt": {"self_attn.out_proj": [INPUT], "fc2": [("final_layer_norm", "input")]},
    "opt-post-norm": {"self_attn.out_proj": [INPUT], "fc2": [("self_attn_layer_norm", "output")]},
    "bert": {"attention.output.dense": [INPUT], "output.dense": [("attention.output.LayerNorm", "output")]},
    "gpt2": {"attn.c_proj": [INPUT], "mlp.c_proj": [("ln_2", "input")]},
    "t5": {"layer.0.SelfAttention.o": [INPUT], "layer.1.DenseReluDense.wo": [("layer.1.layer_norm", "input")]},
    "vit": {"attention.o_proj": [INPUT], "mlp.fc2": [("layernorm_after", "input")]},
    # Attention and MLP side by side: the stream is read when both have written.
    "gpt-neox": {"attention.dense": [INPUT], "mlp.dense_4h_to_h": [INPUT, ("attention.dense", "output")]},
}
READERS = {
    "llama": [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]],
    "opt": [["q_proj", "k_proj", "v_proj"], ["out_proj"], ["fc1"], ["fc2"]],
    "gpt2": [["q", "k", "v"], ["c_proj"], ["c_fc"], ["c_proj"]],
}


def found(name, dtype=torch.float32, index=1):
    """A block, its stop and what flows in it."""
    inputs = {key: value[:2] for key, value in inputs_of(name).items()}
    with stopped_at(tiny(name, dtype), inputs, index) as (block, stop):
        return block, stop, flow_of(block.module, stop, [view.module for view in block.views.values()])


def names_in(block):
    return {module: name for name, module in block.module.named_modules()} | {None: ""}


@pytest.mark.parametrize("name", STREAM)
def test_writers_and_where_the_stream_is_before_them_are_found(name):
    block, _, flow = found(name)
    names = names_in(block)
    stream = {
        names[writer]: [(names[point.module], point.side) for point in points]
        for writer, points in flow.stream.items()
    }
    assert stream == STREAM[name]


@pytest.mark.parametrize("name", STREAM)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_the_stream_before_a_writer_and_what_it_writes_are_the_stream_after_it(name, dtype, tolerance):
    block, stop, flow = found(name, dtype)
    seen = {BLOCK_INPUT: stop.hidden}

    def note(module, args, output):
        # OPT's MLP sees the tokens of all examples in one row.
        if output.numel() == stop.hidden.numel():
            seen[module, "output"] = output.reshape(stop.hidden.shape)
        if args[0].numel() == stop.hidden.numel():
            seen[module, "input"] = args[0].reshape(stop.hidden.shape)

    watched = [module for module in block.module.modules() if is_norm(module) or module in flow.stream]
    handles = [module.register_forward_hook(note) for module in watched]
    with torch.no_grad():
        end = hidden_of(stop.call(block.module))
    for handle in handles:
        handle.remove()
    norms = [module for module in block.module.modules() if is_norm(module)]
    # The stream is read where it ends, by a norm, or by a writer beside this one.
    after = [end, *(value for (module, side), value in seen.items() if side == "input" and module in norms)]
    before = {writer: sum(seen[point] for point in points) for writer, points in flow.stream.items()}
    assert before
    for writer, stream in before.items():
        total = stream + seen[writer, "output"]
        beside = [other for writer_beside, other in before.items() if writer_beside is not writer]
        assert min(relative_change(total, value) for value in [*after, *beside]) < tolerance


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_reads_one_activation(name):
    block, _, flow = found(name)
    layers = [view.module for view in block.views.values()]
    reading = [module for group in flow.readers for module in group]
    assert len(reading) == len(set(reading)) and set(reading) == set(layers)
    views = list(block.views.values())
    assert sorted(view.name for group in flow.among(views) for view in group) == sorted(view.name for view in views)
    if name in READERS:
        assert [
            [view.name.rsplit(".", 1)[1] for view in sorted(group, key=views.index)] for group in flow.among(views)
        ] == [sorted(group, key=[view.name.rsplit(".", 1)[1] for view in views].index) for group in READERS[name]]


def test_among_some_weights_those_that_were_not_reached_stand_alone():
    model = tiny("llama")
    one, other = find_structure(model).blocks
    with stopped_at(model, inputs_of("llama", 2)) as (block, stop):
        flow = flow_of(
            block.module, stop, [one.views["self_attn.q_proj"].module, one.views["self_attn.v_proj"].module]
        )
    views = [one.views[f"self_attn.{name}_proj"] for name in "qkv"]
    assert flow.among(views) == [[views[0], views[2]], [views[1]]]
    assert flow.among(views[1:]) == [[views[2]], [views[1]]]
    assert flow.among([*other.views.values()][:1]) == [[*other.views.values()][:1]]


@pytest.mark.parametrize("name", STREAM)
def test_what_was_found_in_one_block_is_so_in_another_of_its_make(name):
    block, _, flow = found(name, index=0)
    # Of the same model: T5's first block alone has a bias of positions.
    other, _, own = found(name, index=1)
    there = flow.in_copy(block.module, other.module)
    assert there.readers == own.readers and there.stream == own.stream


def test_the_probe_leaves_no_hook_behind_and_no_trace():
    model = tiny("llama")
    with stopped_at(model, inputs_of("llama")) as (block, stop):
        before = stop.run(block.module)
        flow_of(block.module, stop, [view.module for view in block.views.values()])
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert torch.equal(before, stop.run(block.module))


def test_hooks_are_gone_after_an_error_too():
    model = tiny("llama")
    with stopped_at(model, inputs_of("llama")) as (block, stop):
        block.module.mlp.down_proj.weight.data = torch.zeros(3, 3)
        with pytest.raises(RuntimeError):
            flow_of(block.module, stop, [view.module for view in block.views.values()])
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
