"""No option of a recipe does nothing, and each does what its documentation says."""

import pytest
import torch
from support.models import (
    block_weights,
    calibration,
    induce,
    logits,
    prune,
    same_bytes,
    tiny,
)


TARGETS = [{"sparsity": 0.5}, {"pattern": "2:4"}]
STRONG = {"epochs": 3, "learning_rate": 0.02}


@pytest.mark.parametrize(
    ("target", "change"),
    [
        *[(target, {"damping": 0.5}) for target in TARGETS],
        *[(target, {"damping_mode": "channel"}) for target in TARGETS],
        # Groups of a pattern are its own: there the block only bounds the lazy update.
        (TARGETS[0], {"block_size": 8}),
    ],
    ids=str,
)
def test_no_sparsegpt_option_does_nothing(target, change):
    base = {"induction": None, "damping": 0.3, **target}
    plain = prune(tiny("llama"), "sparsegpt", **base).model
    assert not same_bytes(plain, prune(tiny("llama"), "sparsegpt", **{**base, **change}).model)


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_the_comparison_group_is_a_row_or_the_layer(method):
    row = prune(tiny("llama"), method, induction=None, comparison_group="row").model
    layer = prune(tiny("llama"), method, induction=None, comparison_group="layer").model
    by_default = prune(tiny("llama"), method, induction=None).model
    assert not same_bytes(row, layer) and same_bytes(by_default, layer if method == "magnitude" else row)
    for weight in block_weights(row).values():
        assert ((weight == 0).sum(dim=1) == weight.shape[1] // 2).all()
    for weight in block_weights(layer).values():
        assert int((weight == 0).sum()) == weight.numel() // 2


BASE = {"epochs": 3, "learning_rate": 0.02, "initialization": "ones"}
SPECTRAL = {**BASE, "spectral_weight": 5.0}
CHANGES = [
    (BASE, {"epochs": 0}),
    (BASE, {"epochs": 6}),
    (BASE, {"learning_rate": 0.1}),
    (BASE, {"initialization": "activation"}),
    (BASE, {"initialization": "robust"}),
    (BASE, {"objective": "mse"}),
    (BASE, {"own_scales": False}),
    (BASE, {"max_scale": 1.05}),
    (BASE, {"temperature": 0.3}),
    (BASE, {"shift": False}),
    (BASE, {"validation_fraction": 0.5}),
    (BASE, {"spectral_weight": 5.0}),
    (SPECTRAL, {"spectral_p": 1}),
    (SPECTRAL, {"spectral_p": 2}),
    (SPECTRAL, {"spectral_alpha": 0.01}),
    (SPECTRAL, {"spectral_normalized": True}),
]
BASES: dict[tuple, torch.nn.Module] = {}


def induced(method, induction, **recipe):
    return prune(tiny("opt"), method, calibration("", 48), sparsity=0.5, induction=induction, **recipe).model


@pytest.mark.parametrize(("base", "change"), CHANGES, ids=lambda value: str(value) if len(value) == 1 else "")
@pytest.mark.parametrize("method", ["magnitude", "wanda"])
@pytest.mark.slow
def test_no_induction_option_does_nothing(method, base, change):
    key = method, base is BASE
    if key not in BASES:
        BASES[key] = induced(method, base)
    assert not same_bytes(BASES[key], induced(method, {**base, **change}))


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_factors_of_what_is_left_bring_blocks_closer_and_move_no_zero(name, method):
    scaled, plain = (
        prune(tiny(name), method, sparsity=0.5, induction={"epochs": 3, "rescale": rescale}).report.blocks[0]
        for rescale in (True, False)
    )
    assert scaled.loss_after < plain.loss_after
    assert [layer.sparsity for layer in scaled.layers] == [layer.sparsity for layer in plain.layers]


def test_the_seed_orders_the_batches():
    assert not same_bytes(induced("wanda", BASE), induced("wanda", BASE, seed=1))


def test_the_automatic_start_is_the_better_of_the_two():
    runs = {
        name: prune(tiny("opt"), "magnitude", induction={"epochs": 0, "shift": False, "initialization": name}).report
        for name in ("auto", "ones", "activation")
    }
    loss = {name: report.blocks[0].loss_after for name, report in runs.items()}
    assert loss["auto"] == min(loss["ones"], loss["activation"])


def test_scales_stay_within_their_bounds():
    report = prune(tiny("opt"), induction={"epochs": 3, "learning_rate": 0.5, "max_scale": 1.5, "own_scales": False})
    layers = [layer for layer in report.report.layers if layer.scale_max is not None]
    assert layers
    for layer in layers:
        assert 1 / 1.5 - 1e-5 <= layer.scale_min <= layer.scale_median <= layer.scale_max <= 1.5 + 1e-5


def test_without_absorption_induction_leaves_the_weights():
    pruner = induce(tiny("llama"), induction={**STRONG, "absorb": False})
    assert same_bytes(pruner.model, tiny("llama"))
    assert any(layer.scale_max > 1.01 for layer in pruner.report.layers if layer.scale_max is not None)
    assert not same_bytes(induce(tiny("llama"), induction=STRONG).model, tiny("llama"))


def test_absorption_does_not_change_the_pruned_function():
    kept, folded = (prune(tiny("opt"), induction={**STRONG, "absorb": absorb}).model for absorb in (False, True))
    assert not same_bytes(kept, folded)
    assert torch.equal(logits(kept), logits(folded))
