"""The hash table of token ids as arrays: its shape and its longest token, for plain and compiled code alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LONGEST = 64
"""Bytes of the longest token that a vocabulary holds; longer ones fall back to bytes."""
LONGEST_UNIT = 256
"""Bytes of the longest unit that pieces are fitted into; a longer one is cut, so that a stream need not hold more."""
UNITS = ("ranges", "tokens")
"""What pieces can be fitted into: contextual ranges between hard resets, or SPEAK's tokens."""


class Slots(NamedTuple):
    """The hash table of compiled code, see `speak_neuro.table.ids`."""

    slots: npt.NDArray[np.uint64]
    offsets: npt.NDArray[np.int64]
    blob: npt.NDArray[np.uint8]


def empty_slots(least: int) -> npt.NDArray[np.uint64]:
    """An empty hash table of a power of two, at least `least` slots."""
    return np.zeros((1 << max(8, (max(least, 1) - 1).bit_length()), 2), dtype=np.uint64)
