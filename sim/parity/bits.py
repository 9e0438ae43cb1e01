"""When two float32 potentials are the same number: all their bits are, and the two zeros are one.

A port of Lava adds what arrives to +0, so that -0 arrives as +0 and no process can send a -0. Nothing depends on it:
u = decay v + gain I gives another number for v = -0 than for v = +0 only where it gives a zero, comparisons take the
two for equal, and nothing divides. So the sign of a zero cannot reach a spike, a gate or a number that is not zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MINUS_ZERO = np.uint32(1 << 31)


def number_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """The 32 bits of each number, those of -0 replaced by those of +0."""
    bits: npt.NDArray[Any] = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return np.where(bits == MINUS_ZERO, np.uint32(0), bits)
