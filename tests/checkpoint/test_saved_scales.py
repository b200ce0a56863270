"""Scales beside an induced checkpoint come back as they were learned, for the recipes that they suit."""

import pytest
import torch
from support.models import induce, tiny

from optimum_si import SIConfig
from optimum_si.checkpoint.saved_scales import SCALES_NAME, SavedScales


RECIPE = {"method": "wanda", "pattern": "2:4"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("induced")
    induced = induce(tiny("opt"), **RECIPE, save_dir=directory, induction={"epochs": 2, "learning_rate": 0.05})
    return induced.scales, SavedScales.load(directory / SCALES_NAME)


def test_what_is_read_is_what_was_learned(saved):
    config = SIConfig(**RECIPE)
    learned, read = (scales.scalings(config, torch.device("cpu")) for scales in saved)
    assert learned.keys() == read.keys() and learned
    for name, scaling in learned.items():
        for kind in ("scales", "bias_change", "rows", "columns"):
            mine, other = getattr(scaling, kind), getattr(read[name], kind)
            assert mine.keys() == other.keys() and mine, kind
            assert all(torch.equal(value, other[key]) for key, value in mine.items())


@pytest.mark.parametrize(
    "other", [{"reconstruction": "exact", "repair": 0}, {"induction": {"rescale": False}}], ids=str
)
def test_factors_are_left_to_weights_that_are_fitted_as_those_they_were_learned_for(saved, other):
    scalings = saved[1].scalings(SIConfig(**RECIPE, **other), torch.device("cpu")).values()
    assert scalings and all(scaling.scales and not scaling.rows and not scaling.columns for scaling in scalings)
