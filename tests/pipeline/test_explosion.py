"""A model that comes apart is said to have, and one that does not is not."""

import warnings

import pytest
import torch
from support.models import prune, tiny, token_windows
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from optimum_si import SIConfig
from optimum_si.pipeline.explosion import PerplexitySample
from optimum_si.pipeline.plan import make_plan


def confident() -> tuple[PreTrainedModel, torch.Tensor]:
    """A tiny Llama with strong opinions, and windows of text that it wrote itself: it predicts what follows well."""
    model = tiny("llama")
    model.lm_head.weight.data *= 16
    windows = token_windows(16, 4)
    windows = model.generate(windows, max_new_tokens=28, min_new_tokens=28, do_sample=False, pad_token_id=0)
    return model, windows


def warned(model: PreTrainedModel, windows: torch.Tensor, **recipe: object) -> tuple[str, tuple[float, float] | None]:
    """What a run says of a model that came apart, and what its report holds."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = prune(model, "wanda", windows, **{"induction": None, **recipe}).report
    said = [str(warning.message) for warning in caught if "came apart" in str(warning.message)]
    assert len(said) <= 1
    return "".join(said), report.perplexity


@pytest.mark.parametrize("induction", [None, {"epochs": 1}], ids=["plain", "held out"])
def test_a_model_that_comes_apart_is_said_to_have_with_what_to_try(induction):
    message, (dense, now) = warned(*confident(), sparsity=0.95, induction=induction)
    assert now > 20 * dense
    assert f"is {now:,.4g}, {now / dense:,.4g} times the dense model's {dense:,.4g}." in message
    assert "Try fewer zeros than 95%, method='sparsegpt'" in message and "recovery=True" in message


def test_advice_that_was_followed_is_not_repeated():
    message, _ = warned(
        *confident(), sparsity=0.95, reconstruction="exact", repair=0, recovery={"learning_rate": 1e-8}
    )
    assert message and "sparsegpt" not in message and "preset" not in message and "recovery" not in message


def test_a_model_that_holds_together_is_not_warned_of():
    message, (dense, now) = warned(*confident(), sparsity=0.1)
    assert not message and dense != now < 20 * dense


def test_perplexity_is_that_of_the_real_tokens():
    model, windows = confident()
    mask = torch.ones_like(windows)
    mask[1, 20:] = 0
    plan = make_plan(SIConfig("wanda", induction=None), model, write=True)
    batch = {"input_ids": windows[:3], "attention_mask": mask[:3]}
    sample = PerplexitySample.of(plan, [batch], 0)
    losses = []
    for ids, length in zip(windows[:2], (windows.shape[1], 20), strict=True):
        with torch.no_grad():
            logits = model(ids[None, :length]).logits[0]
        losses.append(cross_entropy(logits[:-1], ids[1:length], reduction="none"))
    assert sample.dense == pytest.approx(float(torch.cat(losses).mean().exp()), rel=1e-4)
    assert sample.compared() == (sample.dense, pytest.approx(sample.dense))


@pytest.mark.parametrize("model, data", [("bert", None), ("t5", None), ("llama", token_windows(4, 4))])
def test_nothing_is_said_of_what_cannot_be_told(model, data):
    """An encoder, a model that reads and writes, and too few tokens."""
    assert warned(tiny(model), data, sparsity=0.95) == ("", None)
