"""Calibration data: from whatever the user has to batches that a model can be called with.

``sources`` reads data (``files``, the Hub, Python objects) into texts or tokenized rows, ``windows`` cuts texts into
token windows, ``fresh`` draws more of them, ``own_text`` lets a model write them, ``examples`` checks tokenized rows,
``data`` gives a run all that it sees, ``batches`` collates. Nothing here knows what the batches are for.
"""

from .batches import make_batches, sorted_by_length, without_padding
from .data import is_own_text, run_data, written_examples
from .fresh import fresh_examples
from .prepare import prepare_examples
from .sources import load_texts


__all__ = [
    "fresh_examples",
    "is_own_text",
    "load_texts",
    "make_batches",
    "prepare_examples",
    "run_data",
    "sorted_by_length",
    "without_padding",
    "written_examples",
]
