"""Compiled loops that write lines of output, byte for byte as `text.lines` does. See `table.scan`."""

# Numba infers the types inside a kernel.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from speak_neuro.common.numba_cache import kernel

# Fields of the state, an int64 array carried from buffer to buffer.
LINE_OPEN, TOKEN_OPEN, CUT, LINE_START, LINES, TOKENS = range(6)
STATE_SIZE = 6

_LF = 10


@kernel
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


@kernel
def _put_comma(first, out, n):
    if first:
        out[n] = 91  # [
        return n + 1
    out[n] = 44  # ,
    out[n + 1] = 32
    return n + 2


@kernel
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


@kernel
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


@kernel
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


@kernel
def _end_token(quoted, state, out, n):
    if state[TOKEN_OPEN]:
        if quoted:
            out[n] = 34
            n += 1
        state[TOKEN_OPEN] = 0
        state[TOKENS] += 1
    return n


@kernel
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


@kernel
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


@kernel
def render_ids(ids, count, sizes, lines, state, out):
    """`count` ids as lines, of which `lines` end here, with sizes[k] ids each -> bytes in `out`."""
    n = 0
    at = 0
    for line in range(lines + 1):
        last = at + sizes[line] if line < lines else count
        for k in range(at, last):
            n = _put_comma(state[LINE_OPEN] == 0, out, n)
            n = _put_number(np.int64(ids[k]), out, n)
            state[LINE_OPEN] = 1
        if line < lines:
            n = _end_line(True, state, out, n)
        at = last
    return n
