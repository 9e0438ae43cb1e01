"""Merging of neighbouring tokens over a batch, with counts that follow each merge.

    (a, b) = argmax over valid neighbours of the times they occur, each unit as often as the batch holds it

Equal counts: the pair whose first occurrence is the earliest. A merge runs from left to right, and only the units that
hold the pair are counted anew.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from itertools import pairwise

Pair = tuple[str, str]


class Merger:
    """The distinct units of a batch, in the order of their first occurrence, as tokens."""

    def __init__(self, units: Sequence[list[str]], times: Sequence[int], valid: Callable[[Pair], bool]) -> None:
        self.units = [list(unit) for unit in units]
        self._times = times
        self._valid = valid
        self._counts: dict[Pair, int] = {}
        self._where: dict[Pair, set[int]] = {}
        for number in range(len(self.units)):
            self._count(number, 1)

    def __len__(self) -> int:
        """Tokens of the batch."""
        return sum(len(unit) * times for unit, times in zip(self.units, self._times, strict=True))

    def merge(self) -> int:
        """Merge the most frequent pair wherever it occurs: how many tokens fewer that is; 0 if nothing can merge."""
        if not self._counts:
            return 0
        most = max(self._counts.values())
        pair = min((pair for pair, count in self._counts.items() if count == most), key=self._first)
        saved = 0
        for number in sorted(self._where[pair]):
            self._count(number, -1)
            merged = _merged(self.units[number], pair)
            saved += (len(self.units[number]) - len(merged)) * self._times[number]
            self.units[number] = merged
            self._count(number, 1)
        return saved

    def _first(self, pair: Pair) -> tuple[int, int]:
        """Unit and place of the pair's first occurrence."""
        number = min(self._where[pair])
        return number, next(place for place, found in enumerate(pairwise(self.units[number])) if found == pair)

    def _count(self, number: int, sign: int) -> None:
        """Add the pairs of a unit, or take them away."""
        for pair, times in collections.Counter(filter(self._valid, pairwise(self.units[number]))).items():
            left = self._counts.get(pair, 0) + sign * times * self._times[number]
            if left:
                self._counts[pair] = left
                where = self._where.setdefault(pair, set())
                where.add(number) if sign > 0 else where.discard(number)
            else:
                del self._counts[pair], self._where[pair]


def _merged(unit: list[str], pair: Pair) -> list[str]:
    merged = []
    place = 0
    while place < len(unit):
        found = place + 1 < len(unit) and (unit[place], unit[place + 1]) == pair
        merged.append(pair[0] + pair[1] if found else unit[place])
        place += 2 if found else 1
    return merged
