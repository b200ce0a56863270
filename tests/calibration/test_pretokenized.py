"""Tokenized data, whichever way it is held, is used as it is."""

import json
import warnings

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from optimum_si import CalibrationConfig, CalibrationError
from optimum_si.calibration import prepare_examples


CONFIG = CalibrationConfig(sequence_length=2)
ROWS = [[5, 6, 7], [8, 9, 10]]
IDS = torch.tensor(ROWS)


def prepare(dataset, max_length=None):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return prepare_examples(dataset, CONFIG, max_length=max_length)


@pytest.mark.parametrize(
    "dataset",
    [
        ROWS,
        IDS,
        IDS.int(),
        list(IDS),
        [IDS],
        [IDS[:1], IDS[1]],
        np.array(ROWS),
        [np.array(row) for row in ROWS],
        {"input_ids": IDS},
        {"input_ids": ROWS},
        [{"input_ids": row} for row in ROWS],
        [{"input_ids": row[None]} for row in IDS],
        [{"input_ids": IDS}],
        datasets.Dataset.from_dict({"input_ids": ROWS, "text": ["a", "b"], "label": [0, 1]}),
        datasets.Dataset.from_dict({"input_ids": ROWS, "label": [0, 1]}).with_format("torch"),
        DataLoader([{"input_ids": row} for row in IDS], batch_size=2),
    ],
    ids=lambda dataset: type(dataset).__name__,
)
def test_every_way_to_hold_the_same_tokens_gives_the_same_examples(dataset):
    examples = prepare(dataset)
    assert len(examples) == 2
    for example, row in zip(examples, ROWS, strict=True):
        assert set(example) == {"input_ids", "attention_mask"}
        assert torch.equal(example["input_ids"], torch.tensor([row]))
        assert torch.equal(example["attention_mask"], torch.ones(1, 3, dtype=torch.int64))


def test_a_batch_of_the_tokenizer_is_split_with_all_its_entries(texts, bert_tokenizer):
    given = ["d1w1 d1w2", "d2w1"]
    for options in ({}, {"padding": True, "return_tensors": "pt"}):
        encoding = bert_tokenizer(given, return_token_type_ids=True, **options)
        examples = prepare(encoding)
        for index, example in enumerate(examples):
            assert set(example) == {"input_ids", "attention_mask", "token_type_ids"}
            for name, value in example.items():
                assert torch.equal(value, torch.as_tensor(encoding[name][index])[None])
    assert examples[1]["attention_mask"][0].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("held", [IDS.repeat(3, 1), [{"input_ids": row} for row in ROWS * 3], {"input_ids": ROWS * 3}])
def test_the_first_num_samples_are_taken_of_whatever_is_tokenized(held):
    examples = prepare_examples(held, CalibrationConfig(num_samples=3))
    assert [example["input_ids"][0].tolist() for example in examples] == (ROWS * 3)[:3]


def test_patches_of_images_stay_with_their_prompt():
    grid, patches = torch.tensor([[1, 2, 2], [1, 2, 4]]), torch.rand(12, 6)
    for ids, size in ((torch.ones(1, 5), 1), (torch.ones(5), 1)):
        (example,) = prepare([{"input_ids": ids.long(), "pixel_values": patches, "image_grid_thw": grid}])
        assert example["pixel_values"].shape == (12, 6) and example["image_grid_thw"].shape == (2, 3)
        assert example["input_ids"].shape == (size, 5)
    one, other = prepare({"input_ids": torch.ones(2, 5).long(), "pixel_values": patches, "image_grid_thw": grid})
    assert torch.equal(one["pixel_values"], patches[:4]) and torch.equal(other["pixel_values"], patches[4:])
    with pytest.raises(CalibrationError, match="give a row for each prompt"):
        prepare({"input_ids": torch.ones(3, 5).long(), "pixel_values": patches, "image_grid_thw": grid})


def test_examples_of_different_lengths_stay_as_long_as_they_are():
    assert [example["input_ids"].shape[1] for example in prepare([[1], [1, 2], [1, 2, 3]])] == [1, 2, 3]


@pytest.mark.parametrize("name, shape", [("pixel_values", (3, 4, 4)), ("input_features", (8, 5)), ("other", (1, 6))])
def test_inputs_that_are_no_tokens_are_accepted_as_they_are(name, shape):
    value = torch.rand(shape)
    (example,) = prepare([{name: value, "id": 3, "path": "a.png", "missing": None}])
    assert set(example) == {name}
    assert torch.equal(example[name].view(shape), value) and len(example[name]) == 1
    (batched,) = prepare([{name: example[name]}])
    assert torch.equal(batched[name], example[name])


def test_images_go_along_with_their_tokens():
    (example,) = prepare([{"input_ids": [1, 2], "pixel_values": torch.rand(3, 4, 4)}])
    assert example["pixel_values"].shape == (1, 3, 4, 4)
    (patches,) = prepare([{"input_ids": [[1, 2]], "pixel_values": torch.rand(7, 12)}])
    assert patches["pixel_values"].shape == (7, 12)


def test_a_transformed_dataset_gives_what_its_transform_makes():
    dataset = datasets.Dataset.from_dict({"image": ["a", "b", "c"]})
    dataset.set_transform(lambda rows: {"pixel_values": [torch.zeros(3, 2, 2) for _ in rows["image"]]})
    assert [example["pixel_values"].shape for example in prepare(dataset)] == [(1, 3, 2, 2)] * 3


def test_tokens_may_come_from_a_file(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"input_ids": row, "text": "t"}) for row in ROWS))
    datasets.Dataset.from_dict({"input_ids": ROWS}).to_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert [example["input_ids"][0].tolist() for example in prepare(str(tmp_path / name))] == ROWS


def test_a_column_that_is_asked_for_is_read_as_text(texts, lm_tokenizer):
    dataset = datasets.Dataset.from_dict({"input_ids": [[1, 2]] * 40, "text": texts})
    config = CalibrationConfig(num_samples=1, sequence_length=16, column="text")
    assert prepare_examples(dataset, config, lm_tokenizer)[0]["input_ids"].shape == (1, 16)


def test_an_example_beyond_the_limit_is_an_error_that_names_it():
    assert len(prepare([[1, 2, 3]], max_length=3)) == 1
    with pytest.raises(CalibrationError, match="Example 1 has 3 tokens and the model accepts at most 2"):
        prepare([[1, 2], [1, 2, 3]], max_length=2)


@pytest.mark.parametrize(
    "dataset, message",
    [
        ([1, 2, 3], "Example 0 has no usable input"),
        ([[1], []], "Example 1 has no usable input"),
        (torch.zeros(0, 4, dtype=torch.long), "Example 0 has no usable input"),
        (torch.zeros(1, 2, 3, dtype=torch.long), "Example 0 has no usable input"),
        ([{"input_ids": None}], "Example 0 has no usable input"),
        ([[1, 2], "text"], "Example 1 has no usable input"),
        ([torch.rand(4)], "dtype torch.float32"),
        ([{"input_ids": [1, 2], "attention_mask": [1]}], "'attention_mask' has shape"),
        ([{"input_ids": [[1, 2], [3, 4]], "labels": [[1, 2]]}], "batch of 2 and 'labels' one of 1"),
        ([{"pixel_values": [[[1.0, 2.0], [3.0]]]}], "'pixel_values' makes no tensor"),
    ],
)
def test_unusable_examples_are_errors_that_name_them(dataset, message):
    with pytest.raises(CalibrationError, match=message):
        prepare(dataset)
