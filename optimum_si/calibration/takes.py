"""What has no rows of its own to look at, loaders and streams -> as many rows as are needed."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from optimum_si.config.groups import CalibrationConfig
from optimum_si.errors import CalibrationError

from .columns import is_tokenized
from .examples import name_of_input, rank
from .lazy_rows import LazyRows
from .media import media_kind
from .reader import Reader


#: Characters for each token wanted that are taken of a stream of texts, and rows of it at most.
CHARACTERS, MOST_ROWS = 16, 100_000


def taken_rows(dataset: Any, config: CalibrationConfig, reader: Reader) -> Any:
    """Rows by position, of what has none or may not end.

    Args:
        dataset: a ``DataLoader``, a ``torch.utils.data.Dataset``, a stream of ``datasets``, or another iterable that
            begins anew each time; anything with rows is returned as it is.
        config: how much is needed.
        reader: of the model, whose main input names tensors without a name.

    Raises:
        CalibrationError: for an iterator, which could be read only once, and for what holds no rows at all.
    """
    if isinstance(dataset, DataLoader):
        return list(_enough((row for batch in dataset for row in _unbatched(batch, reader)), config))
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        if not isinstance(dataset, Iterable) or isinstance(dataset, Iterator):
            raise CalibrationError(
                f"dataset is a {type(dataset).__name__}; accepted: a Hub name, a local file, folder or glob, a list "
                "of strings, images or conversations, a datasets.Dataset or a stream of it, a torch Dataset or "
                "DataLoader, tokenized examples. Of an iterator, give the first rows as a list, such as "
                "list(islice(rows, 1000))."
            )
        return list(_enough((_named(row, reader) for row in dataset), config))
    if isinstance(dataset, Dataset) and not hasattr(dataset, "column_names"):
        return LazyRows(dataset, lambda row: _named(row, reader))
    return dataset if hasattr(dataset, "__getitem__") else list(dataset)


def _enough(rows: Iterable[Any], config: CalibrationConfig) -> Iterator[Any]:
    """The first rows: ``num_samples`` examples, or texts that will hold as many windows."""
    characters = 0
    for number, row in enumerate(rows, start=1):
        yield row
        characters += _characters(row)
        is_text = _characters(row) > 0 and not _is_one_example(row)
        wanted = CHARACTERS * config.num_samples * config.sequence_length if is_text else 0
        if (number >= config.num_samples and characters >= wanted) or number >= MOST_ROWS:
            return


def _is_one_example(row: Any) -> bool:
    if not isinstance(row, Mapping):
        return not isinstance(row, str)
    return is_tokenized(row, None) or any(media_kind(value) is not None for value in row.values())


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return sum(map(_characters, entries))


def _unbatched(batch: Any, reader: Reader) -> Iterator[Any]:
    """The rows of a batch; one of tensors stays together, and is split with its masks later."""
    if isinstance(batch, Mapping):
        columns = [value for value in batch.values() if isinstance(value, (list, tuple))]
        lengths = {len(value) for value in batch.values() if hasattr(value, "__len__")}
        if columns and len(lengths) == 1 and any(isinstance(value[0], str) for value in columns if value):
            for index in range(lengths.pop()):
                yield {name: value[index] for name, value in batch.items()}
        else:
            yield from _examples(batch)
    elif isinstance(batch, (list, tuple)) and batch and _is_a_row(batch[0]):
        yield from batch
    else:
        named = _named(batch, reader)
        yield from _examples(named) if isinstance(named, Mapping) else [named]


def _examples(batch: Mapping[str, Any]) -> Iterator[Any]:
    """A batch of tensors as one row for each example, where all entries agree on how many there are."""
    lengths = {len(value) for value in batch.values() if isinstance(value, Tensor) and value.ndim > 0}
    if len(lengths) == 1 and all(isinstance(value, Tensor) and value.ndim > 0 for value in batch.values()):
        size = lengths.pop()
        if any(value.ndim > 1 for value in batch.values()):
            for index in range(size):
                yield {name: value[index : index + 1] for name, value in batch.items()}
            return
    yield batch


def _is_a_row(value: Any) -> bool:
    return isinstance(value, (str, Mapping)) or media_kind(value) is not None


def _named(row: Any, reader: Reader) -> Any:
    """A row of a ``torch`` dataset: the inputs of (inputs, class label), named as the model calls them.

    Raises:
        CalibrationError: for several tensors, of which nobody says what they are.
    """
    if isinstance(row, Tensor):
        return {name_of_input(row, reader.main_input): row}
    if not isinstance(row, (tuple, list)) or not row:
        return row
    first, *others = row
    if isinstance(first, Tensor):
        if any(rank(other) > 0 and rank(other) >= rank(first) for other in others):
            raise CalibrationError(
                f"a row of the dataset is {len(row)} tensors without names: give dicts, such as {{'input_ids': ..., "
                "'attention_mask': ...}."
            )
        return {name_of_input(first, reader.main_input): first}
    if media_kind(first) is not None and not isinstance(row, list):
        texts = [other for other in others if isinstance(other, str)]
        name = "image" if media_kind(first) == "images" else "audio"
        return {name: first, "text": texts[0]} if texts else {name: first}
    return first if isinstance(first, (str, Mapping)) and isinstance(row, tuple) else row
