"""Spikes <-> spans: the one place that says what the position of a spike means.

A spike is at the character the neuron saw when it fired. Two conventions turn spikes s (L,) into tokens:

    closes   s_t = 1: character t is the last of its token, so a stream can emit the token at once (default; GTok,
             paper appendix E, dynamic pooling)
    opens    s_t = 1: character t is the first of its token (RTok)

The ends of the text need no spike: its first character always opens a token and its last always closes one. Spans are
half-open [start, end), in order, and partition the text, so joining the tokens gives the text back exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import BoolArray, Int64Array
from speak_neuro.text.alphabet import code_points

Convention = Literal["closes", "opens"]
CONVENTIONS: tuple[str, ...] = get_args(Convention)


def spans(spikes: npt.ArrayLike, convention: Convention = "closes") -> Int64Array:
    """The (n, 2) spans [start, end) of the tokens of spikes (L,); an empty text has none."""
    fired = _as_spikes(spikes, convention, row=True)
    if fired.size == 0:
        return np.zeros((0, 2), dtype=np.int64)
    starts = np.flatnonzero(fired if convention == "opens" else closes_to_opens(fired))
    if starts.size == 0 or starts[0] != 0:
        starts = np.concatenate([[0], starts])
    ends = np.append(starts[1:], fired.size)
    return np.stack([starts, ends], axis=1, dtype=np.int64)


def grouped(raw: bytes, inner: Int64Array, outer: Int64Array) -> Iterator[list[bytes]]:
    """The slices of `raw` at the spans `inner`, together by the span of `outer` that they lie in."""
    limits = set(outer[:, 1].tolist())
    group: list[bytes] = []
    start = 0
    for end in np.union1d(inner[:, 1], outer[:, 1]).tolist():
        group.append(raw[start:end])
        start = end
        if end in limits:
            yield group
            group = []


def lengths(spikes: npt.ArrayLike, convention: Convention = "closes") -> Int64Array:
    """The (n,) token lengths in characters."""
    cuts = spans(spikes, convention)
    return cuts[:, 1] - cuts[:, 0]


def closes_to_opens(spikes: npt.ArrayLike) -> BoolArray:
    """Spikes (..., L) moved from each token's last character to its first; the text's start is always marked."""
    closes = _as_spikes(spikes, "closes")
    opens = np.ones_like(closes)
    opens[..., 1:] = closes[..., :-1]
    return opens


def tokens(text: str, spikes: npt.ArrayLike, convention: Convention = "closes") -> list[str]:
    """The tokens of `text`, slices of it: `"".join(tokens(text, spikes)) == text`."""
    cuts = spans(spikes, convention)
    covered = int(cuts[-1, 1]) if len(cuts) else 0
    if covered != len(text):
        raise ValueError(f"spikes have {covered} positions, text {len(text)} characters; allowed: one per character")
    return [text[start:end] for start, end in cuts.tolist()]


def byte_spans(text: str, spans: npt.ArrayLike) -> Int64Array:
    """The (n, 2) character spans as offsets into the UTF-8 form of `text`; a lone surrogate counts as three bytes.

    The same as encoding with `errors="surrogatepass"`.
    """
    cuts = np.asarray(spans, dtype=np.int64)
    if cuts.ndim != 2 or cuts.shape[1] != 2:
        raise ValueError(f"spans have shape {cuts.shape}; allowed: (n, 2)")
    if cuts.size and not (cuts.min() >= 0 and cuts.max() <= len(text)):
        raise ValueError(f"spans run from {cuts.min()} to {cuts.max()}; allowed: 0 to {len(text)}")
    points = code_points(text)
    size = np.ones(points.size, dtype=np.uint8)
    for first_longer in (0x80, 0x800, 0x10000):
        size += points >= first_longer
    offsets = np.zeros(points.size + 1, dtype=np.int64)
    np.cumsum(size, dtype=np.int64, out=offsets[1:])
    return offsets[cuts]


def _as_spikes(spikes: npt.ArrayLike, convention: Convention, row: bool = False) -> BoolArray:
    if convention not in CONVENTIONS:
        raise ValueError(f"convention is {convention!r}; allowed: {', '.join(CONVENTIONS)}")
    array = np.asarray(spikes)
    if array.ndim < 1 or (row and array.ndim != 1):
        raise ValueError(f"spikes have shape {array.shape}; allowed: {'(L,)' if row else '(..., L)'}")
    if array.dtype != np.bool_:
        if array.size and not ((array == 0) | (array == 1)).all():
            raise ValueError("spikes hold other values; allowed: 0 and 1")
        array = array.astype(np.bool_)
    return array
