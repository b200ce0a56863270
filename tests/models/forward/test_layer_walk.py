"""Through a block layer by layer: each is reached once, in forward order, on what the layers before it give now."""

from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field

import pytest
import torch
from support.experts import tiny_mixtral
from support.forward import forward_order
from support.models import FAMILIES, inputs_of, relative_change, tiny, token_windows

from optimum_si.models.forward.flow import flow_of
from optimum_si.models.forward.layer_walk import LayerWalk
from optimum_si.models.forward.modes import without_cache
from optimum_si.models.forward.runs import suspending
from optimum_si.models.forward.stops import hidden_of
from optimum_si.models.forward.streams import Streams
from optimum_si.models.structure import find_structure


PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["fp32", "fp64"]
)


@dataclass
class Walked:
    """A walk through all blocks of a model, whose own weights stay dense.

    Args:
        pruned: a copy of the model with the weights that were decided.
        order: layers of the copy in the order they were reached.
        outputs, dense_outputs: of the last block.
    """

    pruned: torch.nn.Module
    order: list[str] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)
    dense_outputs: list[torch.Tensor] = field(default_factory=list)


def batches_of(name, count=4, size=2):
    inputs = inputs_of(name, count * size)
    return [
        {key: value[first : first + size] for key, value in inputs.items()} for first in range(0, count * size, size)
    ]


def halved(view):
    """Half of the weights and a bias that differs from the dense one."""
    weight, bias = view.read(), view.read_bias()
    kept = weight.abs() > weight.abs().median(dim=1, keepdim=True).values
    return weight * kept, None if bias is None else bias + 0.1


@contextmanager
def walks(model, batches, dense=True):
    """For each block in turn its walk; the streams go on when the next one is asked for."""
    blocks = find_structure(model).blocks
    with torch.no_grad(), without_cache(model), suspending([block.module for block in blocks]):
        streams = Streams(model, blocks, batches, dense)

        def each():
            for index, block in enumerate(blocks):
                views, stops = list(block.views.values()), list(streams.pruned.stops(index).values())
                beside = list(streams.dense.stops(index).values()) if dense else None
                stream = flow_of(block.module, stops[0], [view.module for view in views]).stream
                walk = LayerWalk(block.module, views, stops, beside, stream)
                yield block, walk
                streams.pruned.advance(index, dict(enumerate(walk.outputs)))
                if dense:
                    streams.dense.advance(index, dict(enumerate(walk.dense_outputs)))

        try:
            yield each()
        finally:
            streams.close()


def walk_through(model, batches, look=lambda *_: None, dense=True):
    """Halve every layer; ``look(walked, block, walk, reached)`` sees each before it is decided."""
    walked = Walked(deepcopy(model))
    copies = {view.name: view for block in find_structure(walked.pruned).blocks for view in block.views.values()}
    with walks(model, batches, dense) as found:
        for block, walk in found:
            for reached in walk:
                look(walked, block, walk, reached)
                for view in reached.views:
                    walked.order.append(view.name)
                    walk.weights[view.name] = weight, bias = halved(view)
                    copies[view.name].write(weight)
                    if bias is not None:
                        copies[view.name].write_bias(bias)
            walked.outputs = [hidden_of(output) for output in walk.outputs]
            walked.dense_outputs = [hidden_of(output) for output in walk.dense_outputs]
    return walked


@torch.no_grad()
def read_by(model, name, batches):
    """What a layer reads in forward passes of the whole model; of batches that call it, by their number."""
    seen = {}
    for number, batch in enumerate(batches):
        handle = model.get_submodule(name).register_forward_pre_hook(
            lambda module, args, number=number: seen.setdefault(number, args[0])
        )
        with without_cache(model):
            model(**batch)
        handle.remove()
    return seen


@torch.no_grad()
def outputs_of(model, name, batches):
    """What a block gives in forward passes of the whole model, for each batch."""
    found = []
    handle = model.get_submodule(name).register_forward_hook(lambda *args: found.append(hidden_of(args[2])))
    with without_cache(model):
        for batch in batches:
            model(**batch)
    handle.remove()
    return found


def last_outputs(model, batches):
    return outputs_of(model, find_structure(model).blocks[-1].name, batches)


@pytest.mark.parametrize("name", FAMILIES)
@PRECISIONS
def test_layers_read_what_a_model_gives_them_whose_earlier_layers_are_pruned(name, dtype, tolerance):
    model, batches = tiny(name, dtype), batches_of(name)

    def look(walked, block, walk, reached):
        layer = reached.views[0].owner
        for at, found in (("values", walked.pruned), ("dense", model)):
            expected = read_by(found, layer, batches)
            assert sorted(expected) == [call.batch for call in reached.calls] == list(range(len(batches)))
            for call in reached.calls:
                assert relative_change(getattr(call, at), expected[call.batch]) < tolerance

    walk_through(model, batches, look)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_is_reached_once_in_forward_order(name):
    model, batches = tiny(name), batches_of(name)
    walked = walk_through(model, batches)
    views = {}
    for view in (view for block in find_structure(model).blocks for view in block.views.values()):
        views.setdefault(view.module, []).append(view.name)
    assert walked.order == [name for module in forward_order(model, views, batches) for name in views[module]]
    assert sorted(walked.order) == sorted(name for names in views.values() for name in names)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dense", [True, False], ids=["beside dense", "alone"])
@PRECISIONS
def test_outputs_are_those_of_the_decided_weights(name, dense, dtype, tolerance):
    model, batches = tiny(name, dtype), batches_of(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    walked = walk_through(model, batches, dense=dense)
    for found, other in ((walked.outputs, walked.pruned), (walked.dense_outputs, model)):
        expected = last_outputs(other, batches)
        for output, whole in zip(found, expected, strict=dense or found is walked.outputs):
            assert relative_change(output, whole) < tolerance
    assert dense or not walked.dense_outputs
    # What is decided is nobody's weight yet.
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_without_the_dense_model_nothing_is_known_of_it():
    def look(walked, block, walk, reached):
        assert all(call.dense is None and call.stream_error is None for call in reached.calls)

    walk_through(tiny("llama"), batches_of("llama"), look, dense=False)


@pytest.mark.parametrize("name", ["llama", "opt", "bert", "gpt2"])
@pytest.mark.parametrize("dense", [True, False], ids=["beside dense", "alone"])
def test_padding_changes_nothing(name, dense):
    model, tokens = tiny(name, torch.float64), token_windows(3)
    lengths = (16, 9, 4)
    padded = [{"input_ids": tokens, "attention_mask": (torch.arange(16) < torch.tensor(lengths)[:, None]).long()}]
    rows = [{"input_ids": row[None, :length]} for row, length in zip(tokens, lengths, strict=True)]
    alone, together = [], []

    def joined(calls, what):
        values = [getattr(call, what) for call in calls]
        if values[0] is None:
            return None
        kept = [
            value.flatten(0, -2) if call.mask is None else value.flatten(0, -2)[call.mask.flatten()]
            for value, call in zip(values, calls, strict=True)
        ]
        return torch.cat(kept)

    for data, found in ((rows, alone), (padded, together)):

        def look(walked, block, walk, reached, found=found):
            found.append([joined(reached.calls, what) for what in ("values", "dense", "stream_error")])

        walk_through(model, data, look, dense)
    assert len(alone) == len(together) > 4
    for first, second in zip(alone, together, strict=True):
        for one, other in zip(first, second, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-11)


SHARED = {
    "llama": [{"q_proj", "k_proj", "v_proj"}, {"o_proj"}, {"gate_proj", "up_proj"}, {"down_proj"}],
    "opt": [{"q_proj", "k_proj", "v_proj"}, {"out_proj"}, {"fc1"}, {"fc2"}],
    "bert": [{"query", "key", "value"}, {"dense"}, {"dense"}, {"dense"}],
    "gpt2": [{"q", "k", "v"}, {"c_proj"}, {"c_fc"}, {"c_proj"}],
    "gpt-neox": [{"q", "k", "v"}, {"dense"}, {"dense_h_to_4h"}, {"dense_4h_to_h"}],
}


@pytest.mark.parametrize("name", SHARED)
def test_layers_that_read_one_activation_get_the_same(name):
    model, activations = tiny(name), {}

    def look(walked, block, walk, reached):
        of_block = activations.setdefault(block.name, [])
        if not any(known is reached.activation for known in of_block):
            of_block.append(reached.activation)

    walk_through(model, batches_of(name), look)
    for found in activations.values():
        assert [{view.name.rsplit(".", 1)[1] for view in known.views} for known in found] == SHARED[name]


@pytest.mark.parametrize("name", ["llama", "qwen3", "opt", "opt-post-norm", "bert", "gpt2", "gpt-neox", "t5", "vit"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_what_the_stream_is_short_of_before_a_layer_writes_is_short_after_it_too(name, batch_size):
    # Dense stream - pruned stream, before and after a layer writes, differ by dense output - pruned output.
    model, batches = tiny(name, torch.float64), batches_of(name, 3, batch_size)
    errors, last = {}, {}

    def look(walked, block, walk, reached):
        view = reached.views[0]
        written = [(call.dense, call.values, call.stream_error) for call in reached.calls]
        if any(error is not None for *_, error in written):
            weight, bias = halved(view)
            layers = (view.read(), view.read_bias()), (weight, bias)
            moved = []
            for dense, values, error in written:
                (w, b), (v, c) = layers
                change = dense @ w.T - values @ v.T + (0 if b is None else b - c)
                moved.append((error, error + change.reshape(error.shape)))
            errors[view.name] = moved
            last[block.name] = moved

    walked = walk_through(model, batches, look)
    # Two writers in each of two blocks; a decoder beside an encoder has three.
    assert (len(errors), len(last)) == ((10, 4) if name == "t5" else (4, 2))
    if name not in ("opt-post-norm", "bert"):  # where a norm follows the last writer, the stream ends before it
        for block, moved in last.items():
            ends = [outputs_of(found, block, batches) for found in (model, walked.pruned)]
            for (_, after), dense, pruned in zip(moved, *ends, strict=True):
                torch.testing.assert_close(after, dense - pruned, rtol=1e-8, atol=1e-10)
    # Nothing was broken before the first block.
    first = next(iter(errors.values()))
    assert all(float(before.abs().max()) < 1e-12 and float(after.abs().max()) > 1e-3 for before, after in first)


def single_windows(count, length):
    return [{"input_ids": row[None]} for row in token_windows(count, length)]


def test_experts_that_some_batches_leave_out_are_decided_on_those_that_call_them():
    model, batches = tiny_mixtral(), single_windows(6, 3)
    callers, missing = {}, []

    def look(walked, block, walk, reached):
        name = reached.views[0].name
        expected = read_by(walked.pruned, name, batches)
        callers[name] = [call.batch for call in reached.calls]
        assert callers[name] == sorted(expected)
        in_dense = read_by(model, name, batches)
        for call in reached.calls:
            assert relative_change(call.values, expected[call.batch]) < 1e-10
            # Unless all tokens come to an expert, it has others in the dense model: they are not paired.
            if "experts" in name and len(call.values) < 3:
                missing.append(call.dense is None)
            if call.dense is not None:
                assert relative_change(call.dense, in_dense[call.batch]) < 1e-10

    walked = walk_through(model, batches, look)
    experts = [numbers for name, numbers in callers.items() if "experts" in name]
    assert any(len(numbers) < len(batches) for numbers in experts) and any(len(numbers) > 1 for numbers in experts)
    assert missing and all(missing)
    for found, other in ((walked.outputs, walked.pruned), (walked.dense_outputs, model)):
        for output, whole in zip(found, last_outputs(other, batches), strict=True):
            assert relative_change(output, whole) < 1e-10


@pytest.mark.parametrize("dense", [True, False], ids=["beside dense", "alone"])
def test_experts_that_are_called_with_no_tokens_can_be_walked(dense):
    model, batches = tiny_mixtral(calls_all=True), single_windows(2, 3)
    walked = walk_through(model, batches, dense=dense)
    assert len(walked.order) == 2 * (4 + 3 * 8)
    for output, whole in zip(walked.outputs, last_outputs(walked.pruned, batches), strict=True):
        assert relative_change(output, whole) < 1e-10


def traces(model):
    """Whatever a walk may leave behind in a model."""
    modules = list(model.modules())
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules]
    return hooks, [module.__dict__.get("forward") for module in modules]


ACTIVATION = {"llama": "act_fn", "gpt-neox": "act"}


class BreakingError(Exception):
    pass


@pytest.mark.parametrize("name", ["llama", "gpt-neox"])
@pytest.mark.parametrize("stage", ["end", "consumer", "layer", "between", "left"])
def test_hooks_and_forwards_are_those_from_before(name, stage, monkeypatch):
    model, batches = tiny(name), batches_of(name)
    before = traces(model)
    with walks(model, batches) as found:
        inside = traces(model)  # where the blocks of the model are suspended
        block, walk = next(found)
        reached_layers = 0
        if stage in ("layer", "between"):
            layer, between = list(walk.views)[1], block.module.mlp.get_submodule(ACTIVATION[name])
            monkeypatch.setattr(layer if stage == "layer" else between, "forward", broken)
            inside = traces(model)
        with pytest.raises(BreakingError) if stage in ("consumer", "layer", "between") else nullcontext():
            for reached in walk:
                reached_layers += 1
                assert stage == "end" or traces(model) != inside
                for view in reached.views:
                    walk.weights[view.name] = halved(view)
                if stage == "consumer" and reached_layers == 2:
                    raise BreakingError
                if stage == "left" and reached_layers == 2:
                    break
        assert traces(model) == inside
        count = len(walk.views)
        # Both models compute an MLP up to its activation after its first layer; then llama's last two are left.
        between = count - 2 if name == "llama" else count - 1
        assert reached_layers == {"end": count, "between": between}.get(stage, 2)
        assert not torch.is_grad_enabled()
        monkeypatch.undo()
        # The streams wait where they were; the block can be walked again.
        again = LayerWalk(block.module, block.views.values(), walk.stops, walk.dense_stops)
        for reached in again:
            for view in reached.views:
                again.weights[view.name] = view.read(), view.read_bias()
        for output, stop in zip(again.outputs, walk.stops, strict=True):
            torch.testing.assert_close(hidden_of(output), stop.run(block.module), rtol=1e-5, atol=1e-5)
    assert traces(model) == before
    assert torch.is_grad_enabled()


def broken(*args, **kwargs):
    raise BreakingError
