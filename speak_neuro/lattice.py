"""All segmentations of many short strings at once, as a lattice of pieces, in numpy.

A unit of n characters has n + 1 nodes, one before each character and one at the end; a piece that matches characters
i..i+k-1 is an edge from node i to node i + k. The units lie side by side, and each pass handles the nodes of one depth
in all units together, so the cost of Python grows with the longest unit and not with the amount of text.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.alphabet import code_points

IndexArray = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

_BASE = 0x110000  # one more than the largest code point


class Trie:
    """A set of distinct, non-empty pieces; `match` finds all of them at all positions at once."""

    def __init__(self, pieces: Sequence[str]) -> None:
        length = np.array([len(piece) for piece in pieces], dtype=np.int64)
        points = code_points("".join(pieces)).astype(np.int64)
        begin = np.cumsum(length) - length
        node = np.zeros(len(pieces), dtype=np.int64)
        piece = np.arange(len(pieces), dtype=np.int64)
        self._keys: list[IndexArray] = []  # per depth: node above * _BASE + character, sorted; a node is its rank
        self._piece: list[IndexArray] = []  # per depth: the piece that ends at a node, or -1
        for depth in range(int(length.max(initial=0))):
            going = length[piece] > depth
            node, piece = node[going], piece[going]
            keys, node = np.unique(node * _BASE + points[begin[piece] + depth], return_inverse=True)
            ends = np.full(keys.size, -1, dtype=np.int64)
            done = length[piece] == depth + 1
            ends[node[done]] = piece[done]
            self._keys.append(keys)
            self._piece.append(ends)

    def match(self, points: IndexArray, room: IndexArray) -> tuple[IndexArray, IndexArray, IndexArray]:
        """Matches as (position, length, piece), within the `room` characters that each position has left."""
        found: list[tuple[IndexArray, IndexArray, IndexArray]] = []
        at, node = np.arange(points.size), np.zeros(points.size, dtype=np.int64)
        for depth, (keys, ends) in enumerate(zip(self._keys, self._piece, strict=True)):
            inside = room[at] > depth
            at, node = at[inside], node[inside]
            wanted = node * _BASE + points[at + depth]
            rank = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
            hit = keys[rank] == wanted
            at, node = at[hit], rank[hit]
            whole = ends[node] >= 0
            found.append((at[whole], np.full(int(whole.sum()), depth + 1), ends[node[whole]]))
        if not found:
            return (np.zeros(0, dtype=np.int64),) * 3
        positions, lengths, pieces = (np.concatenate(part) for part in zip(*found, strict=True))
        return positions, lengths, pieces


@dataclass(frozen=True)
class Lattice:
    """Edges (E,) between nodes, in order of the depth and then the index of the node they lead to, longest last."""

    source: IndexArray
    target: IndexArray
    piece: IndexArray
    """The edge's piece, or -1 for a character that no piece consists of."""
    depth: IndexArray
    """Of each node, its distance from the start of its unit."""
    first: IndexArray
    """Of each unit, its first node."""
    last: IndexArray
    """Of each unit, its last node."""

    @classmethod
    def build(cls, units: Sequence[str], trie: Trie) -> Lattice:
        """The lattice of non-empty `units`; a character without a piece of its own gets an edge of piece -1."""
        length = np.array([len(unit) for unit in units], dtype=np.int64)
        points = code_points("".join(units)).astype(np.int64)
        unit = np.repeat(np.arange(length.size), length)
        room = np.repeat(np.cumsum(length), length) - np.arange(points.size)
        at, size, piece = trie.match(points, room)
        alone = np.ones(points.size, dtype=np.bool_)
        alone[at[size == 1]] = False
        missing = np.flatnonzero(alone)
        at = np.concatenate([at, missing])
        size = np.concatenate([size, np.ones_like(missing)])
        piece = np.concatenate([piece, np.full_like(missing, -1)])
        source = at + unit[at]
        last = np.cumsum(length + 1) - 1
        first = last - length
        depth = np.arange(points.size + length.size) - np.repeat(first, length + 1)
        order = np.lexsort((size, source + size, depth[source] + size))
        return cls(source[order], (source + size)[order], piece[order], depth, first, last)

    def without(self, edges: npt.NDArray[np.bool_]) -> Lattice:
        """The same lattice with the marked edges taken out."""
        kept = ~edges
        return Lattice(self.source[kept], self.target[kept], self.piece[kept], self.depth, self.first, self.last)

    def expected_counts(self, scores: Float64Array, weights: Float64Array) -> Float64Array:
        """How often each piece is expected in the units, each unit counted `weights` times.

        A segmentation has the probability exp(sum of its pieces' `scores`), normalised over those of its unit. Every
        piece -1 must be absent.
        """
        value = scores[self.piece]
        forward = self._sums(value, self.source, self.target, self.first, self.depth[self.target])
        back = np.lexsort((self.source, -self.depth[self.source]))
        height = -self.depth[self.source[back]]
        backward = self._sums(value[back], self.target[back], self.source[back], self.last, height)
        total = np.repeat(forward[self.last], self.last - self.first + 1)
        share = np.exp(forward[self.source] + value + backward[self.target] - total[self.source])
        weight = np.repeat(weights, self.last - self.first + 1)
        return np.asarray(np.bincount(self.piece, share * weight[self.source], minlength=scores.size), dtype=np.float64)

    def _sums(self, value: Float64Array, near: IndexArray, far: IndexArray, start: IndexArray, level: Any) -> Any:
        """Log of the summed probabilities of all paths from `start` to each node, level by level."""
        sums = np.full(self.depth.size, -np.inf)
        sums[start] = 0.0
        for low, high in _blocks(level):
            cuts = np.flatnonzero(np.diff(far[low:high], prepend=-1))
            sums[far[low:high][cuts]] = np.logaddexp.reduceat(sums[near[low:high]] + value[low:high], cuts)
        return sums

    def best(self, value: Float64Array) -> tuple[Float64Array, IndexArray]:
        """Of edges worth `value` (E,): the best sum to each node, and the edge it comes by, of equals the longest."""
        sums = np.full(self.depth.size, -np.inf)
        sums[self.first] = 0.0
        came_by = np.full(self.depth.size, -1, dtype=np.int64)
        for low, high in _blocks(self.depth[self.target]):
            target = self.target[low:high]
            worth = sums[self.source[low:high]] + value[low:high]
            cuts = np.flatnonzero(np.diff(target, prepend=-1))
            top = np.maximum.reduceat(worth, cuts)
            sums[target[cuts]] = top
            winners = np.flatnonzero(worth == np.repeat(top, np.diff(cuts, append=high - low)))
            came_by[target[winners]] = low + winners  # of equal winners the last, the longest, stays
        return sums, came_by

    def best_ends(self, value: Float64Array) -> npt.NDArray[np.bool_]:
        """For each character of the units, side by side, whether the best segmentation ends a piece with it."""
        _, came_by = self.best(value)
        cut = np.zeros(self.depth.size, dtype=np.bool_)
        node = self.last
        while node.size:
            cut[node] = True
            node = self.source[came_by[node]]
            node = node[self.depth[node] > 0]
        return cut[self.depth > 0]  # a character's end is the node after it


def _blocks(level: IndexArray) -> list[tuple[int, int]]:
    """The runs of equal values, as [low, high)."""
    edges = np.append(np.flatnonzero(np.diff(level, prepend=-(1 << 62))), level.size).tolist()
    return list(itertools.pairwise(edges))
