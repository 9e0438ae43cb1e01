"""Networks that bench_sim.py times, in an interpreter of their own: the gated neuron beside Lava's stock LIF.

Run as `python -m sim_worker` with this folder on PYTHONPATH, in place of speak_neuro.sim.child.worker.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from lava.proc.lif.models import PyLifModelBitAcc, PyLifModelFloat
from lava.proc.lif.process import LIF

from speak_neuro.sim.child import fixed_network, guard, network, worker
from speak_neuro.sim.processes.array_source.process import ArraySource
from speak_neuro.sim.processes.gated_reset_lif.process import GatedResetLIF
from speak_neuro.sim.processes.recorder.process import Recorder

MODELS = {
    "float": {**network.MODELS, LIF: PyLifModelFloat},
    "fixed": {**fixed_network.MODELS, LIF: PyLifModelBitAcc},
}
MANTISSA = 64


def neuron_of(kind: str, arithmetic: str, lanes: int) -> Any:
    """Both spike at the same steps when every gate is open: Lava spikes at >, so its threshold is the next smaller."""
    if kind == "stock":
        if arithmetic == "float":
            return LIF(shape=(lanes,), du=1, dv=0, vth=np.nextafter(np.float64(1), 0))
        return LIF(shape=(lanes,), du=4095, dv=0, vth=MANTISSA - 1)
    if arithmetic == "float":
        return GatedResetLIF(lanes=lanes)
    constants = {"decay": 4096, "gain": 1, "threshold": MANTISSA << 6, "soft_reset": (MANTISSA << 6) * 3 // 4}
    return GatedResetLIF(lanes=lanes, dtype=np.int32, shift=6, **constants)


def simulate(job: Any, deadline: float, on_step: Callable[[int], None]) -> dict[str, np.ndarray]:
    """Seconds of `steps` time steps, and the spikes of the network's first step at least.

    `kind` stock or gated, `arithmetic` float or fixed, `connected` 1 for source -> neuron -> recorder, 0 for the
    neuron's process alone. The network's `current` (T, lanes) is repeated to fill the steps.
    """
    kind, arithmetic, steps = str(job["kind"]), str(job["arithmetic"]), int(job["steps"])
    current = job["current"]
    lanes = current.shape[1]
    neuron = neuron_of(kind, arithmetic, lanes)
    processes, spikes = [neuron], np.zeros((1, 1), dtype=np.int8)
    if int(job["connected"]):
        data = np.resize(current, (steps, lanes)).astype(np.float32 if arithmetic == "float" else np.int32)
        source = ArraySource(data=data, second=np.ones_like(data) if kind == "gated" else None)
        source.s_out.connect(neuron.a_in)
        if kind == "gated":
            source.g_out.connect(neuron.g_in)
        processes.append(source)
        spikes = network.shared((steps, lanes), np.float32)  # the stock LIF sends its spikes as floats
        recorder = Recorder(data=spikes, counter=network.shared((1,), np.int64))
        neuron.s_out.connect(recorder.a_in)
        processes.append(recorder)
    models = {process: MODELS[arithmetic][type(process)] for process in processes}
    seconds = guard.run_guarded(neuron, models, steps, deadline=deadline)
    return {"seconds": np.array(seconds), "spikes": spikes[: len(current)]}


if __name__ == "__main__":
    sys.exit(worker.main(simulate=simulate))
