"""``datasets`` the way Optimum's quantizers hand them out: shuffled, cut to some rows, preprocessed."""

from collections.abc import Callable
from typing import Any

from optimum_si.errors import CalibrationError


def load_calibration_dataset(
    dataset_name: str,
    num_samples: int,
    dataset_config_name: str | None,
    dataset_split: str | None,
    preprocess_function: Callable[..., Any] | None,
    preprocess_batch: bool,
    seed: int,
    token: str | bool | None,
) -> Any:
    """A ``datasets.Dataset`` with up to ``num_samples`` rows; arguments as in ``SIPruner.get_calibration_dataset``.

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
