"""Compiled loops of the table tokenizer: UTF-8 bytes to boundaries, boundaries to ids or to output lines.

Import this module late: it brings numba along and loads (the first time, compiles) machine code.

A buffer holds one text, or several that each end in a separator byte: a line feed in files, and in lists of texts
`BREAK`, which UTF-8 never contains. A separator's row of the table has an infinite current and an open gate, so that
the neuron itself ends the text and begins the next at the reset potential; no loop has a case for it.

`ends` (n, 2) are the cuts: end of a token in bytes, and in characters, from the buffer's beginning; int32, as buffers
are below 2 GiB. A cut behind a separator also ends the text before it.

The neuron's arithmetic is that of `speak_neuro.reference`, operation by operation: fast math stays off, so that LLVM
neither contracts a product and a sum nor reassociates.
"""

# Numba infers the types inside a kernel.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from speak_neuro.vocabulary import LONGEST

logger = logging.getLogger(__name__)

BREAK = 0xFF
PADDING = 8
"""Bytes that must follow the data in its buffer: words are read eight bytes at a time."""

# Fields of the state of `render_*`, an int64 array carried from buffer to buffer.
LINE_OPEN, TOKEN_OPEN, CUT, LINE_START, LINES, TOKENS = range(6)
STATE_SIZE = 6

_SHORT = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)
"""Masks of the first bytes of a word."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_ZERO = np.float32(0)
_LF = 10


def _kernel(function: Callable[..., Any]) -> Any:
    """Compiled on its first call; kept on disk where a place for it can be written, as `speak_neuro.kernels` does."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable place
        logger.info("no writable folder for compiled kernels (set NUMBA_CACHE_DIR); compiling in every process")
        return numba.njit(cache=False, **options)(function)


@_kernel
def _follows(data, i):
    return data[i] & 0xC0 == 0x80


@_kernel
def _rank(x):
    """A number that orders floats as >= does; adding zero makes the two zeros one. Not for NaN.

    Spikes are counted by rank, potentials selected by float comparison: from one comparison for both, LLVM makes a way
    through general registers, twice as long as the rest of the chain of operations from one potential to the next.
    """
    bits = np.float32(x + _ZERO).view(np.int32)
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@_kernel
def _decode(data, i, last, own):
    """The code point at i and its size in bytes; size 0 where it is not UTF-8. `BREAK` is the code point 0x110000."""
    b = np.int64(data[i])
    if b < 0x80:
        return b, 1
    if b < 0xE0:
        if b < 0xC2 or i + 1 >= last or not _follows(data, i + 1):
            return b, 0
        return (b & 0x1F) << 6 | np.int64(data[i + 1] & 0x3F), 2
    if b < 0xF0:
        if i + 2 >= last or not _follows(data, i + 1) or not _follows(data, i + 2):
            return b, 0
        point = (b & 0x0F) << 12 | np.int64(data[i + 1] & 0x3F) << 6 | np.int64(data[i + 2] & 0x3F)
        return point, 0 if point < 0x800 or (0xD800 <= point < 0xE000 and not own) else 3
    if b < 0xF5:
        if i + 3 >= last or not _follows(data, i + 1) or not _follows(data, i + 2) or not _follows(data, i + 3):
            return b, 0
        point = (b & 0x07) << 18 | np.int64(data[i + 1] & 0x3F) << 12
        point |= np.int64(data[i + 2] & 0x3F) << 6 | np.int64(data[i + 3] & 0x3F)
        return point, 0 if point < 0x10000 or point > 0x10FFFF else 4
    return 0x110000, 1 if own and b == BREAK else 0


@_kernel
def scan(data, first, last, own, rows, decay, threshold, reset_potential, soft_reset, potential, ends):
    """Decode data[first:last] and run the neuron -> (characters, number of cuts, stop).

    `rows` (P + 2, 2): gain times current, and the gate (open if above 0), by code point; the last row but one is for
    all code points from P, the last for `BREAK`. `decay` None means 1. `potential` (1,) is carried from before to after
    the bytes. `own`: the bytes come from a Python string, so lone surrogates and `BREAK` are allowed. `ends` needs room
    for one cut more than there can be. `stop` is `last`, or the first byte of what is not UTF-8.
    """
    unknown = rows.shape[0] - 2
    least = _rank(threshold)
    v = potential[0]
    characters = 0
    n = 0
    i = first
    while i < last:
        b = np.int64(data[i])
        if b < 0x80:
            point = b
            size = 1
        elif b < 0xE0:
            if b < 0xC2 or i + 1 >= last or not _follows(data, i + 1):
                break
            point = min((b & 0x1F) << 6 | np.int64(data[i + 1] & 0x3F), unknown)
            size = 2
        elif b < 0xF0:
            if i + 2 >= last or not _follows(data, i + 1) or not _follows(data, i + 2):
                break
            point = (b & 0x0F) << 12 | np.int64(data[i + 1] & 0x3F) << 6 | np.int64(data[i + 2] & 0x3F)
            if point < 0x800 or (0xD800 <= point < 0xE000 and not own):
                break
            point = min(point, unknown)
            size = 3
        elif b < 0xF5:
            if i + 3 >= last or not _follows(data, i + 1) or not _follows(data, i + 2) or not _follows(data, i + 3):
                break
            point = (b & 0x07) << 18 | np.int64(data[i + 1] & 0x3F) << 12
            point |= np.int64(data[i + 2] & 0x3F) << 6 | np.int64(data[i + 3] & 0x3F)
            if point < 0x10000 or point > 0x10FFFF:
                break
            point = min(point, unknown)
            size = 4
        elif own and b == BREAK:
            point = unknown + 1
            size = 1
        else:
            break
        i += size
        characters += 1
        # Selects, no branches: spikes are unpredictable. The stores go to the next free place, spike or not.
        leaked = v if decay is None else decay * v
        u = leaked + rows[point, 0]
        lowered = u - soft_reset
        after = reset_potential if rows[point, 1] > _ZERO else lowered
        v = after if u >= threshold else u
        ends[n, 0] = i
        ends[n, 1] = characters
        n += 1 if _rank(u) >= least else 0
    potential[0] = v
    return characters, n, i


@_kernel
def scan_taps(
    data, first, last, own, index, rows, gain, decay, threshold, reset_potential, soft_reset, potential, recent, ends
):
    """`scan` where current and gate are sums over the last k characters, added in the order of their delays.

    `index` (P + 2,): the row of a code point, as in `scan`. `rows` (V + 2, 2k): the parts of the current by delay, then
    those of the gate; the last row but one is the break, the last for what lies before the text, zeros. `recent` (k,)
    are the rows of the last characters, the newest first, carried on like `potential`.
    """
    unknown = index.shape[0] - 2
    taps = recent.shape[0]
    separator = rows.shape[0] - 2
    least = _rank(threshold)
    v = potential[0]
    characters = 0
    n = 0
    i = first
    while i < last:
        point, size = _decode(data, i, last, own)
        if size == 0:
            break
        row = index[unknown + 1 if point == 0x110000 else min(point, unknown)]
        i += size
        characters += 1
        for delay in range(taps - 1, 0, -1):
            recent[delay] = recent[delay - 1]
        recent[0] = row
        current = rows[row, 0]
        gate = rows[row, taps]
        for delay in range(1, taps):
            current += rows[recent[delay], delay]
            gate += rows[recent[delay], taps + delay]
        driven = current if gain is None else gain * current
        leaked = v if decay is None else decay * v
        u = leaked + driven
        lowered = u - soft_reset
        after = reset_potential if gate > _ZERO else lowered
        v = after if u >= threshold else u
        ends[n, 0] = i
        ends[n, 1] = characters
        n += 1 if _rank(u) >= least else 0
        if row == separator:
            recent[:] = separator + 1
    potential[0] = v
    return characters, n, i


@_kernel
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


@_kernel
def _masked(data, i, size):
    """`_word` of the `size` bytes from i on, at most eight, zeros behind them."""
    return _word(data, i) & _SHORT[min(size, 8)]


@_kernel
def _hash(data, start, size):
    h = (_masked(data, start, size) ^ np.uint64(size)) * _MIX
    for k in range(8, size, 8):
        h = ((h ^ (h >> np.uint64(29))) + _masked(data, start + k, size - k)) * _MIX
    return h ^ (h >> np.uint64(32))


@_kernel
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


@_kernel
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


@_kernel
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


@_kernel
def _put_bytes(data, start, stop, ids, n):
    for k in range(start, stop):
        ids[n] = np.int32(data[k])
        n += 1
    return n


@_kernel
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


@_kernel
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


@_kernel
def put_spans(ends, cuts, column, base, start, spans, n):
    """spans[n:] of consecutive tokens, the first from `start`, whose `ends` count from `base` -> start of the next."""
    for e in range(cuts):
        end = base + np.int64(ends[e, column])
        spans[n + e, 0] = start
        spans[n + e, 1] = end
        start = end
    return start


@_kernel
def cut_texts(data, ends, cuts, column, spans, sizes):
    """The spans (n, 2) of texts that each end in `BREAK`, counted from each text's start in bytes (`column` 0) or
    characters (1) -> their number. `sizes[k]` becomes the number of spans of the k-th text."""
    n = 0
    text = 0
    begun = 0
    origin = np.int64(0)
    start = np.int64(0)
    for e in range(cuts):
        end = np.int64(ends[e, column])
        ends_text = data[ends[e, 0] - 1] == BREAK
        stop = end - 1 if ends_text else end
        if stop > start:
            spans[n, 0] = start - origin
            spans[n, 1] = stop - origin
            n += 1
        if ends_text:
            sizes[text] = n - begun
            begun = n
            text += 1
            origin = end
        start = end
    return n


@_kernel
def _put_number(value, out, n):
    digits = 1
    rest = value // 10
    while rest > 0:
        digits += 1
        rest //= 10
    for k in range(digits - 1, -1, -1):
        out[n + k] = 48 + value % 10
        value //= 10
    return n + digits


@_kernel
def _put_comma(first, out, n):
    if first:
        out[n] = 91  # [
        return n + 1
    out[n] = 44  # ,
    out[n + 1] = 32
    return n + 2


@_kernel
def _put_escaped(data, start, stop, out, n):
    """The inside of a JSON string as Python's json module writes it with ensure_ascii=False."""
    for k in range(start, stop):
        b = np.int64(data[k])
        if b >= 32 and b != 34 and b != 92:
            out[n] = b
            n += 1
            continue
        out[n] = 92
        short = b if b == 34 or b == 92 else 0
        if b == 8:
            short = 98  # \b
        elif b == 9:
            short = 116  # \t
        elif b == 10:
            short = 110  # \n
        elif b == 12:
            short = 102  # \f
        elif b == 13:
            short = 114  # \r
        if short:
            out[n + 1] = short
            n += 2
        else:
            out[n + 1] = 117  # u
            out[n + 2] = 48
            out[n + 3] = 48
            out[n + 4] = 48 + (b >> 4)
            low = b & 15
            out[n + 5] = 48 + low if low < 10 else 87 + low
            n += 6
    return n


@_kernel
def _end_line(bracketed, state, out, n):
    if bracketed:
        if not state[LINE_OPEN]:
            out[n] = 91
            n += 1
        out[n] = 93  # ]
        n += 1
    out[n] = _LF
    state[LINE_OPEN] = 0
    state[LINES] += 1
    return n + 1


@_kernel
def _put_part(data, start, stop, quoted, state, out, n):
    """A piece of a token, the first or a later one."""
    if start == stop:
        return n
    if not state[TOKEN_OPEN]:
        if quoted:
            n = _put_comma(state[LINE_OPEN] == 0, out, n)
            out[n] = 34  # "
            n += 1
        elif state[LINE_OPEN]:
            out[n] = 124  # |
            n += 1
        state[LINE_OPEN] = 1
        state[TOKEN_OPEN] = 1
    if quoted:
        return _put_escaped(data, start, stop, out, n)
    out[n : n + stop - start] = data[start:stop]
    return n + stop - start


@_kernel
def _end_token(quoted, state, out, n):
    if state[TOKEN_OPEN]:
        if quoted:
            out[n] = 34
            n += 1
        state[TOKEN_OPEN] = 0
        state[TOKENS] += 1
    return n


@_kernel
def render_text(data, start, last, ends, cuts, quoted, state, out):
    """The tokens of data[start:last] as lines, JSON arrays (`quoted`) or parted by bars -> bytes in `out`."""
    n = 0
    for e in range(cuts):
        end = np.int64(ends[e, 0])
        ends_line = data[end - 1] == _LF
        n = _put_part(data, start, end - 1 if ends_line else end, quoted, state, out, n)
        n = _end_token(quoted, state, out, n)
        if ends_line:
            n = _end_line(quoted, state, out, n)
        start = end
    return _put_part(data, start, last, quoted, state, out, n)


@_kernel
def render_spans(data, ends, cuts, column, base, state, out):
    """The cuts as lines of [start, end] pairs, counted from the line's start in bytes or characters -> bytes in `out`.

    `base` is the position of the buffer's beginning in the whole input, in the same unit.
    """
    n = 0
    for e in range(cuts):
        end = base + ends[e, column]
        ends_line = data[ends[e, 0] - 1] == _LF
        stop = end - 1 if ends_line else end
        if stop > state[CUT]:
            n = _put_comma(state[LINE_OPEN] == 0, out, n)
            out[n] = 91
            n = _put_number(state[CUT] - state[LINE_START], out, n + 1)
            out[n] = 44
            out[n + 1] = 32
            n = _put_number(stop - state[LINE_START], out, n + 2)
            out[n] = 93
            n += 1
            state[LINE_OPEN] = 1
            state[TOKENS] += 1
        if ends_line:
            n = _end_line(True, state, out, n)
            state[LINE_START] = end
        state[CUT] = end
    return n


@_kernel
def _put_numbers(ids, count, state, out, n):
    for k in range(count):
        n = _put_comma(state[LINE_OPEN] == 0, out, n)
        n = _put_number(np.int64(ids[k]), out, n)
        state[LINE_OPEN] = 1
    return n


@_kernel
def render_ids(data, start, last, ends, cuts, slots, offsets, blob, state, ids, out):
    """The tokens' ids as lines -> (bytes in `out`, start of the open token).

    An open token that can no longer be in the vocabulary goes out byte by byte (`TOKEN_OPEN` is then set); any other
    is left to the caller, who puts it before the next buffer.
    """
    n = 0
    for e in range(cuts):
        end = np.int64(ends[e, 0])
        ends_line = data[end - 1] == _LF
        stop = end - 1 if ends_line else end
        if stop > start or state[TOKEN_OPEN]:
            if state[TOKEN_OPEN]:
                found = _put_bytes(data, start, stop, ids, 0)
            else:
                found = _put_ids(data, start, stop, slots, offsets, blob, ids, 0)
            n = _put_numbers(ids, found, state, out, n)
            state[TOKEN_OPEN] = 0
            state[TOKENS] += 1
        if ends_line:
            n = _end_line(True, state, out, n)
        start = end
    if state[TOKEN_OPEN] or last - start > LONGEST:
        n = _put_numbers(ids, _put_bytes(data, start, last, ids, 0), state, out, n)
        state[TOKEN_OPEN] = 1
        start = last
    return n, start
