"""Keys and values of earlier tokens, where ONNX Runtime computed them: they are bound, never copied."""

from typing import Any

import numpy as np
from torch import Tensor


class SessionCache:
    """The cache that ``generate`` passes from step to step.

    Args:
        values: one ``OrtValue`` [batch, heads, tokens, size] for each cache input of the graph, in their order; none
            before the first step.
    """

    #: Read by ``generate``: shapes grow, so steps cannot be compiled; tokens can be taken off the end; and every layer
    #: keeps all tokens.
    is_compileable = False
    is_croppable = True
    is_linear = (False,)
    is_sliding = (False,)

    def __init__(self, values: list[Any] | None = None) -> None:
        self.values: list[Any] = values or []

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens in the cache."""
        return self.values[0].shape()[2] if self.values else 0

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """-1: no limit."""
        return -1

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows that beam search goes on with."""
        self._map(lambda array: array[beam_idx.cpu().numpy()])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        self._map(lambda array: np.repeat(array, repeats, axis=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        self._map(lambda array: array[indices.cpu().numpy()])

    def activate_past_recording(self) -> None:
        """Asked for before tokens are taken off the end: all of them are here anyway."""

    def crop(self, tokens: int) -> None:
        """Forget ``-tokens`` tokens from the end; above zero, keep the first ``tokens``."""
        length = self.get_seq_length() + tokens if tokens <= 0 else tokens
        if length < self.get_seq_length():
            self._map(lambda array: array[:, :, :length])

    def _map(self, change: Any) -> None:
        from onnxruntime import OrtValue

        self.values = [
            OrtValue.ortvalue_from_numpy(np.ascontiguousarray(change(value.numpy())), *_place(value))
            for value in self.values
        ]

    def __len__(self) -> int:
        return len(self.values)


def _place(value: Any) -> tuple[str, int]:
    name = value.device_name()
    return (name, 0) if name == "cpu" else (name, value._ortvalue.device_id() if hasattr(value, "_ortvalue") else 0)
