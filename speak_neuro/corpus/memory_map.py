"""Memory that is given back: pages read of memory-mapped arrays, and heap that is free, so that a process is small.

The system takes a file's pages back from a process when memory is short, but not before; until then they count as the
process's resident memory. Their content stays in the file and in the system's cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt


def release(array: npt.NDArray[Any]) -> None:
    """Give back the pages of a memory-mapped array; nothing to do for others. A shared map keeps what was written."""
    mapped = getattr(array, "_mmap", None) if isinstance(array, np.memmap) else None
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def trim() -> None:
    """Give back the heap's free memory, which the C library keeps after large arrays; where it is glibc."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
