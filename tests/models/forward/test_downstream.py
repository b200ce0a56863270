"""The rest of a model, run from the output of one of its blocks."""

import pytest
import torch
from support.models import DECLARED, inputs_of, tiny

from optimum_si.algorithms.induction.divergence import divergence
from optimum_si.models.forward import downstream as module
from optimum_si.models.forward.calls import BlockOutput, block_output, capture
from optimum_si.models.forward.downstream import Downstream
from optimum_si.models.structure import find_structure


def opened(name):
    model = tiny(name)
    blocks, batch = find_structure(model).blocks, inputs_of(name, 3)
    output = block_output(model, blocks, batch)
    (captured,) = capture(model, blocks, [batch], output)
    return model, blocks, captured, Downstream(model, blocks, [batch], output)


@pytest.mark.parametrize("name", [*DECLARED, "gpt2", "gpt-neox", "vit"])
def test_dense_hidden_states_give_the_dense_answer_from_every_block(name):
    model, blocks, captured, downstream = opened(name)
    (expected,) = downstream.dense()
    hidden = captured.hidden
    with torch.no_grad():
        for number, block in enumerate(blocks):
            hidden = captured.calls[number].run(block.module, hidden)
            (answer,) = downstream.from_block(number, [hidden])
            torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)
            (other,) = downstream.from_block(number, [hidden + torch.randn_like(hidden)])
            assert not torch.allclose(other, expected, rtol=1e-2)
    assert downstream.gives_logits


def test_large_vocabularies_are_run_in_parts_and_thinned(monkeypatch):
    (whole,) = opened("llama")[-1].dense()
    monkeypatch.setattr(module, "_LIMIT", whole.numel() // 2)
    downstream = opened("llama")[-1]
    (thinned,) = downstream.dense()
    assert downstream.every == 2
    torch.testing.assert_close(thinned, whole[:, ::2])


def test_blocks_that_return_more_are_told_apart():
    model = tiny("t5")
    assert block_output(model, find_structure(model).blocks, inputs_of("t5")) is BlockOutput.MORE


def test_divergence_is_that_of_torch_and_leaves_padding_out():
    generator = torch.Generator().manual_seed(0)
    output, reference = (torch.randn(2, 5, 7, generator=generator) for _ in range(2))
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    kl = torch.nn.functional.kl_div(
        output.log_softmax(-1)[mask], reference.log_softmax(-1)[mask], log_target=True, reduction="batchmean"
    )
    assert divergence([output], [reference], [mask], logits=True) == pytest.approx(float(kl), rel=1e-5)
    assert divergence([reference], [reference], [None], logits=True) == pytest.approx(0, abs=1e-7)
    assert divergence([2 * reference], [reference], [None], logits=False) == pytest.approx(1)
