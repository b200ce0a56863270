"""SIConfig: every choice is checked when it is made, and one JSON file holds them all."""

import copy
import json
import math
import pickle
import re
from inspect import signature
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimum_si import CalibrationConfig, ConfigurationError, InductionConfig, RecoveryConfig, SIConfig
from optimum_si.algorithms.pruning import get_method
from optimum_si.config.choices import (
    COMPARISON_GROUPS,
    DAMPING_MODES,
    INITIALIZATIONS,
    METHODS,
    SPECTRAL_NORMS,
    parse_pattern,
)


REJECTED = {
    "an unknown name": ({"sparcity": 0.5}, "SIConfig has no 'sparcity'; it takes 'method', 'sparsity'"),
    "an unknown method": (
        {"method": "obs"},
        "method='obs' is unknown; accepted: 'magnitude', 'sparsegpt', 'wanda'",
    ),
    "two targets": ({"sparsity": 0.5, "pattern": "2:4"}, "contradict each other: give one of them"),
    "all of the weights": ({"sparsity": 1.0}, "sparsity=1.0: expected a number at least 0 and below 1"),
    "less than none": ({"sparsity": -0.1}, "sparsity=-0.1: expected a number at least 0 and below 1"),
    "a boolean share": ({"sparsity": True}, "sparsity=True: expected a number"),
    "a share as text": ({"sparsity": "0.5"}, "sparsity='0.5': expected a number"),
    "NaN": ({"sparsity": math.nan}, "sparsity=nan: expected a number"),
    "a pattern without a colon": ({"pattern": "24"}, "pattern='24' is not understood; accepted: 'N:M'"),
    "a pattern that keeps all": ({"pattern": "4:4"}, "pattern='4:4' is not understood"),
    "a pattern that keeps none": ({"pattern": "0:4"}, "pattern='0:4' is not understood"),
    "a pattern that is no text": ({"pattern": 24}, "pattern=24 is not understood"),
    "no calibration": ({"calibration": False}, "calibration=False: expected a CalibrationConfig or a dict"),
    "no globs": ({"include": []}, "include=[]: expected one or more globs over module names"),
    "an empty glob": ({"exclude": ""}, "exclude='': expected one or more globs"),
    "no stacks": ({"stacks": []}, "stacks=[]: expected one or more globs over module names"),
    "globs that are no text": ({"include": [3]}, "include=[3]: expected one or more globs"),
    "induction as text": (
        {"induction": "yes"},
        "induction='yes': expected InductionConfig, a dict of its fields, or None",
    ),
    "an unknown field of induction": ({"induction": {"epoch": 1}}, "induction has no 'epoch'; it takes 'epochs'"),
    "an unknown field of calibration": ({"calibration": {"samples": 1}}, "calibration has no 'samples'; it takes"),
    "negative damping": ({"damping": -1}, "damping=-1: expected a number at least 0"),
    "an unknown damping mode": (
        {"damping_mode": "row"},
        "damping_mode='row' is unknown; accepted: 'mean', 'channel'",
    ),
    "an empty block": ({"block_size": 0}, "block_size=0: expected a whole number of at least 1"),
    "half a block": ({"block_size": 0.5}, "block_size=0.5: expected a whole number"),
    "a negative seed": ({"seed": -1}, "seed=-1: expected a whole number of at least 0"),
    "an unknown group": (
        {"method": "wanda", "comparison_group": "block"},
        "comparison_group='block' is unknown; accepted: 'row', 'layer'",
    ),
    "a group beside a pattern": (
        {"method": "wanda", "pattern": "2:4", "comparison_group": "row"},
        "comparison_group='row' contradicts pattern='2:4'",
    ),
    "repair of nothing": ({"repair": 0.5}, "repair=0.5 is a share of the target of a fit"),
    "one level to allocate": ({"pattern": "1:2", "allocation": "error"}, "pattern='1:2' has just one"),
    "a group for SparseGPT": ({"comparison_group": "row"}, "does not apply to method='sparsegpt'"),
}

REJECTED_INDUCTION = {
    "epochs": (-1, 1.5, True),
    "learning_rate": (0, -1.0, math.inf, "fast"),
    "initialization": ("zeros",),
    "objective": ("mae",),
    "own_scales": ("yes",),
    "rescale": ("yes",),
    "max_scale": (1, 0.5),
    "temperature": (0,),
    "spectral_weight": (-0.1,),
    "spectral_p": (3, "nuclear", True),
    "spectral_alpha": (0,),
    "spectral_normalized": (1,),
    "shift": ("yes",),
    "new_biases": (None,),
    "validation_fraction": (0, 1),
    "absorb": (0,),
}

REJECTED_RECOVERY = {
    "epochs": (0, 1.5),
    "num_samples": (-1,),
    "trains": ("all",),
    "learning_rate": (0, "1e-4"),
    "batch_size": (0,),
    "hidden_weight": (-1,),
    "minutes": (0, "5"),
}

REJECTED_CALIBRATION = {
    "num_samples": (0, 1.0),
    "sequence_length": (1,),
    "batch_size": (0, True),
    "min_expert_tokens": (-1, 1.5),
    "seed": (-1,),
    "dataset": (["a.txt"],),
    "dataset_config": (1,),
    "split": (1,),
    "column": (1,),
    "target_column": (1,),
}


@pytest.mark.parametrize("choices, message", REJECTED.values(), ids=REJECTED.keys())
def test_says_what_was_given_and_what_is_accepted(choices, message):
    with pytest.raises(ConfigurationError) as caught:
        SIConfig(**choices)
    assert message in str(caught.value)


@pytest.mark.parametrize("section, kind, table", [
    ("induction", InductionConfig, REJECTED_INDUCTION),
    ("calibration", CalibrationConfig, REJECTED_CALIBRATION),
    ("recovery", RecoveryConfig, REJECTED_RECOVERY),
])  # fmt: skip
def test_names_the_field_of_a_section(section, kind, table):
    for field, values in table.items():
        for value in values:
            for make in (lambda: kind(**{field: value}), lambda: SIConfig(**{section: {field: value}})):  # noqa: B023
                with pytest.raises(ConfigurationError) as caught:
                    make()
                assert f"{section}.{field}={value!r}" in str(caught.value)


def test_every_field_of_a_section_has_a_rejected_value():
    assert set(REJECTED_INDUCTION) == set(InductionConfig.__dataclass_fields__)
    assert set(REJECTED_RECOVERY) == set(RecoveryConfig.__dataclass_fields__)
    assert set(REJECTED_CALIBRATION) == set(CalibrationConfig.__dataclass_fields__)


def test_a_new_bias_needs_the_shift():
    with pytest.raises(ConfigurationError, match="new_biases=True needs induction.shift=True"):
        InductionConfig(shift=False, new_biases=True)


def test_validate_catches_a_later_assignment():
    config = SIConfig("wanda", pattern="2:4")
    config.sparsity = 0.5
    with pytest.raises(ConfigurationError, match="contradict each other"):
        config.validate()


def test_a_configuration_error_is_a_value_error():
    with pytest.raises(ValueError):
        SIConfig(sparsity=2)


def test_positional_and_keyword_arguments_agree():
    assert SIConfig("wanda", 0.3) == SIConfig(sparsity=0.3, method="wanda")
    assert SIConfig("wanda", None, "2:4") == SIConfig(method="wanda", pattern="2:4")
    assert SIConfig("wanda", 0.3) != SIConfig("wanda", 0.4)
    assert SIConfig() != {}


def test_half_of_the_weights_is_the_default_target():
    assert SIConfig().target_sparsity == 0.5
    assert SIConfig().target_name == "50%"
    assert SIConfig(sparsity=0.625).target_name == "62.5%"
    assert SIConfig(sparsity=0).target_sparsity == 0


def test_a_pattern_fixes_the_sparsity():
    config = SIConfig(pattern="1:4")
    assert (config.sparsity, config.target_sparsity, config.target_name) == (None, 0.75, "1:4")


@pytest.mark.parametrize("value, expected", [
    (True, InductionConfig()), (None, None), (False, None), ({"epochs": 2}, InductionConfig(epochs=2)),
    (InductionConfig(shift=False), InductionConfig(shift=False)),
])  # fmt: skip
def test_induction_takes_a_config_a_dict_or_a_boolean(value, expected):
    assert SIConfig(induction=value).induction == expected


@pytest.mark.parametrize(
    "value, expected",
    [(True, RecoveryConfig()), (None, None), (False, None), ({"epochs": 2}, RecoveryConfig(epochs=2))],
)
def test_recovery_takes_a_dict_or_a_boolean(value, expected):
    config = SIConfig(recovery=value)
    assert config.recovery == expected and SIConfig(**config.to_dict()) == config


def test_calibration_takes_a_config_or_a_dict():
    expected = CalibrationConfig(num_samples=4, dataset="c4")
    assert SIConfig(calibration={"num_samples": 4, "dataset": "c4"}).calibration == expected
    assert SIConfig(calibration=expected).calibration == expected
    assert SIConfig().calibration == CalibrationConfig()


def test_one_glob_needs_no_list():
    assert SIConfig(include="*.mlp.*", exclude=("a", "b")).to_dict()["include"] == ["*.mlp.*"]


def test_a_saved_recipe_gives_up_its_fit_and_what_belongs_to_it():
    saved = SIConfig(reconstruction="exact", repair=0.5).to_dict()
    assert SIConfig.from_dict(saved, reconstruction="none") == SIConfig()
    mixed = SIConfig(pattern="2:4", allocation="error").to_dict()
    assert SIConfig.from_dict(mixed, pattern="1:2") == SIConfig(pattern="1:2")


def test_infinity_is_written_as_text():
    assert InductionConfig(spectral_p=math.inf).spectral_p == "inf"


_sections = {
    "induction": st.none()
    | st.builds(
        InductionConfig,
        epochs=st.integers(0, 9),
        learning_rate=st.floats(1e-9, 1),
        initialization=st.sampled_from(INITIALIZATIONS),
        max_scale=st.floats(1, 1e6, exclude_min=True),
        spectral_p=st.sampled_from(SPECTRAL_NORMS),
        spectral_alpha=st.none() | st.floats(1e-9, 10),
        shift=st.just(True),
        new_biases=st.booleans(),
        absorb=st.booleans(),
    ),
    "calibration": st.builds(
        CalibrationConfig,
        num_samples=st.integers(1, 10**6),
        seed=st.integers(0, 2**63),
        dataset=st.none() | st.text(),
        column=st.none() | st.text(),
    ),
}
_common = {
    **_sections,
    "include": st.none() | st.lists(st.text(min_size=1), min_size=1, max_size=3),
    "exclude": st.none() | st.text(min_size=1),
    "stacks": st.none() | st.text(min_size=1),
    "damping": st.floats(0, 1),
    "damping_mode": st.sampled_from(DAMPING_MODES),
    "seed": st.integers(0, 2**32),
}
_ranked = st.builds(
    SIConfig,
    method=st.sampled_from(["magnitude", "wanda"]),
    sparsity=st.floats(0, 1, exclude_max=True),
    comparison_group=st.none() | st.sampled_from(COMPARISON_GROUPS),
    **_common,
)
_patterned = st.builds(
    SIConfig, method=st.sampled_from(list(METHODS)), pattern=st.sampled_from(["1:4", "2:4", "4:8", "1:2"]), **_common
)


@given(_ranked | _patterned)
def test_json_brings_back_exactly_the_same_recipe(config):
    assert SIConfig(**json.loads(json.dumps(config.to_dict()))) == config
    assert SIConfig(**json.loads(config.to_json_string())) == config


def test_a_saved_recipe_reads_back_equal(tmp_path):
    config = SIConfig("wanda", pattern="2:4", exclude="*.0.*", induction={"spectral_alpha": 0.1}, seed=3)
    config.save_pretrained(tmp_path / "new" / "folder")
    assert [file.name for file in (tmp_path / "new" / "folder").iterdir()] == ["si_config.json"]
    assert SIConfig.from_pretrained(tmp_path / "new" / "folder") == config
    assert SIConfig.from_pretrained(tmp_path / "new" / "folder" / "si_config.json") == config


def test_the_file_holds_our_fields_and_nothing_else(tmp_path):
    SIConfig().save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "si_config.json").read_text())
    assert set(stored) - {"transformers_version", "optimum_version"} == set(SIConfig().to_dict())
    assert stored["induction"]["epochs"] == 5, "defaults are stated too"


def test_copies_are_equal():
    config = SIConfig("magnitude", 0.25, induction=None)
    assert copy.deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert eval(repr(config)) == config


def test_save_pretrained_refuses_a_file_and_unknown_options(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="is a file: give a directory"):
        SIConfig().save_pretrained(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="save_pretrained has no 'repo'; it takes 'commit_message'"):
        SIConfig().save_pretrained(tmp_path, repo="me/x")


def test_pushed_to_the_hub_and_read_from_it(local_hub, tmp_path):
    config = SIConfig("wanda", pattern="2:4", calibration={"dataset": "wikitext2"})
    for _ in range(2):  # the second push finds the repository there
        config.save_pretrained(tmp_path, push_to_hub=True, repo_id="me/x", token="hf_fake")
    assert local_hub.repositories["me/x"]["si_config.json"] == (tmp_path / "si_config.json").read_bytes()
    assert SIConfig.from_pretrained("me/x") == config


def test_the_folder_names_the_repository(local_hub, tmp_path):
    SIConfig().save_pretrained(tmp_path / "sparse", push_to_hub=True, token="hf_fake")
    assert list(local_hub.repositories) == ["me/sparse"]


@given(st.integers(1, 99), st.integers(2, 100))
def test_patterns_are_read(kept, of):
    if kept < of:
        assert parse_pattern(f"{kept}:{of}") == (kept, of)
    else:
        with pytest.raises(ConfigurationError, match="N:M"):
            parse_pattern(f"{kept}:{of}")


def test_the_method_table_names_classes_that_exist():
    names = {"magnitude": "Magnitude", "sparsegpt": "SparseGPT", "wanda": "Wanda"}
    assert {name: get_method(name).__name__ for name in METHODS} == names
    with pytest.raises(ConfigurationError, match="accepted: 'magnitude', 'sparsegpt', 'wanda'"):
        get_method("obs")


def test_the_reference_states_every_option_and_its_default():
    reference = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", reference, flags=re.MULTILINE)
    kinds = (SIConfig, InductionConfig, CalibrationConfig, RecoveryConfig)
    expected = [(name, value.default) for kind in kinds for name, value in signature(kind).parameters.items()]
    assert [(name, eval(default)) for name, default in rows] == expected


def test_fields_given_beside_a_saved_recipe_are_checked_like_those_of_a_new_one(tmp_path):
    SIConfig("wanda", sparsity=0.6, induction={"epochs": 2}).save_pretrained(tmp_path)
    changed = SIConfig.from_pretrained(tmp_path, pattern="2:4", induction={"epochs": 1})
    assert (changed.method, changed.sparsity, changed.pattern, changed.induction.epochs) == ("wanda", None, "2:4", 1)
    for wrong, message in (
        ({"sparsty": 0.9}, "SIConfig has no 'sparsty'"),
        ({"method": "obs"}, "method='obs' is unknown"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "contradict each other"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            SIConfig.from_pretrained(tmp_path, **wrong)
        with pytest.raises(ConfigurationError, match=message):
            SIConfig.from_dict({"method": "wanda"}, **wrong)


def test_assigned_values_are_checked_and_nested_ones_converted():
    config = SIConfig()
    config.induction = {"epochs": 1}
    config.calibration = {"num_samples": 3}
    config.validate()
    assert config.induction.epochs == 1 and config.calibration.num_samples == 3
    config.induction.epochs = -3
    with pytest.raises(ConfigurationError, match="induction.epochs=-3"):
        config.validate()


def test_a_recipe_is_pushed_by_its_own_method_too(local_hub):
    SIConfig("wanda", pattern="2:4").push_to_hub("me/recipe", token="hf_fake")
    assert b'"2:4"' in local_hub.repositories["me/recipe"]["si_config.json"]
