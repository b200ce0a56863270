"""What is said of calibration data that is too short for a fit."""

import warnings

import pytest
from support.models import prune, tiny, token_windows


def said(method: str, windows: int, **recipe: object) -> list[str]:
    """What a run on windows of 16 tokens warns of; the widest layer of the model has 48 columns."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prune(tiny("llama"), method, token_windows(windows, 16), induction=None, **recipe)
    return [str(warning.message) for warning in caught if "calibration tokens are few" in str(warning.message)]


@pytest.mark.parametrize(
    "method, recipe",
    [
        ("sparsegpt", {}),
        ("wanda", {"reconstruction": "exact"}),
        ("wanda", {"reconstruction": "exact", "repair": 0}),
        ("wanda", {"quantization": "int8"}),
    ],
    ids=["sparsegpt", "in sequence", "each for itself", "quantization"],
)
def test_a_fit_to_few_tokens_is_warned_of_once_with_both_numbers(method, recipe):
    (message,) = said(method, 5, **recipe)
    assert message.startswith(
        "80 calibration tokens are few for 2 of 14 layers: 'model.layers.0.mlp.down_proj' has 48 "
    )
    assert "needs 96; they are fitted with damping=0.1. Give more text" in message


def test_enough_tokens_or_nothing_that_is_fitted_are_not_warned_of():
    assert not said("sparsegpt", 6)
    assert not said("wanda", 2)


def test_damping_that_was_asked_for_is_what_is_said():
    assert "damping=0.5" in said("sparsegpt", 2, damping=0.5)[0]
    assert "of 0 that was asked for is kept" in said("wanda", 5, damping=0.0, quantization="int8")[0]
