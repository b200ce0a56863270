"""Loaders, datasets of torch and streams are read as far as they are needed, and never without end."""

import datasets
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from optimum_si import CalibrationConfig, CalibrationError
from optimum_si.calibration import load_texts, prepare_examples


IDS = torch.arange(1, 25).reshape(6, 4)
CONFIG = CalibrationConfig(num_samples=4, sequence_length=16)


class Endless(Dataset):
    """With a length, and rows beyond it."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index % len(self.rows)]


class Forever(IterableDataset):
    def __init__(self, rows):
        self.rows, self.read = rows, 0

    def __iter__(self):
        while True:
            for row in self.rows:
                self.read += 1
                yield row


def ids(dataset, **config):
    examples = prepare_examples(dataset, CalibrationConfig(**{"num_samples": 100, **config}))
    return [example["input_ids"][0].tolist() for example in examples]


@pytest.mark.parametrize(
    "dataset",
    [
        Endless(list(IDS)),
        Endless([{"input_ids": row} for row in IDS]),
        Endless([(row, 3) for row in IDS]),
        Endless([row.tolist() for row in IDS]),
        torch.utils.data.TensorDataset(IDS),
        DataLoader(IDS, batch_size=4),
        DataLoader(torch.utils.data.TensorDataset(IDS, torch.arange(6)), batch_size=4),
        DataLoader([{"input_ids": row, "labels": row} for row in IDS], batch_size=5),
        DataLoader([{"input_ids": row} for row in IDS], batch_size=None),
    ],
    ids=lambda dataset: type(dataset).__name__,
)
def test_datasets_and_loaders_of_torch_give_their_rows(dataset):
    assert ids(dataset) == IDS.tolist()
    assert ids(dataset, num_samples=3) == IDS[:3].tolist()


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: DataLoader(rows, batch_size=2)])
def test_what_never_ends_is_read_as_far_as_needed(wrap):
    rows = Forever([{"input_ids": row} for row in IDS])
    assert len(ids(wrap(rows), num_samples=8)) == 8
    assert rows.read <= 12
    assert ids(wrap(rows), num_samples=2) == IDS[:2].tolist()


def test_a_stream_of_texts_is_read_until_it_fills_the_windows(texts, lm_tokenizer):
    rows = Forever([{"text": text} for text in texts])
    assert len(prepare_examples(rows, CONFIG, lm_tokenizer)) == 4
    assert 0 < rows.read < 40
    stream = datasets.Dataset.from_dict({"text": texts}).to_iterable_dataset()
    assert len(prepare_examples(stream, CONFIG, lm_tokenizer)) == 4
    assert load_texts(datasets.IterableDatasetDict({"train": stream}), CONFIG)[0] == texts[0]
    assert load_texts(DataLoader(texts, batch_size=3), CONFIG)[:5] == texts[:5]
    assert load_texts(DataLoader([{"text": text} for text in texts], batch_size=3), CONFIG)[:5] == texts[:5]


def test_tensors_without_names_are_an_error(texts):
    rows = torch.utils.data.TensorDataset(IDS, torch.ones_like(IDS))
    for dataset in (rows, DataLoader(rows, batch_size=2)):
        with pytest.raises(CalibrationError, match="2 tensors without names: give dicts"):
            ids(dataset)


def test_a_loader_makes_no_rows_of_what_has_no_batch_axis():
    prompt = {
        "input_ids": torch.ones(1, 5).long(),
        "pixel_values": torch.rand(8, 6),
        "image_grid_thw": torch.tensor([[1, 2, 4]]),
    }
    examples = prepare_examples(DataLoader([prompt] * 2, batch_size=None), CONFIG)
    assert [tuple(example["pixel_values"].shape) for example in examples] == [(8, 6)] * 2
