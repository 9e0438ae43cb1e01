"""The compiled scan of UTF-8 bytes, with what it carries from block to block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speak_neuro.table.table import CompiledTable, State

ByteArray = npt.NDArray[np.uint8]
BLOCK = 1 << 18
"""Bytes that compiled code takes at a time, so that its scratch memory stays small and in the cache."""


class Running(NamedTuple):
    """The state of compiled code, changed in place."""

    potential: npt.NDArray[np.float32]
    """(1,)"""
    recent: npt.NDArray[np.int64]
    """(k,) rows of the last characters, the newest first."""


class Scanner:
    """A table in the layout of compiled code. A character `separator` ends a text, as `compiled.BREAK` does."""

    def __init__(self, table: CompiledTable, separator: int | None = None) -> None:
        gain, decay, *others = table.constants()
        self._table = table
        # Code points with rows of their own, the unknown ones, the break.
        points = np.array([ord(character) for character in table.alphabet.characters], dtype=np.int64)
        self._index = np.zeros(max(256, int(points.max(initial=0)) + 1) + 2, dtype=np.int32)
        self._index[points] = np.arange(1, points.size + 1)
        self._index[-1] = len(table.alphabet)
        if separator is not None:
            self._index[separator] = len(table.alphabet)
        # By delay and row a current and a gate. Rows: the alphabet, the break, what lies before the text.
        parts = np.zeros((table.taps, len(table.alphabet) + 2, 2), dtype=np.float32)
        parts[:, :-2, 0], parts[:, :-2, 1] = table.current, table.gate
        parts[0, -2] = np.inf
        self._absent = parts.shape[1] - 1
        # A decay or a gain of None is left out, 1 that is: a product with 1 would cost time and change nothing.
        self._constants = (None if decay == 1 else decay, *others)
        self._gain = None if gain == 1 else gain
        if table.taps == 1:
            parts[0, :-2, 0] *= gain
            self._rows = parts[0, self._index]
        else:
            self._parts = parts.view(np.complex64)[..., 0]

    def start(self, state: State | None = None) -> Running:
        """The beginning of a text, or `state`."""
        state = state or self._table.start()
        recent = np.full(self._table.taps, self._absent, dtype=np.int64)
        known = self._table.alphabet.encode(state.recent[::-1])
        recent[: known.size] = known
        return Running(np.array([state.potential], dtype=np.float32), recent)

    def scan(
        self,
        data: ByteArray,
        first: int,
        last: int,
        own: bool,
        running: Running,
        ends: npt.NDArray[np.int32],
        hard_only: bool = False,
    ) -> tuple[int, int, int]:
        """`compiled.scan` of the bytes first..last: fills `ends` -> (characters, cuts, stop).

        With `hard_only` hard resets alone are cuts.
        """
        from speak_neuro.table import scan as compiled

        where = (data, first, last, own, np.float32(0 if hard_only else -np.inf))
        if self._table.taps == 1:
            found = compiled.scan(*where, self._rows, *self._constants, running.potential, ends)
        else:
            found = compiled.scan_taps(*where, self._index, self._parts, self._gain, *self._constants, *running, ends)
        characters, cuts, stop = found
        return characters, cuts, stop


def padded(raw: bytes) -> ByteArray:
    """The bytes in a buffer of their own, with room behind for reading whole words."""
    from speak_neuro.table.ids import PADDING

    data = np.zeros(len(raw) + PADDING, dtype=np.uint8)
    data[: len(raw)] = np.frombuffer(raw, dtype=np.uint8)
    return data


def whole_characters(data: ByteArray | bytes, last: int) -> int:
    """The end, at most `last`, of the last whole character before it. What is not UTF-8 is left for others to find."""
    for back in range(1, min(3, last) + 1):
        byte = int(data[last - back])
        if byte & 0xC0 != 0x80:
            size = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return last - back if size > back else last
    return last
