"""Every declared pair leaves the function as it was."""

import pytest
import torch
from tiny_models import DECLARED, outputs, tiny, token_windows

from optimum_si.induction.absorption import absorb
from optimum_si.induction.scales import power_of_two
from optimum_si.models.blocks import find_structure


def relative_change(name, dtype, scale_of):
    model, windows = tiny(name, dtype), token_windows(4)
    before = outputs(model, windows)
    count = 0
    for block in find_structure(model).blocks:
        for channels in block.channels:
            absorb(channels, scale_of(channels))
            count += 1
    after = outputs(model, windows)
    assert count
    return float((after - before).double().norm() / before.double().norm())


def random_scale(channels):
    generator = torch.Generator().manual_seed(channels.size)
    return torch.exp(torch.randn(channels.size, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("name", DECLARED)
def test_any_scale_keeps_the_function_in_fp32(name):
    assert relative_change(name, torch.float32, random_scale) < 1e-5


@pytest.mark.parametrize("name", DECLARED)
def test_any_scale_keeps_the_function_in_fp64(name):
    upcasts = not name.startswith(("opt", "bert"))
    assert relative_change(name, torch.float64, random_scale) < (1e-6 if upcasts else 1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", DECLARED)
def test_powers_of_two_keep_every_bit(name, dtype):
    assert relative_change(name, dtype, lambda channels: power_of_two(random_scale(channels), channels.base)) == 0


def names(name):
    return {channels.name for block in find_structure(tiny(name)).blocks for channels in block.channels}


def test_families_declare_just_the_pairs_that_hold():
    assert "q<->k" in names("llama") and "q<->k" not in names("qwen3")
    assert names("bert") == {"value->output", "query<->key"}
    assert names("bert-relu") == names("bert") | {"intermediate->output"}
    assert names("opt") - names("opt-post-norm") == {"self_attn_layer_norm->q,k,v", "final_layer_norm->fc1"}


def test_a_parameter_that_serves_twice_is_not_scaled():
    model = tiny("llama")
    first, second = model.model.layers
    second.mlp.up_proj.weight = first.mlp.up_proj.weight
    for block in find_structure(model).blocks:
        absorbable = {channels.name: channels.absorbable for channels in block.channels}
        assert not absorbable["up->down"] and absorbable["v->o"]
