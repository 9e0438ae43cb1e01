"""Token ids: the most frequent tokens of a corpus, and a fallback to bytes that makes every text encodable.

    id 0..255               one byte; also every token of a single byte
    id 256, 257, ...        tokens by descending frequency, ties by their bytes

A token is a run of UTF-8 bytes (lone surrogates as three bytes, "surrogatepass"). A token that the vocabulary has not
got becomes one id for each of its bytes, so decoding gives back every text exactly.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from speak_neuro.common.arrays import read_arrays, write_arrays
from speak_neuro.errors import SpeakError
from speak_neuro.table.slots import LONGEST, Slots, empty_slots

IdArray = npt.NDArray[np.int32]
Kind = TypeVar("Kind", bound="Vocabulary")

SCHEMA_VERSION = 2
BYTES = 256
_ADVICE = "make one with speak-tokenize --build-vocabulary"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A fixed list of tokens; `len(vocabulary)` counts them and the 256 bytes."""

    tokens: tuple[bytes, ...]
    """The tokens of ids 256, 257, ..., each of 2 to `LONGEST` bytes, each once."""
    counts: npt.NDArray[np.int64]
    """How often the corpus held each."""

    FORMAT: ClassVar[str] = "speak_neuro vocabulary"
    KEYS: ClassVar[tuple[str, ...]] = ()
    """What `header` holds."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", np.asarray(self.counts, dtype=np.int64))
        if self.counts.shape != (len(self.tokens),):
            raise ValueError(
                f"counts have shape {self.counts.shape}; allowed: ({len(self.tokens)},), one for each token"
            )
        for token in self.tokens:
            if not 2 <= len(token) <= LONGEST:
                raise ValueError(f"token {token!r} has {len(token)} bytes; allowed: 2 to {LONGEST}")
        if len(set(self.tokens)) < len(self.tokens):
            twice = Counter(self.tokens).most_common(1)[0][0]
            raise ValueError(f"token {twice!r} occurs twice; allowed: each token once")

    @classmethod
    def build(cls, counts: Mapping[bytes, int], size: int) -> Vocabulary:
        """The vocabulary of at most `size` ids, the 256 bytes included, from the counts of a corpus's tokens."""
        if size < BYTES:
            raise ValueError(f"size is {size}; allowed: at least {BYTES}, one id for each byte")
        usable = (item for item in counts.items() if 2 <= len(item[0]) <= LONGEST)
        best = sorted(usable, key=lambda item: (-item[1], item[0]))[: size - BYTES]
        return cls(tuple(token for token, _ in best), np.array([count for _, count in best], dtype=np.int64))

    def __len__(self) -> int:
        return BYTES + len(self.tokens)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, Vocabulary)
        same = self.header() == other.header() and self.tokens == other.tokens
        return same and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        """Without what use has computed: the same vocabulary is the same bytes, so a cache's key holds."""
        return {"tokens": self.tokens, "counts": self.counts, **self.header()}

    @property
    def fitted(self) -> str:
        """What ids are fitted into: "whole" tokens, each an id or its bytes; see `speak_neuro.table.pieces`."""
        return "whole"

    @property
    def hard_only(self) -> bool:
        """Whether the units to encode end at hard resets alone, not at every spike."""
        return self.fitted == "ranges"

    def header(self) -> dict[str, Any]:
        """What a file says beside the tokens."""
        return {}

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {token: BYTES + index for index, token in enumerate(self.tokens)}

    @cached_property
    def all(self) -> tuple[bytes, ...]:
        """The bytes of every id."""
        return (*(bytes([value]) for value in range(BYTES)), *self.tokens)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The bytes of every id, counted."""
        return np.array([1] * BYTES + [len(token) for token in self.tokens], dtype=np.int64)

    def encode(self, tokens: Iterable[str | bytes]) -> IdArray:
        """The ids (n,) of tokens."""
        ids: list[int] = []
        for token in tokens:
            raw = token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token
            known = self._ids.get(raw)
            ids.extend(raw) if known is None else ids.append(known)
        return np.array(ids, dtype=np.int32)

    def decode_bytes(self, ids: npt.ArrayLike) -> bytes:
        """The UTF-8 bytes of ids (n,)."""
        array = np.asarray(ids)
        if array.ndim != 1 or not (array.size == 0 or np.issubdtype(array.dtype, np.integer)):
            raise ValueError(f"ids have shape {array.shape} and type {array.dtype}; allowed: (n,) integers")
        if array.size and not (array.min() >= 0 and array.max() < len(self)):
            raise ValueError(f"ids run from {array.min()} to {array.max()}; allowed: 0 to {len(self) - 1}")
        parts = self.all
        return b"".join([parts[index] for index in array.tolist()])

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of ids (n,), the inverse of encoding a text's tokens.

        Ids that nothing encodes to, such as a part of a character, are a ValueError; `decode_bytes` takes them.
        """
        return self.decode_bytes(ids).decode("utf-8", "surrogatepass")

    @cached_property
    def slots(self) -> Slots:
        """The hash table of compiled code, at most half full."""
        from speak_neuro.table.ids import PADDING, insert_all

        lengths = np.array([len(token) for token in self.tokens], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        blob = np.frombuffer(b"".join(self.tokens) + bytes(PADDING), dtype=np.uint8).copy()
        slots = empty_slots(2 * len(self.tokens))
        insert_all(blob, offsets, slots)
        return Slots(slots, offsets, blob)

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
        """Compiled: the ids of the units that close at `ends` -> (number of ids, start of the unit after them).

        `spilled`: the first unit's beginning went before, see `spill`. `sizes[k]` becomes the number of ids of the k-th
        text that ends here.
        """
        from speak_neuro.table.ids import look_up

        count, ahead = look_up(data, start, ends, cuts, separator, spilled, *self.slots, ids, sizes)
        return int(count), int(ahead)

    def spill(
        self, data: npt.NDArray[np.uint8], start: int, last: int, spilled: bool, ids: IdArray, count: int
    ) -> tuple[int, int, bool]:
        """What is decided of the open unit data[start:last], put behind `count` ids -> (number of ids, start of the
        rest, whether the unit goes on as bytes).

        A token that is too long for the vocabulary becomes bytes, wherever it ends.
        """
        if spilled or last - start > LONGEST:
            ids[count : count + last - start] = data[start:last]
            return count + last - start, last, True
        return count, start, False

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, atomically; the same vocabulary gives the same bytes."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "bytes": np.frombuffer(b"".join(self.tokens), dtype=np.uint8),
            "lengths": np.array([len(token) for token in self.tokens], dtype=np.uint8),
            "counts": self.counts,
        }
        write_arrays(path, arrays, self.FORMAT, SCHEMA_VERSION, self.header())

    @classmethod
    def load(cls: type[Kind], path: str | os.PathLike[str]) -> Kind:
        """Read and check a vocabulary; every departure is one SpeakError line naming the file and the field.

        Of this class; `speak_neuro.table.load_vocabulary` reads files of either kind.
        """
        dtypes = {"bytes": "uint8", "lengths": "uint8", "counts": "int64"}
        arrays, header = read_arrays(path, dtypes, cls.FORMAT, SCHEMA_VERSION, _ADVICE)
        ends = np.cumsum(arrays["lengths"], dtype=np.int64)
        held = int(ends[-1]) if ends.size else 0
        if held != arrays["bytes"].size:
            raise SpeakError(f"{path}: lengths add up to {held}, bytes hold {arrays['bytes'].size}; {_ADVICE}")
        raw = arrays["bytes"].tobytes()
        starts = (ends - arrays["lengths"]).tolist()
        try:
            tokens = tuple(raw[start:end] for start, end in zip(starts, ends.tolist(), strict=True))
            return cls(tokens, arrays["counts"], **{key: header.get(key) for key in cls.KEYS})
        except ValueError as error:
            raise SpeakError(f"{path}: {error}; {_ADVICE}") from None
