"""The simulation's own interpreter for networks of layers: `python -m speak_neuro.sim.child.layer_worker in.npz
out.npz`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.sim.child.worker import Arrays, main


def simulate(job: Arrays, deadline: float, on_step: Callable[[int], None]) -> dict[str, npt.NDArray[Any]]:
    """Run a network in Lava, `lanes` sequences at a time.

    `inputs` (T, B, D), float32 or integers (then in fixed point), `lanes` (), and of `plan.job_of` the layers and
    `network`. Returns `output` and of each layer of neurons `NAME.spikes` and `NAME.membrane`, (T, B, N).
    """
    from speak_neuro.sim.child import guard
    from speak_neuro.sim.child.layer_network import LayerNetwork

    inputs = job["inputs"]
    sequences, lanes = inputs.shape[1], int(job["lanes"])
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    before = 0
    for start in range(0, sequences, lanes):
        built = LayerNetwork(job, inputs[:, start : start + lanes], inputs.dtype.kind == "i")
        found = guard.run_part(built, deadline=deadline, before=before, steps=built.steps, on_step=on_step)
        before += built.steps
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values, axis=1) for name, values in parts.items()}


if __name__ == "__main__":
    sys.exit(main(simulate=simulate))
