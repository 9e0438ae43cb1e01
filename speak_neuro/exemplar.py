"""The exemplar tokenizer whose boundaries start the proxy spikes: a Unigram model, as in dynamic pooling.

A Unigram model gives each piece x a probability p(x); a string is cut where the product over its pieces is largest. The
pieces are learned by expectation maximisation from frequent substrings, of which the least useful are dropped until
`vocabulary` are left. Everything is sorted and summed in a fixed order, so on one machine the same text always gives
the same model; the trainer of the `tokenizers` library sums over hash maps and differs from run to run.

    units      runs of letters, digits and their marks, or of other signs; a piece never leaves its unit
    spaces     a run of white space belongs to the end of the token before it; at the text's start it is a token
    unknown    a character that no piece consists of is a token

Boundaries follow the `closes` convention: True at the last character of a token, always at the text's end.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.alphabet import code_points
from speak_neuro.command import write_json
from speak_neuro.errors import SpeakError
from speak_neuro.lattice import Lattice, Trie

BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

SCHEMA = 1
LEARN_CHARACTERS = 1_000_000
CHARACTERS_PER_PIECE = 50
LONGEST_PIECE = 16
LONGEST_UNIT = 1000
LONGEST_LEARNED_UNIT = 64
KEEP_PER_ROUND = 0.75
SEEDS_PER_PIECE = 8
UNKNOWN_PENALTY = 10.0
_SLICES = 64
_SPACE, _LETTER, _SIGN, _SAME = range(4)


def whitespace_boundaries(text: str) -> BoolArray:
    """True at the last character of each run of white space, and at the text's end."""
    space = _kinds(code_points(text)) == _SPACE
    ends = np.ones(space.size, dtype=np.bool_)
    ends[:-1] = space[:-1] & ~space[1:]
    return ends


@dataclass(frozen=True)
class UnigramExemplar:
    """A learned Unigram model: `pieces` and the natural logarithms of their probabilities."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.pieces) != len(self.scores) or not self.pieces:
            raise ValueError(f"{len(self.pieces)} pieces and {len(self.scores)} scores; allowed: as many, at least 1")
        if not all(self.pieces) or len(set(self.pieces)) != len(self.pieces):
            raise ValueError("pieces are empty or repeated; allowed: distinct strings")
        if not np.isfinite(self.scores).all():
            raise ValueError("scores hold infinity or NaN; allowed: finite numbers")

    @classmethod
    def train(cls, text: str, vocabulary: int = 5000, learn_characters: int = LEARN_CHARACTERS) -> UnigramExemplar:
        """Learn from `text`, or from `learn_characters` of it in slices spread evenly when it is longer.

        `vocabulary` counts the pieces, single characters included. A short text gets fewer: one piece for 50 of its
        characters, or two for each different one if those are more. All single characters are kept in any case.
        """
        if vocabulary < 1:
            raise ValueError(f"vocabulary is {vocabulary}; allowed: at least 1")
        counts: Counter[str] = Counter()
        for piece in _sampled(text, learn_characters):
            starts, ends = _units(piece, LONGEST_LEARNED_UNIT)
            counts.update(piece[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True))
        if not counts:
            raise SpeakError("the exemplar has nothing to learn: the text is empty or all white space")
        affordable = min(len(text), learn_characters) // CHARACTERS_PER_PIECE
        characters = sorted(set().union(*counts))
        size = max(len(characters), min(vocabulary, max(affordable, 2 * len(characters))))
        pieces, scores = _learn(counts, characters, size)
        return cls(tuple(pieces), tuple(scores.tolist()))

    def boundaries(self, text: str) -> BoolArray:
        """Where tokens end in `text`: (L,) booleans, in the `closes` convention."""
        ends = np.zeros(len(text), dtype=np.bool_)
        if not text:
            return ends
        starts, stops = _units(text, LONGEST_UNIT)
        index: dict[str, int] = {}
        which = np.array(
            [index.setdefault(text[a:b], len(index)) for a, b in zip(starts.tolist(), stops.tolist(), strict=True)],
            dtype=np.int64,
        )
        if index:
            lattice = Lattice.build(list(index), self._trie)
            cuts = lattice.best_ends(self._values[lattice.piece])
            length = lattice.last - lattice.first
            offset = np.cumsum(length) - length
            size = length[which]
            within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
            ends[np.repeat(starts, size) + within] = cuts[np.repeat(offset[which], size) + within]
        # A token's end moves behind the white space that follows it; leading white space is a token.
        space = _kinds(code_points(text)) == _SPACE
        ends[:-1] &= ~space[1:]
        ends[:-1] |= space[:-1] & ~space[1:]
        ends[-1] = True
        return ends

    def boundaries_of_pieces(self, pieces: Iterable[str]) -> Iterator[BoolArray]:
        """`boundaries` for a text too long for memory: arrays whose concatenation belongs to the joined pieces.

        The text is cut behind white space, so the result is the same as for the whole wherever it has any within
        a piece.
        """
        held = ""
        for piece in pieces:
            held += piece
            space = np.flatnonzero(_kinds(code_points(held)) == _SPACE)
            after = space[space < len(held) - 1] + 1
            after = after[~np.isin(after, space)]  # between two tokens, not within a run of white space
            if after.size:
                yield self.boundaries(held[: after[-1]])
                held = held[after[-1] :]
        if held:
            yield self.boundaries(held)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        pieces = [" ".join(f"{ord(c):x}" for c in piece) for piece in self.pieces]
        return {"schema": SCHEMA, "kind": "unigram", "code_points": pieces, "scores": list(self.scores)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> UnigramExemplar:
        """The inverse of `to_json`."""
        if value.get("schema") != SCHEMA or value.get("kind") != "unigram":
            raise ValueError(
                f"exemplar is {value.get('kind')!r} of schema {value.get('schema')!r}; allowed: unigram, 1"
            )
        try:
            pieces = ("".join(chr(int(point, 16)) for point in piece.split()) for piece in value["code_points"])
            return cls(tuple(pieces), tuple(float(score) for score in value["scores"]))
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"exemplar cannot be read ({error})") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a JSON file."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> UnigramExemplar:
        """Read the model that `save` wrote."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError) as error:
            raise SpeakError(f"{os.fspath(path)}: not an exemplar ({error}); give the file that a run saved") from None

    @cached_property
    def _trie(self) -> Trie:
        return Trie(self.pieces)

    @cached_property
    def _values(self) -> Float64Array:
        """The scores, and last, where piece -1 finds it, that of an unknown character."""
        return np.append(self.scores, min(self.scores) - UNKNOWN_PENALTY)


@lru_cache(maxsize=1)
def _kind_table() -> npt.NDArray[np.uint8]:
    """The kind of every code point: white space, letter or digit, sign, or one that joins what precedes it."""
    kinds = {"L": _LETTER, "N": _LETTER, "M": _SAME}
    table = [
        _SPACE if c.isspace() else _SAME if (k := unicodedata.category(c)) == "Cf" else kinds.get(k[0], _SIGN)
        for c in map(chr, range(0x110000))
    ]
    return np.array(table, dtype=np.uint8)


def _kinds(points: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """Space, letter or sign for each character; marks and joiners take what they follow, a space excepted."""
    found = _kind_table()[points]
    own = np.where(found == _SAME, 0, np.arange(found.size))
    followed = found[np.maximum.accumulate(own)]
    filled = np.where(found == _SAME, followed, found)
    return np.where((found == _SAME) & ((filled == _SPACE) | (filled == _SAME)), _SIGN, filled).astype(np.uint8)


def _units(text: str, longest: int) -> tuple[IndexArray, IndexArray]:
    """Start and end of each run of one kind that is not white space; runs over `longest` are cut."""
    kinds = _kinds(code_points(text))
    starts = np.flatnonzero(np.diff(kinds, prepend=255))
    size = np.diff(starts, append=kinds.size)
    parts = -(-size // longest)
    if parts.size and parts.max() > 1:
        number = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
        starts = np.repeat(starts, parts) + number * longest
        size = np.diff(starts, append=kinds.size)
    solid = kinds[starts] != _SPACE
    return starts[solid], (starts + size)[solid]


def _sampled(text: str, limit: int) -> list[str]:
    if len(text) <= limit:
        return [text]
    size = max(1, limit // _SLICES)
    return [text[len(text) * i // _SLICES :][:size] for i in range(_SLICES)]


def _learn(counts: Counter[str], characters: list[str], vocabulary: int) -> tuple[list[str], Float64Array]:
    """Expectation maximisation with pruning, from the counts of units."""
    units = sorted(counts)
    weights = np.array([counts[unit] for unit in units], dtype=np.float64)
    pieces, frequency = _seeds(units, weights, characters, SEEDS_PER_PIECE * vocabulary)
    scores = np.log(frequency) - np.log(frequency.sum())
    while True:
        lattice = Lattice.build(units, Trie(pieces))
        for _ in range(2):
            expected = np.maximum(lattice.expected_counts(scores, weights), 1e-6)
            scores = np.log(expected) - np.log(expected.sum())
        if len(pieces) <= vocabulary:
            return pieces, scores
        kept = _most_useful(pieces, scores, expected, max(vocabulary, int(len(pieces) * KEEP_PER_ROUND)))
        pieces, scores = [pieces[i] for i in kept], scores[kept]


def _seeds(
    units: list[str], weights: Float64Array, characters: list[str], limit: int
) -> tuple[list[str], Float64Array]:
    """All single characters, then the `limit` substrings with the largest count * length that occur at least twice."""
    length = np.array([len(unit) for unit in units], dtype=np.int64)
    joined = "".join(units)
    letter = np.searchsorted(code_points("".join(characters)), code_points(joined)).astype(np.int64)
    room = np.repeat(np.cumsum(length), length) - np.arange(letter.size)
    weight = np.repeat(weights, length)
    pieces, frequency = list(characters), [np.bincount(letter, weight)]
    at, prefix = np.arange(letter.size), letter
    places, sizes, found = [], [], []
    for size in range(2, LONGEST_PIECE + 1):
        inside = room[at] >= size
        at, prefix = at[inside], prefix[inside]
        if at.size == 0:
            break
        # A substring is named by its prefix's number and its last character; rare ones cannot grow frequent.
        _, where, prefix = np.unique(
            prefix * len(characters) + letter[at + size - 1], return_index=True, return_inverse=True
        )
        count = np.bincount(prefix, weight[at])
        frequent = count >= 2
        places.append(at[where[frequent]])
        sizes.append(np.full(int(frequent.sum()), size))
        found.append(count[frequent])
        alive = frequent[prefix]
        at, prefix = at[alive], prefix[alive]
    if places:
        place, width, count = np.concatenate(places), np.concatenate(sizes), np.concatenate(found)
        top = np.argsort(-count * width, kind="stable")[:limit]
        pieces += [joined[p : p + w] for p, w in zip(place[top].tolist(), width[top].tolist(), strict=True)]
        frequency.append(count[top])
    return pieces, np.concatenate(frequency)


def _most_useful(pieces: list[str], scores: Float64Array, expected: Float64Array, keep: int) -> IndexArray:
    """The pieces to keep: all characters, then those whose loss costs most, count * (own - next best score)."""
    lattice = Lattice.build(pieces, Trie(pieces))
    single = np.array([len(piece) == 1 for piece in pieces])
    owner = np.repeat(np.arange(len(pieces)), lattice.last - lattice.first + 1)[lattice.source]
    others = lattice.without((lattice.piece == owner) & ~single[owner])
    alternative = others.best(scores[others.piece])[0][lattice.last]
    cost = np.where(single, np.inf, expected * (scores - alternative))
    return np.sort(np.argsort(-cost, kind="stable")[:keep])
