"""Compiled loops between tokens and ids: an exact hash table from bytes to index. See `speak_neuro.table.scan`."""

# Numba infers the types inside a kernel.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from speak_neuro.common.numba_cache import kernel
from speak_neuro.table.slots import LONGEST

PADDING = 8
"""Bytes that must follow the data in its buffer, and ids the ids: both are taken eight at a time."""

_SHORT = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)
"""Masks of the first bytes of a word."""
_MIX = np.uint64(0x9E3779B97F4A7C15)


@kernel
def _word(data, i):
    """The eight bytes from i on as one number, little-endian; compiles to one load."""
    return (
        np.uint64(data[i])
        | np.uint64(data[i + 1]) << np.uint64(8)
        | np.uint64(data[i + 2]) << np.uint64(16)
        | np.uint64(data[i + 3]) << np.uint64(24)
        | np.uint64(data[i + 4]) << np.uint64(32)
        | np.uint64(data[i + 5]) << np.uint64(40)
        | np.uint64(data[i + 6]) << np.uint64(48)
        | np.uint64(data[i + 7]) << np.uint64(56)
    )


@kernel
def _masked(data, i, size):
    """`_word` of the `size` bytes from i on, at most eight, zeros behind them."""
    return _word(data, i) & _SHORT[min(size, 8)]


@kernel
def _hash(data, start, size):
    h = (_masked(data, start, size) ^ np.uint64(size)) * _MIX
    for k in range(8, size, 8):
        h = ((h ^ (h >> np.uint64(29))) + _masked(data, start + k, size - k)) * _MIX
    return h ^ (h >> np.uint64(32))


@kernel
def _find(data, start, size, slots, offsets, blob):
    """The slot of the token data[start:start+size], or the empty slot where it belongs.

    `slots` (capacity, 2) uint64: the first eight bytes, and index * 256 + size, 0 in an empty slot. What they don't
    hold is compared with the token's bytes in `blob`, so two tokens are never taken for one another.
    """
    mask = np.uint64(slots.shape[0] - 1)
    first = _masked(data, start, size)
    at = _hash(data, start, size) & mask
    while True:
        word, tag = slots[np.int64(at), 0], slots[np.int64(at), 1]
        if tag == np.uint64(0):
            return np.int64(at)
        if word == first and (tag & np.uint64(255)) == np.uint64(size):
            offset = offsets[np.int64(tag >> np.uint64(8))]
            k = 8
            while k < size and _masked(blob, offset + k, size - k) == _masked(data, start + k, size - k):
                k += 8
            if k >= size:
                return np.int64(at)
        at = (at + np.uint64(1)) & mask


@kernel
def insert_all(blob, offsets, slots):
    """Fill empty `slots` with the tokens blob[offsets[t]:offsets[t+1]]; -> the first token that occurs twice, or -1."""
    for t in range(offsets.shape[0] - 1):
        size = offsets[t + 1] - offsets[t]
        at = _find(blob, offsets[t], size, slots, offsets, blob)
        if slots[at, 1] != np.uint64(0):
            return t
        slots[at, 0] = _masked(blob, offsets[t], size)
        slots[at, 1] = np.uint64(t * 256 + size)
    return -1


@kernel
def count(data, start, ends, first, last, separator, slots, offsets, blob, counts, tokens):
    """Count the tokens of cuts first..last -> (next cut, start of its token, number of distinct tokens).

    Stops early, before a token is lost, when the slots are half full or `blob` is: the caller enlarges them and goes
    on. Tokens above `LONGEST` bytes are passed over.
    """
    for e in range(first, last):
        end = np.int64(ends[e, 0])
        stop = end - 1 if np.int64(data[end - 1]) == separator else end
        size = stop - start
        if 0 < size <= LONGEST:
            if 2 * tokens >= slots.shape[0] or offsets[tokens] + size + PADDING > blob.shape[0]:
                return e, start, tokens
            at = _find(data, start, size, slots, offsets, blob)
            if slots[at, 1] == np.uint64(0):
                slots[at, 0] = _masked(data, start, size)
                slots[at, 1] = np.uint64(tokens * 256 + size)
                blob[offsets[tokens] : offsets[tokens] + size] = data[start:stop]
                offsets[tokens + 1] = offsets[tokens] + size
                counts[tokens] = 0
                tokens += 1
            counts[np.int64(slots[at, 1] >> np.uint64(8))] += 1
        start = end
    return last, start, tokens


@kernel
def _put_bytes(data, start, stop, ids, n):
    for k in range(start, stop):
        ids[n] = np.int32(data[k])
        n += 1
    return n


@kernel
def _put_ids(data, start, stop, slots, offsets, blob, ids, n):
    """The ids of one token: 256 + index in the vocabulary, or one id for each byte. Writes up to eight ids beyond."""
    size = stop - start
    if size > 8:
        if size <= LONGEST:
            tag = slots[_find(data, start, size, slots, offsets, blob), 1]
            if tag != np.uint64(0):
                ids[n] = 256 + np.int32(tag >> np.uint64(8))
                return n + 1
        return _put_bytes(data, start, stop, ids, n)
    if size == 0:
        return n
    # The same for a short token, without branches on what is hard to foresee: how long it is, whether it is known.
    first = _word(data, start) & _SHORT[size]
    h = (first ^ np.uint64(size)) * _MIX
    mask = np.uint64(slots.shape[0] - 1)
    at = (h ^ (h >> np.uint64(32))) & mask
    tag = slots[np.int64(at), 1]
    known = (slots[np.int64(at), 0] == first) & (tag & np.uint64(255) == np.uint64(size))
    while not (known | (tag == np.uint64(0))):
        at = (at + np.uint64(1)) & mask
        tag = slots[np.int64(at), 1]
        known = (slots[np.int64(at), 0] == first) & (tag & np.uint64(255) == np.uint64(size))
    for k in range(8):
        ids[n + k] = np.int32(data[start + k])
    ids[n] = 256 + np.int32(tag >> np.uint64(8)) if known else ids[n]
    return n + (1 if known else size)


@kernel
def look_up(data, start, ends, cuts, separator, spilled, slots, offsets, blob, ids, sizes):
    """The ids of `cuts` tokens, the first from `start` -> (number of ids, start of the token after them).

    `spilled`: the first token has begun before `start`, as bytes, and goes on so. `sizes[k]` becomes the number of ids
    of the k-th text that ends here.
    """
    n = 0
    text = 0
    begun = 0
    for e in range(cuts):
        end = np.int64(ends[e, 0])
        ends_text = np.int64(data[end - 1]) == separator
        stop = end - 1 if ends_text else end
        if spilled:
            n = _put_bytes(data, start, stop, ids, n)
            spilled = False
        else:
            n = _put_ids(data, start, stop, slots, offsets, blob, ids, n)
        if ends_text:
            sizes[text] = n - begun
            begun = n
            text += 1
        start = end
    return n, start
