"""The zoo's models are tiny, run, and are the same at every build."""

from collections.abc import Iterator

import pytest
import torch
from support.zoo import LEFT_OUT, ZOO
from torch import Tensor


FAST = (
    "LlamaForCausalLM", "Gemma3nForCausalLM", "MixtralForCausalLM", "JambaForCausalLM", "BertForMaskedLM",
    "T5ForConditionalGeneration", "ViTForImageClassification", "WhisperForConditionalGeneration", "CLIPModel",
    "Qwen3VLForConditionalGeneration",
)  # fmt: skip
EACH = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ZOO]


def _floats(answer) -> Iterator[Tensor]:
    if isinstance(answer, Tensor):
        if answer.is_floating_point():
            yield answer
    elif isinstance(answer, dict | tuple | list):
        for value in answer.values() if isinstance(answer, dict) else answer:
            yield from _floats(value)


@pytest.mark.parametrize("name", EACH)
def test_a_specimen_runs_and_is_the_same_at_every_build(name):
    specimen = ZOO[name]
    model, state = specimen.build(), torch.random.get_rng_state()
    twin = specimen.build()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert type(model).__name__ == name.partition("-")[0] and not model.training
    assert sum(parameter.numel() for parameter in model.parameters()) < 1.5e6
    left, right = model.state_dict(), twin.state_dict()
    assert left.keys() == right.keys() and all(torch.equal(value, right[key]) for key, value in left.items())

    first, second = specimen.examples(2)
    assert all(torch.equal(first[key], again) for key, again in specimen.examples(1)[0].items())
    with torch.no_grad():
        answers = [list(_floats(model(**example))) for example in (first, second)]
    assert answers[0] and all(bool(value.isfinite().all()) for value in answers[0] + answers[1])


@pytest.mark.parametrize("name", EACH)
def test_every_input_of_a_specimen_changes_its_answer(name):
    """So calibration reaches every tower."""
    specimen = ZOO[name]
    model, (first, second) = specimen.build(), specimen.examples(2)
    with torch.no_grad():
        before = list(_floats(model(**first)))
        for key, value in second.items():
            if not torch.equal(value, first[key]):
                after = list(_floats(model(**{**first, key: value})))
                assert _change(before, after) > 1e-4, key


def _change(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest relative change among all that a model answers."""
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a.numel()]
    return max(float((b - a).norm() / a.norm()) if a.shape == b.shape else 1.0 for a, b in pairs)


@pytest.mark.slow
def test_the_zoo_holds_over_two_hundred_classes():
    classes = {name.partition("-")[0] for name in ZOO}
    print(f"{len(ZOO)} specimens of {len(classes)} classes")
    assert len(classes) > 200 and not classes & set(LEFT_OUT)
