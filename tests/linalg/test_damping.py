"""The damping of fits to few tokens."""

import pytest
import torch
from support.models import moments_of, random_weight

from optimum_si.algorithms.pruning.method import Settings
from optimum_si.algorithms.pruning.methods.sparsegpt import SparseGPT
from optimum_si.algorithms.pruning.methods.wanda import Wanda
from optimum_si.algorithms.pruning.targets import NM
from optimum_si.algorithms.reconstruction.method import Reconstructed
from optimum_si.linalg import damping as module
from optimum_si.linalg.damping import safe_damping


@pytest.mark.parametrize(
    "given, tokens, expected",
    [(0.01, 127, 0.1), (0.01, 128, 0.01), (0.3, 127, 0.3), (0.0, 1, 0.0)],
    ids=["few", "enough", "more was asked for", "none was asked for"],
)
def test_damping_is_raised_where_tokens_are_few(given, tokens, expected):
    assert safe_damping(given, tokens, columns=64) == expected


@pytest.mark.parametrize("method", [SparseGPT(), Reconstructed(Wanda(), False, Settings())], ids=["sparsegpt", "fit"])
@pytest.mark.parametrize("tokens", [16, 32, 48])
def test_what_is_fitted_to_few_tokens_errs_less_on_fresh_ones(monkeypatch, method, tokens):
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(32, 32, generator=generator).double() * torch.arange(1, 33) ** -0.3
    inputs, fresh = (torch.randn(count, 32, generator=generator).double() @ mix for count in (tokens, 4096))
    weight = random_weight(48, 32)

    def error() -> float:
        pruned = method.prune(weight, moments_of(inputs), NM(2, 4))
        return float((fresh @ (weight - pruned).T).square().sum())

    safe = error()
    monkeypatch.setattr(module, "SAFE_DAMPING", 0.0)
    assert safe < error()
