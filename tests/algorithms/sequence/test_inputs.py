"""What is measured of a layer's input is what its tokens give, once for all layers that read it."""

import pytest
import torch
from support.models import moments_of

from optimum_si.algorithms.calls import Calls
from optimum_si.algorithms.sequence.inputs import paired_input, single_input
from optimum_si.errors import NumericalError
from optimum_si.linalg.paired_moments import PairedAccumulator, PairedMoments
from optimum_si.models.forward.layer_inputs import SAMPLE_SIZE
from optimum_si.models.forward.layer_walk import Activation, LayerCall, Reached
from optimum_si.models.forward.stops import Stop
from optimum_si.models.weight_view import WeightView


FEATURES, OUTPUTS, TOKENS = 6, 4, 5
VIEW = WeightView("block.layer", torch.nn.Linear(FEATURES, OUTPUTS, dtype=torch.float64))


def drawn(seed, features=FEATURES, batches=4):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, TOKENS, features, generator=generator, dtype=torch.float64) + 1 for _ in range(batches)]


def reached(values, dense=None, errors=None, masks=None, batches=None):
    """A layer that batches come to; of whatever is None nothing is known in any batch."""
    batches, nothing = batches or range(len(values)), [None] * len(values)
    rows = zip(batches, values, dense or nothing, masks or nothing, errors or nothing, strict=True)
    return Reached([VIEW], Activation(values), [LayerCall(*row) for row in rows])


def calls(num_held_out=1, batches=4):
    stops = [Stop(0, (torch.zeros(2, TOKENS, FEATURES),), {})] * batches
    return Calls(stops, stops, num_held_out, batches * 2 * TOKENS)


def tokens(values, masks=None):
    return torch.cat(
        [
            value.flatten(0, -2) if masks is None else value[mask]
            for value, mask in zip(values, masks or values, strict=True)
        ]
    )


def masks():
    return [torch.arange(TOKENS) < torch.tensor([[TOKENS], [number + 1]]) for number in range(4)]


def same(first: PairedMoments, second: PairedMoments):
    assert first.count == second.count
    torch.testing.assert_close(first.mean, second.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(first.centered, second.centered, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("gram", [False, True])
def test_moments_are_those_of_all_tokens(padded, gram):
    values, mask = drawn(0), masks() if padded else None
    found, sample = single_input(reached(values, masks=mask), calls(), gram)
    expected = moments_of(tokens(values, mask), gram)
    assert found.count == expected.count and (found.gram is not None) == gram
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.diagonal, expected.diagonal)
    assert torch.equal(sample, tokens(values, mask))


def test_samples_are_spread_over_all_tokens():
    values = drawn(0, batches=512)
    here = calls(batches=512)
    for sample in (single_input(reached(values), here, False)[1], paired_input(reached(values, values), here)[1]):
        assert torch.equal(sample, tokens(values)[::3]) and len(sample) <= SAMPLE_SIZE


def paired_of(values, dense, errors=None):
    """Moments of tokens [n, d_in] in both models; with errors of the stream [n, d_out] those of a layer's output."""
    error = dense - values
    accumulator = PairedAccumulator(errors is not None)
    accumulator.add(values, error if errors is None else error @ VIEW.read().T + errors)
    return accumulator.moments()


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_pairs_are_those_of_the_training_windows_and_of_those_held_out(writes, padded):
    values, dense, errors = drawn(0), drawn(1), drawn(2, OUTPUTS)
    mask = masks() if padded else None
    found, sample = paired_input(reached(values, dense, errors if writes else None, mask), calls(1))

    def of(part):
        chosen = None if mask is None else mask[part]
        rest = [tokens(errors[part], chosen)] if writes else []
        return paired_of(tokens(values[part], chosen), tokens(dense[part], chosen), *rest)

    same(found.held_out, of(slice(0, 1)))
    same(found.training, of(slice(1, 4)))
    same(found.whole, of(slice(0, 4)))
    torch.testing.assert_close(found.moments.gram, found.whole.moments().gram)
    assert torch.equal(sample, tokens(values, mask))


def test_where_one_part_of_the_windows_comes_it_serves_for_both():
    values = drawn(0)[:2]
    for batches in ([2, 3], [0, 1]):
        found, _ = paired_input(reached(values, drawn(1)[:2], batches=batches), calls(2))
        assert found.training is found.held_out is found.whole
        assert found.whole.count == 2 * 2 * TOKENS


def test_a_batch_that_the_dense_model_sends_elsewhere_counts_as_equal_there():
    values, dense, errors = drawn(0), drawn(1), drawn(2, OUTPUTS)
    some, known = [*dense[:3], None], [*errors[:3], None]
    found, _ = paired_input(reached(values, some, known), calls(0))
    alike = paired_of(
        tokens(values), tokens([*dense[:3], values[3]]), tokens([*errors[:3], torch.zeros_like(errors[3])])
    )
    same(found.whole, alike)


def test_it_is_measured_once_for_all_readers():
    values, dense = drawn(0), drawn(1)
    first = reached(values, dense)
    again = Reached([VIEW], first.activation, first.calls)
    assert single_input(first, calls(), True)[0] is single_input(again, calls(), True)[0]
    assert paired_input(first, calls())[0] is paired_input(again, calls())[0]


def test_each_layer_that_writes_to_the_stream_falls_short_by_something_of_its_own():
    values, dense, errors = drawn(0), drawn(1), drawn(2, OUTPUTS)
    first = reached(values, dense, errors)
    other = WeightView("block.other", torch.nn.Linear(FEATURES, OUTPUTS, dtype=torch.float64))
    second = Reached([other], first.activation, first.calls)
    reader = Reached([VIEW], first.activation, reached(values, dense).calls)
    for layer, weight in ((first, VIEW), (second, other)):
        change = (tokens(dense) - tokens(values)) @ weight.read().T + tokens(errors)
        shift = paired_input(layer, calls())[0].whole.mean_target_shift(weight.read())
        torch.testing.assert_close(shift, change.mean(dim=0))
    assert len(paired_input(reader, calls())[0].whole.mean) == 2 * FEATURES


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_names_the_layer(value):
    values = drawn(0)
    values[2][1, 3, 0] = value
    with pytest.raises(NumericalError, match=r"'block\.layer'.*NaN"):
        single_input(reached(values), calls(), True)
    with pytest.raises(NumericalError, match=r"'block\.layer'.*NaN"):
        paired_input(reached(values), calls())
