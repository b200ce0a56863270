"""A sparse matrix as the bytes that the kernels read. Version 1 of the layout; ``packed.h`` knows the same.

All layouts are of W [N, K], reduced over K. Rows are padded with zeros to whole strips, columns to whole steps of 8 or
chunks (not in csr):

- "2:4" in floating point: strips of 8 rows, which are 4 pairs; for each strip, step and pair 8 slots (group of 4, row,
  number), which an AVX2 register holds. ``values`` has one for each slot, ``indices`` a byte for each group of
  both rows: twice (case of the first + 6 x case of the second row), cases in the order of :data:`TWO_OF_FOUR`.
- "2:4" in integers: strips of 4 rows, chunks of 64 columns, which are 4 blocks of 16; a block has 32 slots (row,
  group, number). ``values`` has a byte for each slot; 4 bits: 2 x 32 bytes a chunk, blocks 0 and 2 in the low, 1 and
  3 in the high nibbles. ``indices`` has 32 bytes a chunk with 2 bits for each block.
- "bitmask": strips of 4 rows; ``indices`` has a byte for each strip, step and row, bit c for column c; ``values``
  follow the bits; ``starts`` is the first value of each strip, and their number, as uint32.
- "4:8": as bitmasks, but ``indices`` are twice the place of the mask in :data:`FOUR_OF_EIGHT`, and there are no
  ``starts``: each has 4 values.
- "csr": ``indices`` are uint16 columns, ``starts`` the first value of each row, as uint32.

Values are fp32, fp16, int8 with fp32 scales, or 4 bits + 8 (two a byte, the first one low) with fp16 scales; scales
are [strips, groups, 4], of csr [N, groups]. ``SLACK`` zero bytes follow values and indices: kernels read whole
registers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


VERSION = 1
FORMATS = ("2:4", "4:8", "bitmask", "csr")
DTYPES = ("fp32", "fp16", "int8", "int4")
SLACK = 64
STEP, PAIR_STRIP, MASK_STRIP = 8, 8, 4
BLOCK_STRIP, BLOCK_COLUMNS = 4, 64
#: Columns that share a scale where nothing else is said: of int4, and the least of any.
GROUP = 32
#: Positions of 2:4, and masks of 4:8, whose places are codes.
TWO_OF_FOUR = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], np.uint8)
FOUR_OF_EIGHT = np.array([mask for mask in range(256) if mask.bit_count() == 4], np.uint8)
#: Columns that 16-bit indices reach.
MOST_CSR_COLUMNS = 65_536


@dataclass(frozen=True, eq=False)
class Packed:
    """A packed matrix.

    Args:
        format: one of :data:`FORMATS`.
        dtype: that of the values, of :data:`DTYPES`.
        shape: N, K.
        group: number of columns that share a scale; 0 for floating point.
        parts: "values", "indices", "starts" and "scales", uint8 each; empty where a format has none.
    """

    format: str
    dtype: str
    shape: tuple[int, int]
    group: int
    parts: Mapping[str, np.ndarray]

    @property
    def nbytes(self) -> int:
        """Of all parts."""
        return sum(part.nbytes for part in self.parts.values())

    @property
    def in_blocks(self) -> bool:
        """Whether it is 2:4 in integers."""
        return self.format == "2:4" and self.dtype in ("int8", "int4")
