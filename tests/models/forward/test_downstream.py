"""The rest of a model, run from the output of one of its blocks."""

from contextlib import contextmanager

import pytest
import torch
from support.models import DECLARED, inputs_of, tiny

from optimum_si.algorithms.induction.divergence import divergence
from optimum_si.models.forward import downstream as module
from optimum_si.models.forward.downstream import Downstream
from optimum_si.models.forward.modes import without_cache
from optimum_si.models.forward.runs import block_output, suspending
from optimum_si.models.forward.stops import hidden_of
from optimum_si.models.forward.streams import Stream
from optimum_si.models.structure import find_structure


@contextmanager
def opened(name):
    model, batch = tiny(name), inputs_of(name, 3)
    blocks = find_structure(model).blocks
    modules = [block.module for block in blocks]
    output = block_output(model, modules, "blocks", batch)
    with without_cache(model), suspending(modules):
        yield model, modules, batch, Downstream(model, [batch], output)


@pytest.mark.parametrize("name", [*DECLARED, "gpt2", "gpt-neox", "vit"])
def test_dense_hidden_states_give_the_dense_answer_from_every_block(name):
    with opened(name) as (model, modules, batch, downstream), torch.no_grad():
        (expected,) = downstream.dense()
        stream = Stream(model, [batch])
        for index, module in enumerate(modules):
            outputs = [stop.call(module) for stop in stream.stops(index)]
            hidden = hidden_of(outputs[0])
            (answer,) = downstream.from_block(index, [hidden])
            torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)
            (other,) = downstream.from_block(index, [hidden + torch.randn_like(hidden)])
            assert not torch.allclose(other, expected, rtol=1e-2)
            stream.advance(outputs)
        assert downstream.gives_logits


def test_large_vocabularies_are_run_in_parts_and_thinned(monkeypatch):
    with opened("llama") as (*_, downstream):
        (whole,) = downstream.dense()
    monkeypatch.setattr(module, "_LIMIT", whole.numel() // 2)
    with opened("llama") as (*_, downstream):
        (thinned,) = downstream.dense()
    assert downstream.every == 2
    torch.testing.assert_close(thinned, whole[:, ::2])


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
