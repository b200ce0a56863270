"""Refinement lowers the held-out error of a block or leaves it alone, and moves no zero."""

import pytest
import torch
from support.models import block_weights, calibration, prune, same_bytes, tiny

from optimum_si import ConfigurationError, SIConfig
from optimum_si.algorithms.calls import Batch
from optimum_si.algorithms.refinement.refine import refine
from optimum_si.models.forward.stops import Stop


RECIPE = {"pattern": "2:4", "induction": None, "refine_epochs": 2}


def zeros(model):
    return {name: weight == 0 for name, weight in block_weights(model).items()}


@pytest.mark.parametrize(
    ("name", "reconstruction"), [("llama", "none"), ("opt", "exact"), ("bert", "none"), ("gpt2", "none")]
)
def test_the_held_out_error_never_rises(name, reconstruction):
    pruner = prune(tiny(name), data=calibration(name), reconstruction=reconstruction, repair=0, **RECIPE)
    for block in pruner.report.blocks:
        before, after = block.refined
        assert 0 < after <= before
    assert any(after < before for before, after in (block.refined for block in pruner.report.blocks))


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_zeros_stay_where_they_were_in_the_first_block(method):
    recipe = {**RECIPE, "refine_epochs": 0}
    plain = prune(tiny("llama"), method, calibration(""), **recipe).model
    refined = prune(tiny("llama"), method, calibration(""), **RECIPE).model
    first = {name: mask for name, mask in zeros(plain).items() if ".0." in name}
    assert first and all(torch.equal(zeros(refined)[name], mask) for name, mask in first.items())
    assert not same_bytes(plain, refined)


def test_norms_and_biases_are_learned_and_the_rest_stays():
    dense = tiny("opt")
    model = prune(tiny("opt"), "wanda", calibration(""), **RECIPE).model
    moved = {
        name
        for name, value in model.named_parameters()
        if not torch.equal(value, dense.get_parameter(name)) and value.ndim == 1
    }
    assert any("layer_norm" in name for name in moved) and any("fc1.bias" in name for name in moved)
    assert all("layers." in name for name in moved)
    assert torch.equal(model.get_input_embeddings().weight, dense.get_input_embeddings().weight)


def test_more_epochs_change_the_result_and_the_same_seed_repeats_it():
    def run(epochs, seed=0):
        recipe = {**RECIPE, "refine_epochs": epochs}
        return prune(tiny("llama"), "wanda", calibration(""), seed=seed, **recipe).model

    first = run(1)
    assert same_bytes(first, run(1)) and not same_bytes(first, run(2)) and not same_bytes(first, run(1, seed=1))


def test_a_model_that_loses_nothing_is_left_alone():
    recipe = {"sparsity": 0.0, "induction": None, "refine_epochs": 2}
    assert same_bytes(prune(tiny("llama"), **recipe).model, tiny("llama"))


def test_negative_epochs_are_refused():
    with pytest.raises(ConfigurationError, match="refine_epochs=-1"):
        SIConfig(refine_epochs=-1)


class OneLayer:
    """What ``refine`` asks of a block, for a single linear layer."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        dense = torch.randn(6, 8, generator=generator)
        batches = []
        for _ in range(4):
            stop = Stop(0, (torch.randn(2, 5, 8, generator=generator),), {})
            batches.append(Batch(stop, stop, stop.hidden @ dense.T))
        self.block, self.training, self.validation = torch.nn.Identity(), batches[:3], batches[3:]
        self.mask = torch.rand(6, 8, generator=generator) > 0.5
        self.start = (dense + torch.randn(6, 8, generator=generator)) * self.mask

    def run(self, stop, weights, norm_params):
        return stop.hidden @ weights["layer"][0].T

    def validation_loss(self, weights, norm_params=None):
        batch = self.validation[0]
        return batch.loss(self.run(batch.inputs, weights, norm_params)).item()


def test_what_epochs_bring_is_added_to_weights_that_have_seen_all_windows():
    state = OneLayer()
    state.without_held_out = {"layer": (state.start, None)}
    weights = {"layer": (state.start + 0.1 * state.mask, None)}

    def refined(weights):
        state.weights = weights
        return refine(state, 3, torch.Generator().manual_seed(0))

    moved, trained = refined(weights), refined(state.without_held_out)
    assert moved.loss_after == trained.loss_after < moved.loss_before
    assert trained.loss_after == pytest.approx(state.validation_loss(trained.weights))
    difference = moved.weights["layer"][0] - weights["layer"][0]
    torch.testing.assert_close(difference, trained.weights["layer"][0] - state.start, atol=1e-6, rtol=0)
    assert torch.equal(moved.weights["layer"][0] != 0, state.mask)
