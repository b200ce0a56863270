"""Learning a rotation: orthogonal, lower in what is lost, the same at every call."""

import pytest
import torch
from support.models import correlated_tokens, random_weight

from optimum_si.algorithms.pruning.targets import NM, Unstructured
from optimum_si.algorithms.transforms.importance import ColumnTerm, RowTerm, lost_fraction, mean_lost
from optimum_si.algorithms.transforms.orthogonal import learn, orthogonalized


TARGETS = [Unstructured(0.5), Unstructured(0.7, "layer"), NM(2, 4)]


def terms_for(target, parts=1, size=16):
    """A reader and a writer of a basis, fp32."""
    features = parts * size
    tokens = correlated_tokens(features=features)
    gram = (tokens.T @ tokens / len(tokens)).float()
    blocks = torch.stack([gram[n * size : (n + 1) * size, n * size : (n + 1) * size] for n in range(parts)])
    reader = random_weight(24, features).float().view(24, parts, 1, size)
    writer = random_weight(features, 12, seed=6).float().view(parts, 1, size, 12)
    diagonal = torch.linspace(0.1, 2, 12)
    return [ColumnTerm(reader, blocks[:, None], target), RowTerm(writer, diagonal, target)]


def random_orthogonal(parts, size):
    return orthogonalized(torch.randn(parts, size, size, generator=torch.Generator().manual_seed(2)).double())


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_less_is_lost_and_the_rotation_is_orthogonal(target, parts, centered):
    terms = terms_for(target, parts)
    rotation = learn(terms, parts, 16, centered, steps=20)
    identity = torch.eye(16, dtype=torch.float64)
    assert (rotation @ rotation.mT - identity).abs().max() <= 1e-12
    if centered:
        assert (rotation.sum(dim=-1) - 1).abs().max() <= 1e-12
    before, after = (mean_lost(terms, each.float()) for each in (identity.expand(parts, 16, 16), rotation))
    assert after < 0.95 * before


def test_the_same_terms_give_the_same_rotation():
    first, second = (learn(terms_for(TARGETS[0]), 1, 16, steps=8) for _ in range(2))
    assert torch.equal(first, second)


def test_nothing_to_prune_gives_no_rotation():
    assert learn(terms_for(Unstructured(0.0)), 1, 16, steps=4) is None


def test_what_is_lost_is_the_importance_of_what_the_target_prunes():
    importance = torch.tensor([[4.0, 1.0, 2.0, 3.0], [0.0, 5.0, 5.0, 0.0]])
    assert float(lost_fraction(importance, Unstructured(0.5))) == pytest.approx(3 / 20)
    assert float(lost_fraction(importance, Unstructured(0.25, "layer"))) == pytest.approx(0)
    assert float(lost_fraction(importance, NM(1, 2))) == pytest.approx(3 / 20)
    assert float(lost_fraction(importance, NM(1, 4))) == pytest.approx(11 / 20)


def test_terms_agree_with_weights_and_moments_that_are_rotated_outright():
    parts, size = 2, 8
    rotation = random_orthogonal(parts, size)
    whole = torch.block_diag(*rotation)
    reader, writer = terms_for(Unstructured(0.5), parts, size)
    weight = reader.weight.double().reshape(24, -1) @ whole
    blocks = torch.block_diag(*reader.gram[:, 0].double())
    expected = lost_fraction(weight.square() * (whole.T @ blocks @ whole).diagonal(), reader.target)
    assert float(reader.lost(rotation.float())) == pytest.approx(float(expected), rel=1e-4)
    rows = whole.T @ writer.weight.double().reshape(parts * size, -1)
    expected = lost_fraction(rows.square() * writer.diagonal, writer.target)
    assert float(writer.lost(rotation.float())) == pytest.approx(float(expected), rel=1e-4)
