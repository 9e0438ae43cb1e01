"""Counts of a corpus's tokens, from which a vocabulary is built."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.table.slots import LONGEST, empty_slots
from speak_neuro.table.vocabulary import Vocabulary


class TokenCounter:
    """Counts of tokens, exact, in memory that grows with the number of distinct tokens alone."""

    def __init__(self) -> None:
        self._slots = empty_slots(1 << 14)
        self._offsets = np.zeros(self._slots.shape[0] // 2 + 1, dtype=np.int64)
        self._counts = np.zeros(self._slots.shape[0] // 2, dtype=np.int64)
        self._blob = np.zeros(1 << 17, dtype=np.uint8)
        self._tokens = 0

    def __len__(self) -> int:
        return self._tokens

    def add(self, data: npt.NDArray[np.uint8], start: int, ends: npt.NDArray[np.int32], separator: int) -> int:
        """Count the tokens that end at `ends` (n, 2), the first from `start` -> start of the token after them."""
        from speak_neuro.table.ids import PADDING, count, insert_all

        done = 0
        while True:
            done, start, self._tokens = count(
                data, start, ends, done, len(ends), separator,
                self._slots, self._offsets, self._blob, self._counts, self._tokens,
            )  # fmt: skip
            if done == len(ends):
                return int(start)
            if 2 * self._tokens >= len(self._slots):
                self._slots = empty_slots(2 * len(self._slots))
                self._offsets = _enlarged(self._offsets, len(self._slots) // 2 + 1)
                self._counts = _enlarged(self._counts, len(self._slots) // 2)
                insert_all(self._blob, self._offsets[: self._tokens + 1], self._slots)
            if self._offsets[self._tokens] + LONGEST + PADDING > len(self._blob):
                self._blob = _enlarged(self._blob, 2 * len(self._blob))

    def vocabulary(self, size: int) -> Vocabulary:
        """As `Vocabulary.build` of the counts."""
        return Vocabulary.build(self.counts(), size)

    def counts(self) -> dict[bytes, int]:
        """Token to count."""
        raw, ends = self._blob.tobytes(), self._offsets[: self._tokens + 1].tolist()
        counts = self._counts[: self._tokens].tolist()
        return {raw[ends[t] : ends[t + 1]]: counts[t] for t in range(self._tokens)}


def _enlarged(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    larger = np.zeros(size, dtype=array.dtype)
    larger[: len(array)] = array
    return larger
