"""User's data -> a source: names (published, local, Hub) and Python objects."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from optimum_si.config.groups import CalibrationConfig
from optimum_si.errors import CalibrationError

from .files import find_files, looks_like_a_path, read_files
from .own_text import OWN_TEXT
from .reader import Reader
from .rows import Source, as_source
from .takes import taken_rows


@dataclass(frozen=True)
class PublishedSplit:
    """What the pruning papers (SparseGPT, Wanda) load under a short name.

    Args:
        arguments: of ``datasets.load_dataset``.
        rows: use the first so many; None is all.
        joined_by: makes one document of all rows; None keeps them apart.
        max_windows: of an evaluation.
    """

    arguments: Mapping[str, Any]
    rows: int | None = None
    joined_by: str | None = None
    max_windows: int | None = None


_WIKITEXT2 = {"path": "Salesforce/wikitext", "name": "wikitext-2-raw-v1"}
_C4_TRAIN = {"train": "en/c4-train.00000-of-01024.json.gz"}
_C4_VALIDATION = {"validation": "en/c4-validation.00000-of-00008.json.gz"}

CALIBRATION_SPLITS = {
    "wikitext2": PublishedSplit({**_WIKITEXT2, "split": "train"}, joined_by=" "),
    "c4": PublishedSplit({"path": "allenai/c4", "data_files": _C4_TRAIN, "split": "train"}),
}
EVALUATION_SPLITS = {
    "wikitext2": PublishedSplit({**_WIKITEXT2, "split": "test"}, joined_by="\n\n"),
    "c4": PublishedSplit(
        {"path": "allenai/c4", "data_files": _C4_VALIDATION, "split": "validation"},
        rows=1100,
        joined_by=" ",
        max_windows=256,
    ),
}
#: What data of other kinds is, in words.
NO_TEXTS = {"tokens": "already tokenized", "chats": "conversations", "media": "images or sounds", "pairs": "pairs"}


def load_texts(dataset: Any, config: CalibrationConfig, evaluation: bool = False) -> list[str]:
    """The documents of a dataset of text; empty ones are "".

    Args:
        dataset: as in :func:`prepare_examples`, but text.
        config: ``dataset_config``, ``split`` and ``column`` are used; the split of a Hub dataset defaults to "train",
            or to "test" for an evaluation.
        evaluation: load the published evaluation splits of "wikitext2" and "c4", not those for calibration.

    Raises:
        CalibrationError: there is no data, it cannot be read, or it is tokenized.
    """
    source = load_source(dataset, config, evaluation)
    if source.kind != "text":
        raise CalibrationError(
            f"The dataset is {NO_TEXTS[source.kind]}: give texts, or a text column as calibration.column."
        )
    return [text or "" for text in source.rows]


def load_source(
    dataset: Any, config: CalibrationConfig, evaluation: bool = False, reader: Reader | None = None
) -> Source:
    """What a dataset holds; rows of a ``datasets.Dataset`` are read on access.

    Args:
        dataset, config, evaluation: as for :func:`load_texts`, and of any kind. Of loaders and streams as many rows
            are read as ``num_samples`` examples need.
        reader: of the model; None for any.

    Raises:
        CalibrationError: the dataset is empty, of no known kind, or cannot be read.
    """
    reader = reader or Reader()
    published = EVALUATION_SPLITS if evaluation else CALIBRATION_SPLITS
    if isinstance(dataset, str) and dataset in published:
        return _published(dataset, published[dataset], config)
    if isinstance(dataset, str) and dataset == OWN_TEXT:
        raise CalibrationError(
            f"dataset={OWN_TEXT!r} is text that a model writes to be pruned or recovered on; here texts of others are "
            "needed. (A folder of that name is './self'.)"
        )
    if isinstance(dataset, (str, os.PathLike)):
        return _named(os.path.expanduser(dataset), config, evaluation, reader)
    if isinstance(dataset, Mapping) and any(hasattr(value, "column_names") for value in dataset.values()):
        dataset = _chosen_split(dataset, config, evaluation)
    elif isinstance(dataset, (Mapping, Tensor)):
        dataset = [dataset]
    rows = taken_rows(dataset, config, reader)
    return as_source(rows, config.column, "The dataset", reader, config.target_column)


def _named(name: str, config: CalibrationConfig, evaluation: bool, reader: Reader) -> Source:
    if os.path.isdir(name):
        if os.path.exists(os.path.join(name, "dataset_dict.json")) or os.path.exists(os.path.join(name, "state.json")):
            return load_source(_datasets(name).load_from_disk(name), config, evaluation, reader)
        if config.split is not None or config.dataset_config is not None:
            return _from_hub(name, config, evaluation, reader)
    files = find_files(name)
    if files is not None:
        source = read_files(files, config.column, reader, config.target_column)
        if not source.rows:
            raise CalibrationError(f"dataset={name!r} is empty: give files with at least one text or example.")
        return source
    if not name or looks_like_a_path(name):
        raise CalibrationError(f"dataset={name!r}: no file, folder or glob match of that name exists; check the path.")
    return _from_hub(name, config, evaluation, reader)


def _published(name: str, published: PublishedSplit, config: CalibrationConfig) -> Source:
    if config.split is not None or config.dataset_config is not None:
        raise CalibrationError(
            f"dataset={name!r} means the published split, which split={config.split!r} and "
            f"dataset_config={config.dataset_config!r} contradict: leave them out, or give the Hub name "
            f"{published.arguments['path']!r} instead."
        )
    rows = _load_dataset(name, dict(published.arguments))
    texts: Sequence[str] = rows["text"]
    if published.rows is not None:
        texts = texts[: published.rows]
    return Source(texts if published.joined_by is None else [published.joined_by.join(texts)], "text")


def _from_hub(name: str, config: CalibrationConfig, evaluation: bool, reader: Reader) -> Source:
    split = config.split or _default_split(evaluation)
    rows = _load_dataset(name, {"path": name, "name": config.dataset_config, "split": split})
    return as_source(rows, config.column, f"dataset={name!r}", reader, config.target_column)


def _chosen_split(splits: Mapping[str, Any], config: CalibrationConfig, evaluation: bool) -> Any:
    split = config.split or _default_split(evaluation)
    if split not in splits:
        raise CalibrationError(f"The dataset has no split {split!r}; it has {list(splits)}: set calibration.split.")
    return splits[split]


def _default_split(evaluation: bool) -> str:
    return "test" if evaluation else "train"


def _load_dataset(name: str, arguments: dict[str, Any]) -> Any:
    datasets = _datasets(name)
    try:
        return datasets.load_dataset(**arguments)
    except Exception as error:  # whatever the Hub, the network and the builders raise
        raise CalibrationError(
            f"dataset={name!r} is no local file, folder or glob, and datasets.load_dataset(**{arguments}) failed: "
            f"{error}\nCheck the name, split, dataset_config and the connection, or give a local file; a text itself "
            "goes into a list."
        ) from error


def _datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise CalibrationError(
            f'dataset={name!r} needs the datasets library: pip install "optimum-si[datasets]".'
        ) from error
    return datasets
