"""Collecting sees the inputs that layers see."""

import pytest
import torch
from support.forward import stopped_at
from support.models import tiny, token_windows

from optimum_si.errors import NumericalError
from optimum_si.models.forward.layer_inputs import collect


def collected(model, inputs):
    with stopped_at(model, inputs) as (block, stop):
        views = list(block.views.values())
        return collect(block.module, views, [stop], stop.num_tokens, True, True), block, stop


def test_layers_that_read_one_activation_share_it():
    (layer_inputs, _), _, _ = collected(tiny("llama"), {"input_ids": token_windows(2)})
    readers = [[view.name.rsplit(".", 1)[1] for view in layer_input.views] for layer_input in layer_inputs]
    assert readers == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]


def test_moments_are_those_of_the_inputs_without_padding():
    mask = (torch.arange(16) < torch.tensor([[16], [9]])).long()
    (layer_inputs, outputs), block, stop = collected(
        tiny("opt"), {"input_ids": token_windows(2), "attention_mask": mask}
    )
    tokens = block.module.self_attn_layer_norm(stop.hidden).detach()[mask.bool()].double()
    assert layer_inputs[0].moments.count == 25
    torch.testing.assert_close(layer_inputs[0].moments.gram, tokens.T @ tokens / 25, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer_inputs[0].sample, tokens.float())
    assert len(outputs) == 1


def test_inputs_with_nan_name_the_layer():
    model = tiny("llama")
    model.model.layers[0].input_layernorm.weight.data[3] = float("nan")
    with pytest.raises(NumericalError, match=r"model\.layers\.0\.self_attn\.q_proj.*NaN"):
        collected(model, {"input_ids": token_windows(2)})
