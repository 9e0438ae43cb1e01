"""ProxyBook: the proxy spikes of a task's examples, one bit per character, by example id.

    bit = 1 where a token should open; at the start the first characters of the exemplar tokenizer's pieces

Examples do not change from epoch to epoch, so the bits belong to the example (in GTok, where windows shift, to the
position in the corpus). 400,000 sentence pairs take about 10 MB. A checkpoint holds `tensors()`, safetensors on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speak_neuro.common.array_types import BoolArray, ByteArray
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.text.limits import openings
from speak_neuro.rtok.text.normalise import WORD

Segment = Callable[[str], Sequence[str]]
"""A unit's pieces; joined they are the unit."""


def join_signs(pieces: Sequence[str]) -> list[str]:
    """The pieces, a word sign that is one by itself joined with what follows: it says nothing, and takes a place."""
    found: list[str] = []
    for piece in pieces:
        if found and found[-1] == WORD:
            found[-1] += piece
        else:
            found.append(piece)
    return found


def piece_openings(unit: str, segment: Segment) -> BoolArray:
    """True at the first character of each of the unit's pieces: as many spikes as pieces, (L,)."""
    pieces = segment(unit)
    if "".join(pieces) != unit:
        raise SpeakError(
            f"pieces {list(pieces)[:8]!r} do not join to the unit {unit[:40]!r}; the exemplar needs the vocabulary of "
            "the normalised text (speak_neuro.rtok.text.normalise)"
        )
    return openings([piece for piece in pieces if piece])


class ProxyBook:
    """Proxy spikes of each example, and whether it was visited: the first visit only looks."""

    def __init__(self, bits: Mapping[str, tuple[ByteArray, int]], visited: Iterable[str] = ()) -> None:
        self._bits = dict(bits)
        self._visited = set(visited)

    @classmethod
    def from_pieces(cls, examples: Iterable[tuple[str, Sequence[str]]], segment: Segment) -> ProxyBook:
        """Proxies of (example id, its units) from the pieces that `segment` finds in each unit."""
        known: dict[str, BoolArray] = {}  # words repeat
        bits: dict[str, tuple[ByteArray, int]] = {}
        for example, units in examples:
            if example in bits:
                raise SpeakError(f"example id {example!r} occurs twice; give each example an id of its own")
            for unit in units:
                if unit not in known:
                    known[unit] = piece_openings(unit, segment)
            row = np.concatenate([known[unit] for unit in units]) if units else np.zeros(0, np.bool_)
            bits[example] = (np.packbits(row), len(row))
        return cls(bits)

    def read(self, example: str, units: Sequence[str]) -> list[BoolArray]:
        """The proxy spikes of the example's units, which must be as long as they were."""
        if example not in self._bits:
            raise SpeakError(f"example {example!r} has no proxy spikes; the run began with other data")
        packed, count = self._bits[example]
        lengths = [len(unit) for unit in units]
        if sum(lengths) != count:
            raise SpeakError(
                f"example {example!r} has {sum(lengths)} characters, its proxy spikes {count}; the run began with "
                "other data or other normalisation"
            )
        row = np.unpackbits(packed, count=count).astype(np.bool_)
        return np.split(row, np.cumsum(lengths)[:-1]) if lengths else []

    def write(self, example: str, spikes: Sequence[npt.ArrayLike]) -> None:
        """Replace the proxy spikes of an example by those of its units."""
        row = np.concatenate([np.asarray(part, dtype=np.bool_) for part in spikes]) if spikes else np.zeros(0, np.bool_)
        if example not in self._bits or self._bits[example][1] != len(row):
            raise ValueError(
                f"example {example!r}: {len(row)} spikes; allowed: a known example, one for each character"
            )
        self._bits[example] = (np.packbits(row), len(row))

    def visited(self, example: str) -> bool:
        """Whether `mark_visited` was called for the example."""
        return example in self._visited

    def mark_visited(self, example: str) -> None:
        """Count the example as visited."""
        self._visited.add(example)

    def tensors(self) -> dict[str, Tensor]:
        """All of it, for a checkpoint: packed bits one example after the other, lengths in characters, ids as UTF-8."""
        names = [name.encode("utf-8") for name in self._bits]
        parts = [packed for packed, _ in self._bits.values()]
        arrays = {
            "bits": np.concatenate(parts) if parts else np.zeros(0, np.uint8),
            "characters": np.array([count for _, count in self._bits.values()], dtype=np.int64),
            "visited": np.array([name in self._visited for name in self._bits], dtype=np.uint8),
            "ids": np.frombuffer(b"".join(names), dtype=np.uint8).copy(),
            "id_bytes": np.array([len(name) for name in names], dtype=np.int64),
        }
        return {f"proxies.{name}": torch.from_numpy(array) for name, array in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ProxyBook:
        """The inverse of `tensors`; other names are ignored."""
        try:
            bits, characters, visited, ids, id_bytes = (
                tensors[f"proxies.{name}"].numpy() for name in ("bits", "characters", "visited", "ids", "id_bytes")
            )
        except KeyError as error:
            raise SpeakError(f"tensor {error} is missing: not a checkpoint of an RTok run") from None
        sizes = (characters + 7) // 8
        if (
            sizes.sum() != bits.size
            or id_bytes.sum() != ids.size
            or not len(characters) == len(visited) == len(id_bytes)
        ):
            raise SpeakError("proxy tensors do not fit each other: the checkpoint is damaged, use an earlier one")
        rows = np.split(bits, np.cumsum(sizes)[:-1]) if sizes.size else []
        parts = np.split(ids, np.cumsum(id_bytes)[:-1]) if sizes.size else []
        names = [part.tobytes().decode("utf-8") for part in parts]
        book = {name: (row.copy(), int(n)) for name, row, n in zip(names, rows, characters.tolist(), strict=True)}
        return cls(book, [name for name, seen in zip(names, visited.tolist(), strict=True) if seen])
