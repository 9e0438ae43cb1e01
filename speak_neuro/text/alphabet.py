"""Text <-> character ids. A character is a Unicode code point; nothing is normalised, folded or stripped.

    id 0          unknown: any character the alphabet has not got
    id 1, 2, ...  the characters, by descending frequency, ties by code point

Ids are for the network. They lose the unknown characters, so the text itself is never rebuilt from them: tokens are
slices of the original string (`text.segments`), which makes every round trip exact whatever the alphabet holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import Int32Array

SCHEMA = 1
UNKNOWN = 0
REPLACEMENT = "\ufffd"
_CODE_POINTS = 0x110000


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """The (L,) code points of `text`, read-only. Lone surrogates are kept as they are."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def text_of(points: npt.NDArray[np.uint32]) -> str:
    """The inverse of `code_points`."""
    return points.astype("<u4", copy=False).tobytes().decode("utf-32-le", "surrogatepass")


@dataclass(frozen=True)
class Alphabet:
    """A fixed list of characters; `len(alphabet)` counts them and the unknown id."""

    characters: str
    """The characters of ids 1, 2, ..., each once."""
    _ids: Int32Array = field(init=False, repr=False, compare=False)
    _points: npt.NDArray[np.uint32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        points = code_points(self.characters)
        distinct, counts = np.unique(points, return_counts=True)
        if distinct.size != points.size:
            twice = chr(distinct[counts > 1][0])
            raise ValueError(f"characters hold {twice!r} more than once; allowed: each character once")
        # One entry per code point up to the largest, then one for all above it, which `take` clips to.
        ids = np.zeros(int(points.max(initial=0)) + 2, dtype=np.int32)
        ids[points] = np.arange(1, points.size + 1, dtype=np.int32)
        object.__setattr__(self, "_ids", ids)
        object.__setattr__(self, "_points", np.concatenate([[ord(REPLACEMENT)], points]).astype(np.uint32))

    @classmethod
    def learn(cls, text: str | Iterable[str]) -> Alphabet:
        """The characters of `text` (a string, or its pieces in any cut), the most frequent first."""
        counts = np.zeros(_CODE_POINTS, dtype=np.int64)
        for piece in [text] if isinstance(text, str) else text:
            found = np.bincount(code_points(piece))
            counts[: found.size] += found
        present = np.flatnonzero(counts)
        order = np.argsort(-counts[present], kind="stable")  # stable: ties stay in code point order
        return cls(text_of(present[order].astype(np.uint32)))

    def __len__(self) -> int:
        return self._points.size

    def __contains__(self, character: str) -> bool:
        return len(character) == 1 and bool(self.encode(character)[0] != UNKNOWN)

    @property
    def unknown(self) -> int:
        """The id of every character outside the alphabet."""
        return UNKNOWN

    def encode(self, text: str) -> Int32Array:
        """The (L,) int32 ids of the L characters of `text`."""
        return np.take(self._ids, code_points(text), mode="clip")

    def decode_lossy(self, ids: npt.ArrayLike) -> str:
        """The text of (L,) ids, for display and for generated text: unknown characters come back as U+FFFD.

        Exact where no id is unknown. For the tokens of a given text slice that text instead.
        """
        array = np.asarray(ids)
        if array.ndim != 1 or not (array.size == 0 or np.issubdtype(array.dtype, np.integer)):
            raise ValueError(f"ids have shape {array.shape} and type {array.dtype}; allowed: (L,) integers")
        if array.size and not (array.min() >= 0 and array.max() < len(self)):
            raise ValueError(f"ids run from {array.min()} to {array.max()}; allowed: 0 to {len(self) - 1}")
        return text_of(self._points[array.astype(np.int64)])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values. Code points are written in hexadecimal, so that no writer or reader can alter them."""
        return {"schema": SCHEMA, "code_points": " ".join(f"{ord(c):x}" for c in self.characters)}

    @classmethod
    def from_json(cls, value: Any) -> Alphabet:
        """The inverse of `to_json`."""
        if not isinstance(value, dict):
            raise ValueError(f"an alphabet is a {type(value).__name__}; allowed: an object")
        schema, points = value.get("schema"), value.get("code_points")
        if type(schema) is not int or schema != SCHEMA:
            raise ValueError(f"alphabet schema is {schema!r}; allowed: {SCHEMA}")
        if not isinstance(points, str):
            raise ValueError(f"alphabet code_points are a {type(points).__name__}; allowed: text")
        try:
            characters = "".join(chr(int(point, 16)) for point in points.split())
        except (OverflowError, ValueError) as error:
            raise ValueError(f"alphabet code_points cannot be read ({error}); allowed: hexadecimal numbers") from error
        return cls(characters)
