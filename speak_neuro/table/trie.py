"""Compiled loops that cut bytes into the fewest pieces of a vocabulary. See `speak_neuro.table.pieces`.

The pieces are a double-array trie of one word for each node, so that a step down is one load:

    nodes[base + byte] = base of the child << 42 | (id + 1) << 22 | slot of its parent      id + 1 = 0: no piece

`base` is the parent's, 22 bits; the slot base + byte is its child where the low 22 bits name the parent, and 2**22 - 1
names none. The root is slot 0.

Fewest pieces, from the unit's end to its beginning, i and j places in its bytes:

    cost(end) = 0        cost(i) = 1 + min over pieces data[i:j] of cost(j)        among equals the longest piece
"""

# Numba infers the types inside a kernel.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from speak_neuro.common.numba_cache import kernel
from speak_neuro.table.slots import LONGEST_UNIT

MOST_SLOTS = 1 << 22
_PARENT = np.uint64(MOST_SLOTS - 1)
_ID = np.uint64(0xFFFFF)
_TO_ID = np.uint64(22)
_TO_BASE = np.uint64(42)
_BYTE = np.uint64(8)
_LENGTH = np.uint64(255)
_ONE, _NOTHING = np.uint64(1), np.uint64(0)


@kernel
def fill(blob, offsets, numbers, nodes):
    """Write the trie of the sorted, distinct pieces blob[offsets[t]:offsets[t+1]] of ids numbers[t] into `nodes`.

    -> slots in use, all steps from them included, or 0 where `nodes` is too small.
    """
    nodes[:] = _PARENT
    most = blob.shape[0] + 2
    low, high = np.zeros(most, np.int64), np.zeros(most, np.int64)
    depth, slot = np.zeros(most, np.int64), np.zeros(most, np.int64)
    high[0] = offsets.shape[0] - 1
    labels, starts = np.empty(257, np.int64), np.empty(257, np.int64)
    queued = 1
    free = wide = 256  # where to look for room for one child, for several; so no base is negative
    done = 0
    used = 512
    while done < queued:
        first, last, at, own = low[done], high[done], depth[done], slot[done]
        number = np.uint64(0)
        if at > 0 and offsets[first + 1] - offsets[first] == at:  # sorted, so a piece stands before its extensions
            number = np.uint64(numbers[first] + 1)
            first += 1
        children = 0
        for t in range(first, last):
            label = np.int64(blob[offsets[t] + at])
            if children == 0 or labels[children - 1] != label:
                labels[children], starts[children] = label, t
                children += 1
        starts[children] = last
        base = 0
        if children > 0:
            begin = max(free, wide) if children > 1 else free
            tries = 0
            while True:
                if begin + 256 >= nodes.shape[0]:
                    return 0
                base = begin - labels[0]
                fits = True
                for c in range(children):
                    if nodes[base + labels[c]] != _PARENT:
                        fits = False
                        break
                if fits:
                    break
                begin += 1
                tries += 1
            if children > 1 and tries > 64:
                wide = begin
            used = max(used, base + 256)
        parent = nodes[own] & _PARENT  # written when the parent was done
        nodes[own] = np.uint64(base) << _TO_BASE | number << _TO_ID | parent
        for c in range(children):
            place = base + labels[c]
            nodes[place] = np.uint64(own)
            low[queued], high[queued], depth[queued], slot[queued] = starts[c], starts[c + 1], at + 1, place
            queued += 1
        while free < nodes.shape[0] and nodes[free] != _PARENT:
            free += 1
        done += 1
    return used


@kernel
def fewest(data, start, stop, nodes, cost, best, ids, n):
    """The ids of the unit data[start:stop], of at most LONGEST_UNIT bytes, from ids[n] on -> n after them."""
    # Unsigned numbers: of signed ones numba asks each time whether they count from the array's end.
    root = nodes[0] >> _TO_BASE
    begin, size = np.uint64(start), np.uint64(stop - start)
    cost[size] = 0
    i = size
    while i > _NOTHING:
        i -= _ONE
        base, slot = root, _NOTHING
        least, piece, length = np.int32(1 << 30), _NOTHING, _NOTHING
        j = i
        while j < size:
            child = base + np.uint64(data[begin + j])
            word = nodes[child]
            if (word & _PARENT) != slot:
                break
            j += _ONE
            slot = child
            base = word >> _TO_BASE
            known = word >> _TO_ID & _ID
            # Selects, no branches: which prefixes are pieces is hard to foresee.
            here = cost[j] + np.int32(1)
            better = (known != _NOTHING) & (here <= least)
            least = here if better else least
            piece = known if better else piece
            length = j - i if better else length
        cost[i] = least
        best[i] = piece << _BYTE | length
    while i < size:
        word = best[i]
        ids[n] = np.int32(word >> _BYTE) - 1
        n += 1
        i += word & _LENGTH
    return n


@kernel
def others(blob, offsets, nodes, found):
    """found[t] = how many pieces at least join to the piece blob[offsets[t]:offsets[t+1]], itself left out."""
    cost = np.empty(LONGEST_UNIT + 1, np.int64)
    for t in range(found.shape[0]):
        start, size = offsets[t], offsets[t + 1] - offsets[t]
        cost[size] = 0
        for i in range(size - 1, -1, -1):
            base, slot = nodes[0] >> _TO_BASE, _NOTHING
            cost[i] = 1 << 30
            for j in range(i, size):
                child = base + np.uint64(blob[start + j])
                word = nodes[child]
                if (word & _PARENT) != slot:
                    break
                slot = child
                base = word >> _TO_BASE
                if (word >> _TO_ID & _ID) != _NOTHING and (i > 0 or j + 1 < size):
                    cost[i] = min(cost[i], cost[j + 1] + 1)
        found[t] = cost[0]


@kernel
def cut_long(data, start, stop, nodes, cost, best, ids, n):
    """`fewest` of as many cuts of LONGEST_UNIT bytes, back to a whole character, as leave no more than that behind.

    -> (n, start of the rest)
    """
    while stop - start > LONGEST_UNIT:
        end = start + LONGEST_UNIT
        while data[end] & 0xC0 == 0x80:
            end -= 1
        n = fewest(data, start, end, nodes, cost, best, ids, n)
        start = end
    return n, start


@kernel
def put_units(data, start, ends, cuts, separator, nodes, ids, sizes):
    """The ids of the units that end at `ends` (cuts, 2), the first from `start` -> (number of ids, start of the next).

    A separator byte ends its unit and is no part of it. `sizes[k]` becomes the number of ids of the k-th text that ends
    here.
    """
    cost = np.empty(LONGEST_UNIT + 1, np.int32)
    best = np.empty(LONGEST_UNIT + 1, np.uint64)
    n = 0
    text = 0
    begun = 0
    for e in range(cuts):
        end = np.int64(ends[e, 0])
        ends_text = np.int64(data[end - 1]) == separator
        stop = end - 1 if ends_text else end
        n, start = cut_long(data, start, stop, nodes, cost, best, ids, n)
        n = fewest(data, start, stop, nodes, cost, best, ids, n)
        if ends_text:
            sizes[text] = n - begun
            begun = n
            text += 1
        start = end
    return n, start


@kernel
def put_open(data, start, last, nodes, ids, n):
    """The ids of what is decided of the open unit data[start:last], from ids[n] on -> (n, start of the rest)."""
    cost = np.empty(LONGEST_UNIT + 1, np.int32)
    best = np.empty(LONGEST_UNIT + 1, np.uint64)
    return cut_long(data, start, last, nodes, cost, best, ids, n)
