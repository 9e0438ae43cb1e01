"""The decorator of compiled functions: cached on disk, quiet about a folder that cannot be written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba

logger = logging.getLogger(__name__)


def kernel(function: Callable[..., Any]) -> Any:
    """Compiled on its first call; kept on disk where a place for it can be written, as `neuron.fused.dispatch` does."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable place
        logger.info("no writable folder for compiled kernels (set NUMBA_CACHE_DIR); compiling in every process")
        return numba.njit(cache=False, **options)(function)
