"""Examples -> batches that keep order, contents and masks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimum_si import CalibrationError, ConfigurationError
from optimum_si.calibration import make_batches, sorted_by_length, without_padding


PAD = 99


def example(*ids, **others):
    return {"input_ids": torch.tensor([ids]), **others}


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=9),
    batch_size=st.integers(1, 10),
    side=st.sampled_from(["right", "left"]),
)
def test_batches_hold_every_example_in_order_and_padding_is_masked(lengths, batch_size, side):
    examples = [example(*range(10 * index, 10 * index + length)) for index, length in enumerate(lengths)]
    batches = make_batches(examples, batch_size, PAD, side)
    assert [len(batch["input_ids"]) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    rows = [row for batch in batches for row in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    assert len(rows) == len(examples)
    for (ids, mask), original in zip(rows, examples, strict=True):
        assert torch.equal(ids[mask.bool()], original["input_ids"][0])
        assert (ids[~mask.bool()] == PAD).all()
        length = original["input_ids"].shape[1]
        assert mask[:length].all() if side == "right" else mask[-length:].all()


def test_every_known_entry_is_padded_with_its_own_value():
    short = example(1, token_type_ids=torch.tensor([[1]]), labels=torch.tensor([[4]]))
    long = example(1, 2, token_type_ids=torch.tensor([[1, 1]]), labels=torch.tensor([[4, 5]]))
    (batch,) = make_batches([short, long], 2, PAD)
    assert batch["input_ids"].tolist() == [[1, PAD], [1, 2]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert batch["token_type_ids"].tolist() == [[1, 0], [1, 1]]
    assert batch["labels"].tolist() == [[4, -100], [4, 5]]


def test_a_mask_of_the_example_is_kept():
    (batch,) = make_batches([example(1, 2, attention_mask=torch.tensor([[0, 1]])), example(3, 4, 5)], 2)
    assert batch["attention_mask"].tolist() == [[0, 1, 0], [1, 1, 1]]


def test_other_tensors_are_stacked_and_get_no_mask():
    images = [{"pixel_values": torch.rand(1, 3, 2, 2)} for _ in range(3)]
    batches = make_batches(images, 2)
    assert [set(batch) for batch in batches] == [{"pixel_values"}] * 2
    assert torch.equal(
        torch.cat([batch["pixel_values"] for batch in batches]), torch.cat([image["pixel_values"] for image in images])
    )


def test_a_batch_ends_where_shapes_cannot_be_padded():
    images = [{"pixel_values": torch.rand(1, 3, 2, size)} for size in (2, 2, 3, 2)]
    assert [len(batch["pixel_values"]) for batch in make_batches(images, 3)] == [2, 1, 1]
    kept_apart = make_batches(sorted_by_length(images, 0), 3)
    assert [list(batch["pixel_values"].shape) for batch in kept_apart] == [[3, 3, 2, 2], [1, 3, 2, 3]]


def test_a_batch_ends_where_entries_differ():
    typed = example(1, token_type_ids=torch.tensor([[0]]))
    assert [len(batch["input_ids"]) for batch in make_batches([example(1), example(1), typed, example(1)], 2)] == [
        2,
        1,
        1,
    ]
    assert [len(batch["input_ids"]) for batch in make_batches(sorted_by_length([typed, example(1), typed], 0), 2)] == [
        2,
        1,
    ]


def test_patches_without_a_batch_axis_stand_alone():
    patches = [
        example(1, 2, pixel_values=torch.rand(4, 6), image_grid_thw=torch.tensor([[1, 2, 2]])) for _ in range(3)
    ]
    batches = make_batches(patches, 2)
    assert [tuple(batch["pixel_values"].shape) for batch in batches] == [(4, 6)] * 3


@pytest.mark.parametrize("shape", [(1, 5, 8), (1, 8, 5)])
def test_features_are_padded_along_their_time_where_a_mask_tells_it(shape):
    axis = shape.index(5)
    short, long = torch.rand(shape), torch.rand([9 if size == 5 else size for size in shape])
    masks = [torch.ones(1, 5).long(), torch.ones(1, 9).long()]
    given = [{"input_features": f, "attention_mask": m} for f, m in zip((short, long), masks, strict=True)]
    (batch,) = make_batches(given, 2)
    assert batch["attention_mask"].sum(dim=1).tolist() == [5, 9]
    assert torch.equal(batch["input_features"][:1].narrow(axis, 0, 5), short)
    assert not batch["input_features"][:1].narrow(axis, 5, 4).any()


def test_sounds_without_a_mask_are_never_padded():
    waves = [{"input_values": torch.rand(1, length)} for length in (7, 9, 7)]
    batches = make_batches(sorted_by_length(waves, 0), 4)
    assert [tuple(batch["input_values"].shape) for batch in batches] == [(2, 7), (1, 9)]


def test_decoder_inputs_are_padded_with_a_mask_of_their_own():
    pairs = [example(1, 2, decoder_input_ids=torch.tensor([ids])) for ids in ([5], [6, 7])]
    (batch,) = make_batches(pairs, 2, PAD)
    assert batch["decoder_input_ids"].tolist() == [[5, PAD], [6, 7]]
    assert batch["decoder_attention_mask"].tolist() == [[1, 0], [1, 1]]


def test_fixed_spectrograms_keep_their_padding():
    mask = torch.tensor([[1, 1, 0, 0]])
    whisper = {"input_features": torch.rand(1, 8, 4), "attention_mask": mask}
    assert without_padding(whisper)["input_features"].shape == (1, 8, 4)
    speech = {"input_features": torch.rand(1, 4, 8), "attention_mask": mask}
    assert without_padding(speech)["input_features"].shape == (1, 2, 8)
    assert without_padding(speech)["attention_mask"].shape == (1, 2)


def test_an_example_whose_mask_hides_everything_is_an_error():
    with pytest.raises(CalibrationError, match="attention_mask of example 1 is all zero"):
        make_batches([example(1), example(1, attention_mask=torch.tensor([[0]]))], 1)


def test_unknown_choices_are_errors():
    with pytest.raises(ConfigurationError, match="batch_size=0"):
        make_batches([example(1)], 0)
    with pytest.raises(ConfigurationError, match="padding_side='top'.*'right', 'left'"):
        make_batches([example(1)], 1, padding_side="top")


def test_collating_leaves_the_examples_alone():
    examples = [example(1), example(1, 2)]
    make_batches(examples, 2)
    assert [set(given) for given in examples] == [{"input_ids"}] * 2


def test_examples_are_sorted_by_length_in_two_parts():
    lengths = [5, 3, 4, 2, 6, 2]
    examples = [{"input_ids": torch.full((1, length), number)} for number, length in enumerate(lengths)]
    assert [int(example["input_ids"][0, 0]) for example in sorted_by_length(examples, 3)] == [1, 2, 0, 3, 5, 4]


def test_padding_and_other_inputs_do_not_change_the_order():
    masks = [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    padded = [{"input_ids": torch.ones(1, 3), "attention_mask": torch.tensor([mask])} for mask in masks]
    assert sorted_by_length(padded, 0) == [padded[1], padded[2], padded[0]]
    images = [{"pixel_values": torch.rand(1, 3, 4, 4)} for _ in range(3)]
    assert all(a is b for a, b in zip(sorted_by_length(images, 1), images, strict=True))
