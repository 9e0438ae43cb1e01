"""Ids of a text that arrives in pieces: the same as of the whole, whatever the pieces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from speak_neuro.api.boundaries import Boundaries
from speak_neuro.table.pieces import cut_units
from speak_neuro.table.vocabulary import IdArray, Vocabulary


class IdStream:
    """Ids. One is given out once its range has closed, or is so long that it is cut (`LONGEST_UNIT` bytes)."""

    def __init__(self, boundaries: Boundaries, vocabulary: Vocabulary) -> None:
        self._boundaries, self._vocabulary = boundaries, vocabulary
        self._state: Any = boundaries.start()
        self._open = b""

    def feed(self, piece: str) -> IdArray:
        """The ids that `piece` decides."""
        ends, self._state = self._boundaries.advance(self._state, piece, self._vocabulary.hard_only)
        units, start = [], 0
        for end in ends:
            units.append(self._open + piece[start:end].encode("utf-8", "surrogatepass"))
            start, self._open = end, b""
        self._open += piece[start:].encode("utf-8", "surrogatepass")
        if self._vocabulary.fitted != "whole":
            *decided, self._open = cut_units(self._open)
            units += decided
        return self._vocabulary.encode(units)

    def flush(self) -> IdArray:
        """The ids of what is left; the stream is then at the beginning of a new text."""
        rest, self._open = self._open, b""
        self._state = self._boundaries.start()
        return self._vocabulary.encode([rest] if rest else [])

    def feed_all(self, pieces: Iterable[str]) -> IdArray:
        """The ids of all `pieces`, the last ones included."""
        found = [self.feed(piece) for piece in pieces]
        return np.concatenate([*found, self.flush()])
