"""The simulation's own interpreter for whole texts: `python -m speak_neuro.sim.child.character_worker in out`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.sim.child.worker import Arrays, main
from speak_neuro.sim.job import CONSTANTS, groups


def simulate(job: Arrays, deadline: float, on_step: Callable[[int], None]) -> dict[str, npt.NDArray[Any]]:
    """Run texts through the whole tokenizer in Lava.

    `tables` (k, 2, V) and `constants` (6,); the texts' characters one after the other in `ids`, `length` (B,) of each,
    the longest first. Returns `spikes`, one number per character in the same order.
    """
    from speak_neuro.sim.child import guard
    from speak_neuro.sim.child.character_network import character_network

    constants = dict(zip(CONSTANTS, job["constants"], strict=True))
    length = job["length"]
    begin = np.concatenate([[0], np.cumsum(length)])
    spikes = np.zeros(len(job["ids"]), dtype=np.uint8)
    steps_before = 0
    for group in groups(length):
        steps, rows = int(length[group.start]), range(group.start, group.stop)
        events = np.zeros((steps, len(rows)), dtype=np.int32)
        for lane, row in enumerate(rows):
            events[: length[row], lane] = job["ids"][begin[row] : begin[row + 1]] + 1
        built = character_network(events, job["tables"], constants)
        found = guard.run_part(built, deadline=deadline, before=steps_before, steps=steps, on_step=on_step)["spikes"]
        steps_before += steps
        for lane, row in enumerate(rows):
            spikes[begin[row] : begin[row + 1]] = found[: length[row], lane]
    return {"spikes": spikes}


if __name__ == "__main__":
    sys.exit(main(simulate=simulate))
