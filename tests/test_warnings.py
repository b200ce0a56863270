"""Warnings name the line of the user who called into the package, whatever lies between."""

import warnings

import torch
from support.models import tiny, token_windows

from optimum_si import SIConfig, SIPruner


def test_a_warning_from_deep_inside_names_the_line_that_called_the_package():
    pruner = SIPruner(tiny("gpt-neo"))  # an undeclared family, which the run warns of
    examples = [{"input_ids": row} for row in token_windows()]
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        pruner.prune(SIConfig(method="magnitude", induction=None), examples, progress=False)
    assert [warning.filename for warning in caught if "not declared" in str(warning.message)] == [__file__]
