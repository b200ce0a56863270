"""Calibration data: from whatever the user has to batches that a model can be called with.

``sources`` reads data (``files``, the Hub, Python objects; ``takes`` those that have no length) into rows, of which
``columns`` says what they hold. ``chats`` become texts, ``windows`` cuts texts into token windows, ``fresh`` draws
more of them, ``own_text`` lets a model write them. ``processing`` gives images and sounds (``media``) to the model's
own processor, ``examples`` checks tokenized rows, ``decoder_inputs`` adds what a decoder reads. ``data`` gives a run
all that it sees, ``batches`` collates. What a model reads is in its ``reader``; nothing knows what batches are for.
"""

from .batches import make_batches, sorted_by_length, without_padding
from .data import is_own_text, run_data, written_examples
from .decoder_inputs import with_decoder_inputs
from .fresh import fresh_examples
from .prepare import prepare_examples
from .reader import Reader
from .sources import load_texts


__all__ = [
    "Reader",
    "fresh_examples",
    "is_own_text",
    "load_texts",
    "make_batches",
    "prepare_examples",
    "run_data",
    "sorted_by_length",
    "with_decoder_inputs",
    "without_padding",
    "written_examples",
]
