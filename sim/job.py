"""What parent and child of a simulation agree on: the names in their files, and their groups of lanes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from speak_neuro.neuron import reference

LANES = 4096
"""Texts per network."""
CELLS = 2**24
"""Time steps times lanes of one network: 64 MB of events."""

CONSTANTS = (*reference.CONSTANTS, "gate_threshold")
INTEGERS = ("threshold", "soft_reset", "reset_potential", "decay", "gate_threshold", "shift")


def groups(length: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Texts that run side by side; `length` must descend, so that those of a group end together."""
    start = 0
    while start < len(length) and length[start] > 0:
        lanes = max(1, min(LANES, CELLS // int(length[start])))
        yield slice(start, min(start + lanes, len(length)))
        start += lanes


def total_steps(length: npt.NDArray[np.int64]) -> int:
    """Time steps that a job of texts of these lengths takes."""
    return sum(int(length[group.start]) for group in groups(length))


def steps_done(before: int, steps: int, counter: npt.NDArray[np.int64], on_step: Callable[[int], None]) -> None:
    """Report progress: `before` steps of earlier groups, and what a recorder has counted of this one's `steps`.

    The recorder counts the steps of the network's latency too; without the limit progress would go back at the next
    group's start.
    """
    on_step(before + min(int(counter[0]), steps))
