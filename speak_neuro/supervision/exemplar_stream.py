"""The exemplar's boundaries of a text of any length, from its ids: compiled loops, each distinct word cut once.

    boundary(t) = t is the last character before a word, or of a token inside a word, or of the text

The tokenizer library is asked once for each distinct run of characters without white space. A table holds the runs by
their ids (compared character by character, never by hash alone) with their inner boundaries as one bit each; when it is
full it is emptied, so memory is bounded. Runs of more than 63 characters are asked for each time.

`stream_boundaries` gives what `UnigramExemplar.boundaries` gives for the same text, unknown characters as U+FFFD.
"""

# Numba infers the types inside a kernel.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import BoolArray
from speak_neuro.common.numba_cache import kernel
from speak_neuro.corpus.memory_map import release
from speak_neuro.supervision.exemplar import LONGEST_RUN, UnigramExemplar
from speak_neuro.text.alphabet import Alphabet

CHUNK = 1 << 20
LONGEST = 63
"""Characters of a run that the table holds: its inner boundaries are bits of one number."""
RUNS = 1 << 21
SLOTS = 1 << 22
CHARACTERS = 1 << 25
"""Sizes of the table: distinct runs, hash slots (a power of two), characters of all runs."""


def stream_boundaries(
    exemplar: UnigramExemplar, ids: npt.NDArray[Any], alphabet: Alphabet, chunk: int = CHUNK
) -> Iterator[BoolArray]:
    """Arrays whose concatenation (n,) says where tokens end in the text of `ids` (n,), which may be memory-mapped."""
    space = np.array([False, *(c.isspace() for c in alphabet.characters)])
    table = _Table(exemplar, alphabet)
    at, size = 0, chunk
    while at < len(ids):
        block = np.asarray(ids[at : at + size])
        cut = len(block)
        if at + cut < len(ids):
            cut = _last_word(space[block])
        if cut == 0:  # no word begins in it
            size *= 2
            continue
        yield table.boundaries(np.array(block[:cut]), space)
        at, size = at + cut, chunk
        release(ids)


def _last_word(space: BoolArray) -> int:
    """Where the last word of a block begins; in a block within one word, a place where the exemplar cuts it anyway."""
    for first in (max(0, len(space) - 4096), 0):  # nearly always there is one near the end
        begins = np.flatnonzero(space[first:-1] & ~space[first + 1 :])
        if len(begins):
            return first + int(begins[-1]) + 1
    return 0 if space.any() else len(space) // LONGEST_RUN * LONGEST_RUN


class _Table:
    """Distinct runs, their ids and their inner boundaries."""

    def __init__(self, exemplar: UnigramExemplar, alphabet: Alphabet) -> None:
        self._exemplar, self._alphabet = exemplar, alphabet
        self._slots = np.zeros(SLOTS, dtype=np.int32)
        self._places = np.zeros((RUNS, 2), dtype=np.int32)  # where its ids begin, and how many
        self._bits = np.zeros(RUNS, dtype=np.uint64)
        self._characters = np.zeros(CHARACTERS, dtype=np.uint32)
        self._used = np.zeros(2, dtype=np.int64)  # runs, characters

    def boundaries(self, block: npt.NDArray[Any], space: BoolArray) -> BoolArray:
        """Boundaries of a block that ends where a token ends."""
        if len(self._places) - self._used[0] < len(block) or len(self._characters) - self._used[1] < len(block):
            self._slots[:] = 0
            self._used[:] = 0
        known, held = self._used.tolist()
        runs = np.empty((len(block) // 2 + 1, 3), dtype=np.int32)
        count = _find(block, space, self._slots, self._places, self._characters, self._used, runs)
        runs = runs[:count]
        if self._used[0] > known:
            self._ask(known, held)
        ends = np.zeros(len(block), dtype=np.bool_)
        _mark(runs, self._bits, ends)
        for start, length, _ in runs[runs[:, 2] < 0].tolist():
            text = self._text(block[start : start + length])
            for low in range(0, length, LONGEST_RUN):
                ends[start + low + self._exemplar.ends_of_run(text[low : low + LONGEST_RUN])] = True
            ends[start + length - 1] = False
        ends[-1] = True
        return ends

    def _ask(self, known: int, held: int) -> None:
        """The inner boundaries of the runs from `known` on, whose characters begin at `held`."""
        text = self._text(self._characters[held : self._used[1]])
        places = self._places[known : self._used[0]].tolist()
        words = [text[start - held : start - held + length] for start, length in places]
        self._bits[known : self._used[0]] = self._exemplar.inner_ends(words)

    def _text(self, ids: npt.NDArray[Any]) -> str:
        return self._alphabet.decode_lossy(ids)


@kernel
def _find(block, space, slots, places, characters, used, runs):
    """Fill `runs` with (start, length, number in the table or -1) of each run of the block; how many there are."""
    count, at, size = 0, 0, len(block)
    while at < size:
        if space[block[at]]:
            at += 1
            continue
        start, hashed = at, np.uint64(14695981039346656037)
        while at < size and not space[block[at]]:
            hashed = (hashed ^ np.uint64(block[at])) * np.uint64(1099511628211)
            at += 1
        length = at - start
        number = -1
        if length <= LONGEST:
            slot = np.int64((hashed ^ (hashed >> np.uint64(29))) & np.uint64(len(slots) - 1))
            while True:
                number = slots[slot] - 1
                if number < 0:
                    break
                begin = places[number, 0]
                if places[number, 1] == length:
                    same = True
                    for offset in range(length):
                        if characters[begin + offset] != block[start + offset]:
                            same = False
                            break
                    if same:
                        break
                slot = (slot + 1) & (len(slots) - 1)
            if number < 0:
                number = used[0]
                slots[slot] = number + 1
                places[number, 0], places[number, 1] = used[1], length
                for offset in range(length):
                    characters[used[1] + offset] = block[start + offset]
                used[0] += 1
                used[1] += length
        runs[count, 0], runs[count, 1], runs[count, 2] = start, length, number
        count += 1
    return count


@kernel
def _mark(runs, bits, ends):
    """Boundaries before each run, and inside those that the table knows."""
    for row in range(len(runs)):
        start = runs[row, 0]
        if start > 0:
            ends[start - 1] = True
        if runs[row, 2] >= 0:
            inner = bits[runs[row, 2]]
            while inner:
                if inner & np.uint64(1):
                    ends[start] = True
                inner >>= np.uint64(1)
                start += 1
