"""``datasets`` the way Optimum's quantizers hand them out: shuffled, cut to some rows, preprocessed."""

from collections.abc import Callable
from typing import Any

from optimum_si.errors import CalibrationError


def load_calibration_dataset(
    dataset_name: str,
    num_samples: int = 128,
    dataset_config_name: str | None = None,
    dataset_split: str | None = None,
    preprocess_function: Callable[..., Any] | None = None,
    preprocess_batch: bool = True,
    seed: int = 0,
    token: str | bool | None = None,
) -> Any:
    """A ``datasets.Dataset`` of shuffled rows, as Optimum's quantizers give it, for ``SIPruner.prune``.

    Args:
        dataset_name: Hub name, or a local file for ``datasets.load_dataset``.
        num_samples: rows to keep.
        dataset_config_name: configuration of the dataset.
        dataset_split: split; None means "train".
        preprocess_function: mapped over the rows, for example to tokenize them.
        preprocess_batch: give it batches of rows.
        seed: shuffles the rows.
        token: for private datasets.

    Raises:
        CalibrationError: when ``datasets`` is missing or the split is empty.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise CalibrationError(
            "calibration datasets by name need the `datasets` package: pip install 'optimum-si[datasets]'."
        ) from error
    data = load_dataset(dataset_name, name=dataset_config_name, split=dataset_split or "train", token=token)
    if not len(data):
        raise CalibrationError(f"dataset {dataset_name!r}, split {dataset_split or 'train'!r}, has no rows.")
    data = data.shuffle(seed=seed).select(range(min(num_samples, len(data))))
    return data if preprocess_function is None else data.map(preprocess_function, batched=preprocess_batch)
