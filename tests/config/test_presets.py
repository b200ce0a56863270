"""Presets are whole recipes that a user changes field by field."""

import pytest
from support.models import block_weights, calibration, prune, tiny

from optimum_si import CalibrationConfig, ConfigurationError, InductionConfig, SIConfig
from optimum_si.config.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("target", [{"pattern": "2:4"}, {"sparsity": 0.7}, {}], ids=str)
def test_each_is_a_recipe_for_every_target(name, target):
    config = SIConfig.preset(name, **target)
    assert config.pattern == target.get("pattern")
    assert config.target_sparsity == target.get("sparsity", 0.5)
    assert SIConfig(**config.to_dict()) == config


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_overrides_take_the_place_of_single_fields(name, method):
    config = SIConfig.preset(name, method=method, seed=7, damping=0.5, include="*.mlp.*")
    assert (config.method, config.seed, config.damping, config.include) == (method, 7, 0.5, ["*.mlp.*"])
    assert config.reconstruction == PRESETS[name].get("reconstruction", "none")


def test_groups_are_changed_field_by_field():
    paper = SIConfig.preset("paper")
    changed = SIConfig.preset("paper", induction={"epochs": 2}, calibration={"num_samples": 3})
    assert changed.induction.epochs == 2 and changed.induction.objective == paper.induction.objective == "mse"
    assert changed.calibration.num_samples == 3 and changed.calibration.sequence_length == 2048
    assert SIConfig.preset("paper", induction=True) == paper
    assert SIConfig.preset("paper", induction=None).induction is None
    assert SIConfig.preset("fast", induction={"epochs": 2}).induction.epochs == 2
    whole = SIConfig.preset("paper", induction=InductionConfig(), calibration=CalibrationConfig(seed=4))
    assert whole.induction == InductionConfig() and whole.calibration.seed == 4


def test_presets_never_mix_patterns():
    for name in PRESETS:
        assert SIConfig.preset(name, pattern="2:4").allocation == "uniform"


@pytest.mark.parametrize("name", PRESETS)
def test_each_prunes(name):
    pruner = prune_by_preset(name, pattern="2:4")
    for weight in block_weights(pruner.model).values():
        assert int((weight.reshape(-1, 4) != 0).sum(1).max()) <= 2


@pytest.mark.parametrize("name", PRESETS)
def test_each_prunes_without_a_pattern(name):
    weights = block_weights(prune_by_preset(name, sparsity=0.7).model).values()
    assert abs(sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights) - 0.7) < 0.01


def prune_by_preset(name, **target):
    recipe = SIConfig.preset(name, induction={"epochs": 1} if name != "fast" else None, **target).to_dict()
    recipe.update(refine_epochs=min(recipe["refine_epochs"], 1))
    return prune(tiny("llama"), data=calibration(""), **recipe)


def test_a_preset_moves_to_a_pattern_and_mixes_none():
    free = SIConfig.preset("best", sparsity=0.5)
    assert free.comparison_group == "layer" and free.allocation == "error"
    assert SIConfig.from_dict(free.to_dict(), pattern="2:4") == SIConfig.preset("best", pattern="2:4")
    named = SIConfig.from_dict(free.to_dict(), pattern="4:8", allocation="owl")
    assert named.allocation == "owl" and named.comparison_group is None
    assert SIConfig.from_dict(free.to_dict(), method="sparsegpt").comparison_group is None


@pytest.mark.parametrize("given", ["finest", None, 3])
def test_unknown_names_are_refused(given):
    with pytest.raises(ConfigurationError, match="preset=.* is unknown; accepted: 'paper', 'fast', 'best'"):
        SIConfig.preset(given)


def test_unknown_fields_are_refused():
    with pytest.raises(ConfigurationError, match="SIConfig has no 'sparsety'"):
        SIConfig.preset("best", sparsety=0.5)
