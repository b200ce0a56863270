"""A view reads, writes and embeds one 2-D map of a parameter, whatever the parameter's layout."""

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from optimum_si.models.weight_view import WeightView, linear_views


def fused(heads=2, size=3, features=5):
    """A projection [heads, 3, size] of q, k, v by head, as in GPT-NeoX."""
    module = torch.nn.Linear(features, heads * 3 * size)
    return module, [
        WeightView(name, module, unfold=(heads, 3, size), index=(slice(None), part)) for part, name in enumerate("qkv")
    ]


def conv1d_parts():
    module = Conv1D(9, 5)
    torch.nn.init.normal_(module.bias)
    return module, [
        WeightView(name, module, transposed=True, index=(slice(3 * part, 3 * part + 3),))
        for part, name in enumerate("qkv")
    ]


def whole(kind):
    module = torch.nn.Linear(5, 9) if kind == "linear" else Conv1D(9, 5)
    return module, [WeightView("x", module, transposed=kind != "linear")]


LAYOUTS = {
    "linear": lambda: whole("linear"),
    "conv1d": lambda: whole("conv1d"),
    "fused": fused,
    "conv1d parts": conv1d_parts,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_map_of_a_view_gives_its_part_of_the_output(layout):
    module, views = LAYOUTS[layout]()
    x = torch.randn(4, 5)
    parts = [x @ view.read().T + view.read_bias() for view in views]
    if layout == "fused":
        expected = module(x).reshape(4, 2, 3, 3).permute(2, 0, 1, 3).reshape(3, 4, 6)
    else:
        expected = module(x).chunk(len(views), dim=1)
    for part, found, view in zip(parts, expected, views, strict=True):
        torch.testing.assert_close(part, found)
        assert view.shape == (part.shape[1], 5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_writing_a_view_changes_it_alone(layout):
    module, views = LAYOUTS[layout]()
    before = [(view.read().clone(), view.read_bias().clone()) for view in views]
    views[0].write(before[0][0].double() * 2)
    views[0].write_bias(before[0][1].double() + 1)
    torch.testing.assert_close(views[0].read(), before[0][0] * 2)
    torch.testing.assert_close(views[0].read_bias(), before[0][1] + 1)
    assert views[0].tensor() is module.weight and module.weight.dtype == torch.float32
    for view, (weight, bias) in zip(views[1:], before[1:], strict=True):
        assert torch.equal(view.read(), weight) and torch.equal(view.read_bias(), bias)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_embedding_gives_the_parameter_that_writing_would_and_a_gradient(layout):
    module, views = LAYOUTS[layout]()
    weight = torch.randn(views[0].shape, requires_grad=True)
    bias = torch.randn(views[0].shape[0], requires_grad=True)
    embedded = views[0].embed(module.weight.detach(), weight)
    embedded_bias = views[0].embed_bias(module.bias.detach(), bias)
    (embedded.sum() + embedded_bias.sum()).backward()
    assert torch.equal(weight.grad, torch.ones_like(weight)) and torch.equal(bias.grad, torch.ones_like(bias))
    assert not torch.equal(embedded, module.weight)
    views[0].write(weight.detach())
    views[0].write_bias(bias.detach())
    assert torch.equal(embedded.detach(), module.weight) and torch.equal(embedded_bias.detach(), module.bias)


def test_a_layer_without_bias_has_none():
    view = WeightView("x", torch.nn.Linear(4, 3, bias=False))
    assert view.read_bias() is None and view.bias_tensor() is None


def test_every_linear_map_of_a_block_has_a_view_in_module_order():
    block = torch.nn.ModuleDict(
        {"b": torch.nn.Linear(4, 3), "norm": torch.nn.LayerNorm(4), "a": Conv1D(5, 4), "e": torch.nn.Embedding(3, 4)}
    )
    assert [(view.name, view.shape) for view in linear_views(block, "p.0")] == [("p.0.b", (3, 4)), ("p.0.a", (5, 4))]
