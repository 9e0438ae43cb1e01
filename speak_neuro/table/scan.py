"""Compiled loops of the table tokenizer: UTF-8 bytes to boundaries. `compiled_ids` goes on to ids.

Import these modules late: they bring numba along and load (the first time, compile) machine code.

A buffer holds one text, or several that each end in a separator byte: a line feed in files, and in lists of texts
`BREAK`, which UTF-8 never contains. A separator's row of the table has an infinite current and an open gate, so that
the neuron itself ends the text and begins the next at the reset potential; no loop has a case for it.

`ends` (n, 2) are the cuts: end of a token in bytes, and in characters, from the buffer's beginning; int32, as buffers
are below 2 GiB. A cut behind a separator also ends the text before it.

The neuron's arithmetic is that of `neuron.reference`, operation by operation: fast math stays off, so that LLVM
neither contracts a product and a sum nor reassociates.

Numba keeps a kernel until its own file changes. So kernels call kernels of the same file alone.
"""

# Numba infers the types inside a kernel.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from speak_neuro.common.numba_cache import kernel

BREAK = 0xFF
_ZERO = np.float32(0)
_ONE = np.uint64(1)


@kernel
def _follows(data, i):
    return data[i] & 0xC0 == 0x80


@kernel
def _rank(x):
    """A number that orders floats as >= does; adding zero makes the two zeros one. Not for NaN.

    Spikes are counted by rank, potentials selected by float comparison: from one comparison for both, LLVM makes a way
    through general registers, twice as long as the rest of the chain of operations from one potential to the next.
    """
    bits = np.float32(x + _ZERO).view(np.int32)
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@kernel
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


@kernel
def scan(data, first, last, own, floor, rows, decay, threshold, reset_potential, soft_reset, potential, ends):
    """Decode data[first:last] and run the neuron -> (characters, number of cuts, stop).

    `rows` (P + 2, 2): gain times current, and the gate (open if above 0), by code point; the last row but one is for
    all code points from P, the last for `BREAK`. `decay` None means 1. `potential` (1,) is carried from before to after
    the bytes. `floor`: spikes cut whose gate is above it: -inf for all, 0 for hard resets. `own`: the bytes come from a
    Python string, so lone surrogates and `BREAK` are allowed. `ends` needs room for one cut more than there can be.
    `stop` is `last`, or the first byte of what is not UTF-8.
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
        n += 1 if (_rank(u) >= least) & (rows[point, 1] > floor) else 0
    potential[0] = v
    return characters, n, i


@kernel
def scan_taps(
    data,
    first,
    last,
    own,
    floor,
    index,
    parts,
    gain,
    decay,
    threshold,
    reset_potential,
    soft_reset,
    potential,
    recent,
    ends,
):
    """`scan` where current and gate are sums over the last k characters, added in the order of their delays.

    `index` (P + 2,): the row of a code point, as in `scan`. `parts` (k, V + 2) complex64: by delay and row the part of
    the current, and as imaginary part that of the gate, so that one load and one addition serve both; the last row but
    one is the break, the last for what lies before the text, zeros. `recent` (k,) are the rows of the last characters,
    the newest first, carried on like `potential`.
    """
    unknown = index.shape[0] - 2
    taps = recent.shape[0]
    separator = parts.shape[1] - 2
    least = _rank(threshold)
    v = potential[0]
    characters = 0
    n = 0
    i = first
    flat, width = parts.ravel(), np.uint64(parts.shape[1])
    rows = np.empty(taps + 1024, np.uint64)  # of the characters so far, the newest at m - 1
    for delay in range(taps):
        rows[taps - 1 - delay] = recent[delay]
    m = taps
    while i < last:
        point, size = _decode(data, i, last, own)
        if size == 0:
            break
        row = index[unknown + 1 if point == 0x110000 else min(point, unknown)]
        i += size
        characters += 1
        rows[m] = row
        total = flat[row]
        place, base = np.uint64(m), np.uint64(0)
        for _ in range(1, taps):
            place -= _ONE
            base += width
            total += flat[base + rows[place]]
        driven = total.real if gain is None else gain * total.real
        leaked = v if decay is None else decay * v
        u = leaked + driven
        lowered = u - soft_reset
        after = reset_potential if total.imag > _ZERO else lowered
        v = after if u >= threshold else u
        ends[n, 0] = i
        ends[n, 1] = characters
        n += 1 if (_rank(u) >= least) & (total.imag > floor) else 0
        m += 1
        if row == separator:
            rows[m - taps : m] = separator + 1
        if m == rows.shape[0]:
            rows[:taps] = rows[m - taps :]
            m = taps
    for delay in range(taps):
        recent[delay] = rows[m - 1 - delay]
    potential[0] = v
    return characters, n, i


@kernel
def put_spans(ends, cuts, column, base, start, spans, n):
    """spans[n:] of consecutive tokens, the first from `start`, whose `ends` count from `base` -> start of the next."""
    for e in range(cuts):
        end = base + np.int64(ends[e, column])
        spans[n + e, 0] = start
        spans[n + e, 1] = end
        start = end
    return start


@kernel
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
