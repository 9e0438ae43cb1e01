"""A simulation worker that runs the fixed-point neuron beside Lava's stock LIF, in place of sim.child.worker."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from lava.proc.lif.models import PyLifModelBitAcc
from lava.proc.lif.process import LIF

from speak_neuro.sim.child import fixed_network, guard, network, worker
from speak_neuro.sim.processes.array_source.process import ArraySource
from speak_neuro.sim.processes.recorder.process import Recorder

MODELS = {**fixed_network.MODELS, LIF: PyLifModelBitAcc}


def simulate(job: Any, deadline: float, on_step: Callable[[int], None]) -> dict[str, np.ndarray]:
    """With every gate open the neuron is the stock LIF whose current does not persist and whose threshold is one less.

    Lava's LIF shifts threshold and current by 6 bits and spikes at >.
    """
    current, mantissa = job["current"].astype(np.int32), int(job["threshold"])
    steps, lanes = current.shape
    source, gate = ArraySource(data=current), ArraySource(data=np.ones_like(current))
    constants = {"decay": 4096, "threshold": mantissa << 6, "soft_reset": 0, "reset_potential": 0, "shift": 6}
    ours = network.gated_neurons(lanes, {**constants, "gate_threshold": 0}, integers=True)
    stock = LIF(shape=(lanes,), du=4095, dv=0, vth=mantissa - 1)
    same = LIF(shape=(lanes,), du=4095, dv=0, vth=mantissa)
    source.s_out.connect(ours.x_in)
    gate.s_out.connect(ours.g_in)
    processes: list[Any] = [ours, source, gate, stock, same]
    result = {}
    for name, neuron in (("ours", ours), ("stock", stock), ("same", same)):
        if neuron is not ours:
            source.s_out.connect(neuron.a_in)
        result[name] = network.shared((steps, lanes), np.float32)
        recorder = Recorder(data=result[name], counter=network.shared((1,), np.int64))
        neuron.s_out.connect(recorder.a_in)
        processes.append(recorder)
    models = {process: MODELS[type(process)] for process in processes}
    guard.run_guarded(ours, models, steps, deadline=deadline)
    return result


if __name__ == "__main__":
    sys.exit(worker.main(simulate=simulate))
