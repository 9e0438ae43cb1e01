"""Token ids within contextual ranges: each unit of text becomes the fewest pieces of a vocabulary. Lossless.

    id 0..255               one byte
    id 256, 257, ...        pieces by descending frequency, ties by their bytes

A *contextual range* is the text between two hard resets, places where the neuron forgets what came before: no id
crosses one. Within a range a piece may join several of SPEAK's tokens, or be a part of one. With `unit` "tokens" the
units are SPEAK's tokens instead, which no id crosses then. Units of more than `LONGEST_UNIT` bytes are cut there,
behind a whole character, so that a stream never has to hold more than that.

    ids(unit) = the fewest pieces that join to the unit; among equals the longest first piece, then the longest second

Pieces are learned as byte-pair merges (`speak_neuro.table.learn_pieces`). To apply them as merges, in the order in
which they were learned, is less than half as fast and gives 2 to 5 % more ids; to take the longest piece each time is
twice to three times as fast and gives 2 % more ids (experiments/LOG.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.table.slots import LONGEST_UNIT, UNITS
from speak_neuro.table.vocabulary import BYTES, IdArray, Vocabulary

Node = dict[int, Any]
"""A node of the plain trie: children by byte, and the id of the piece that ends here under `BYTES`."""


@dataclass(frozen=True, eq=False)
class Pieces(Vocabulary):
    """A fixed list of pieces; `len(pieces)` counts them and the 256 bytes."""

    unit: str = "ranges"
    """What no id crosses: contextual "ranges", or SPEAK's "tokens"."""

    FORMAT: ClassVar[str] = "speak_neuro pieces"
    KEYS: ClassVar[tuple[str, ...]] = ("unit",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit not in UNITS:
            raise ValueError(f"unit is {self.unit!r}; allowed: {', '.join(UNITS)}")

    @property
    def fitted(self) -> str:
        return self.unit

    def header(self) -> dict[str, Any]:
        return {"unit": self.unit}

    @cached_property
    def _plain(self) -> Node:
        root: Node = {}
        for number, piece in enumerate(self.all):
            node = root
            for byte in piece:
                node = node.setdefault(byte, {})
            node[BYTES] = number
        return root

    def encode(self, units: Iterable[str | bytes]) -> IdArray:
        """The ids (n,) of units, in plain Python: what compiled code is compared with, and used for short texts."""
        ids: list[int] = []
        for unit in units:
            raw = unit.encode("utf-8", "surrogatepass") if isinstance(unit, str) else unit
            for part in cut_units(raw):
                ids += self._fewest(part)
        return np.array(ids, dtype=np.int32)

    def _fewest(self, raw: bytes) -> list[int]:
        size, root = len(raw), self._plain
        cost, step, number = [0] * (size + 1), [0] * size, [0] * size
        for i in range(size - 1, -1, -1):
            least, node = size + 1, root
            for j in range(i, size):
                found = node.get(raw[j])
                if found is None:
                    break
                node = found
                known = node.get(BYTES)
                if known is not None and cost[j + 1] < least:
                    least, step[i], number[i] = cost[j + 1] + 1, j + 1, known
            cost[i] = least
        ids, i = [], 0
        while i < size:
            ids.append(number[i])
            i = step[i]
        return ids

    @cached_property
    def nodes(self) -> npt.NDArray[np.uint64]:
        """The trie of compiled code."""
        from speak_neuro.table.trie import MOST_SLOTS, fill

        order = sorted(range(len(self)), key=self.all.__getitem__)
        pieces = [self.all[number] for number in order]
        offsets = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
        blob = np.frombuffer(b"".join(pieces), dtype=np.uint8)
        for room in (blob.size // 2 + 4096, blob.size + 4096, MOST_SLOTS - 1):
            nodes = np.empty(min(room, MOST_SLOTS - 1), dtype=np.uint64)
            used = fill(blob, offsets, np.array(order, dtype=np.int64), nodes)
            if used:
                return nodes[:used].copy()
        raise SpeakError(f"{len(self):,} pieces of {blob.size:,} bytes are too many for the trie; take fewer")

    def look_up(
        self,
        data: npt.NDArray[np.uint8],
        start: int,
        ends: npt.NDArray[np.int32],
        cuts: int,
        separator: int,
        spilled: bool,
        ids: IdArray,
        sizes: npt.NDArray[np.int64],
    ) -> tuple[int, int]:
        from speak_neuro.table.trie import put_units

        count, ahead = put_units(data, start, ends, cuts, separator, self.nodes, ids, sizes)
        return int(count), int(ahead)

    def spill(
        self, data: npt.NDArray[np.uint8], start: int, last: int, spilled: bool, ids: IdArray, count: int
    ) -> tuple[int, int, bool]:
        from speak_neuro.table.trie import put_open

        count, start = put_open(data, start, last, self.nodes, ids, count)
        return int(count), int(start), False


def cut_units(raw: bytes) -> list[bytes]:
    """A unit's parts of at most `LONGEST_UNIT` bytes, cut behind whole characters from its beginning on."""
    parts, start = [], 0
    while len(raw) - start > LONGEST_UNIT:
        end = start + LONGEST_UNIT
        while raw[end] & 0xC0 == 0x80:
            end -= 1
        parts.append(raw[start:end])
        start = end
    parts.append(raw[start:])
    return parts
