"""One number for each example is an input where the model's forward names it, as XMOD's language."""

import datasets
import numpy as np
import pytest
import torch
from support.models import prune, same_bytes
from support.zoo import ZOO
from torch.utils.data import DataLoader

from optimum_si import CalibrationConfig, CalibrationError
from optimum_si.calibration import Reader, make_batches, prepare_examples


IDS = [[5, 6, 7], [8, 9, 10]]
ROWS = [
    {"input_ids": [5, 6, 7], "lang_ids": 0},
    {"input_ids": [8, 9, 10, 11, 12], "lang_ids": 1},
    {"input_ids": [13, 14, 15, 16], "lang_ids": 1},
]


def prepare(dataset, *names):
    inputs = frozenset({"input_ids", "attention_mask", *names})
    return prepare_examples(dataset, CalibrationConfig(), reader=Reader(inputs=inputs))


@pytest.mark.parametrize(
    "dataset",
    [
        [{"input_ids": ids, "lang_ids": lang} for ids, lang in zip(IDS, (3, 4), strict=True)],
        [{"input_ids": ids, "lang_ids": torch.tensor(lang)} for ids, lang in zip(IDS, (3, 4), strict=True)],
        [{"input_ids": np.array(ids), "lang_ids": np.int64(lang)} for ids, lang in zip(IDS, (3, 4), strict=True)],
        [{"input_ids": [ids], "lang_ids": lang} for ids, lang in zip(IDS, (3, 4), strict=True)],
        [
            {"input_ids": torch.tensor([ids]), "lang_ids": torch.tensor([n])}
            for ids, n in zip(IDS, (3, 4), strict=True)
        ],
        {"input_ids": IDS, "lang_ids": [3, 4]},
        {"input_ids": torch.tensor(IDS), "lang_ids": torch.tensor([3, 4])},
        datasets.Dataset.from_dict({"input_ids": IDS, "lang_ids": [3, 4]}),
        DataLoader(
            [{"input_ids": torch.tensor(ids), "lang_ids": n} for ids, n in zip(IDS, (3, 4), strict=True)], batch_size=2
        ),
    ],
    ids=["ints", "tensors", "arrays", "rows of one", "tensors of one", "lists", "batch", "dataset", "loader"],
)
def test_every_way_to_hold_a_number_gives_the_same_examples(dataset):
    examples = prepare(dataset, "lang_ids")
    assert [example["lang_ids"].tolist() for example in examples] == [[3], [4]]
    assert [example["input_ids"].tolist() for example in examples] == [[ids] for ids in IDS]
    assert all("lang_ids" not in example for example in prepare(dataset))


def test_a_number_beside_a_batch_is_that_of_all_its_examples():
    dataset = [{"input_ids": torch.tensor(IDS), "lang_ids": 3, "speed": torch.tensor(0.5)}]
    for example in prepare(dataset, "lang_ids", "speed"):
        assert example["lang_ids"].tolist() == [3] and example["speed"].tolist() == [0.5]


def test_answers_and_switches_are_no_inputs():
    row = {"input_ids": [5, 6, 7], "lang_ids": 3, "labels": 1, "start_positions": 0, "use_cache": False, "idx": 9}
    (example,) = prepare([row], "lang_ids", "labels", "start_positions", "use_cache")
    assert set(example) == {"input_ids", "attention_mask", "lang_ids"}


def test_a_list_of_one_beside_tokens_keeps_its_own_axis():
    """As the only entity of a text, which LUKE reads."""
    (example,) = prepare([{"input_ids": [5, 6, 7], "entity_ids": [4]}], "entity_ids")
    assert example["entity_ids"].shape == (1, 1)


def test_numbers_of_prompts_stay_with_their_images():
    patches, grid = torch.rand(12, 6), torch.tensor([[1, 2, 2], [1, 2, 4]])
    batch = {"input_ids": torch.tensor(IDS), "pixel_values": patches, "image_grid_thw": grid, "lang_ids": [3, 4]}
    one, other = prepare(batch, "pixel_values", "image_grid_thw", "lang_ids")
    assert one["lang_ids"].tolist() == [3] and len(one["pixel_values"]) == 4
    assert other["lang_ids"].tolist() == [4] and len(other["pixel_values"]) == 8


def test_a_number_alone_is_nothing_to_read():
    with pytest.raises(CalibrationError, match="holds 'pixel_values'"):
        prepare([{"pixel_values": torch.rand(3, 4, 4), "lang_ids": 3}], "lang_ids")


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_padded_batch_gives_each_example_its_number(side):
    model = ZOO["XmodModel"].build()
    examples = prepare_examples(ROWS, CalibrationConfig(), reader=Reader.of(model))
    (batch,) = make_batches(examples, 4, padding_side=side)
    assert batch["lang_ids"].tolist() == [0, 1, 1] and batch["input_ids"].shape == (3, 5)
    with torch.no_grad():
        together = model(**batch).last_hidden_state
        for row, example in enumerate(examples):
            here = together[row, batch["attention_mask"][row].bool()]
            alone = model(**example).last_hidden_state[0]
            other = model(**{**example, "lang_ids": 1 - example["lang_ids"]}).last_hidden_state[0]
            torch.testing.assert_close(here, alone)
            assert float((here - other).abs().max()) > 1e-2


def test_a_run_sees_each_example_in_its_language():
    """As the same languages said for every token, which the model reads too."""
    each = [{**row, "lang_ids": [row["lang_ids"]] * len(row["input_ids"])} for row in ROWS]
    models = {}
    for name, data in (
        ("number", ROWS),
        ("tokens", each),
        ("none", [{"input_ids": row["input_ids"]} for row in ROWS]),
    ):
        models[name] = ZOO["XmodModel"].build()
        prune(models[name], "wanda", data * 4, induction=None, sparsity=0.5)
    assert same_bytes(models["number"], models["tokens"])
    assert not same_bytes(models["number"], models["none"])
