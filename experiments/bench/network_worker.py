"""The chains that network.py times, in an interpreter of their own: `python -m network_worker` with this folder on
PYTHONPATH."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from lava.proc.lif.models import PyLifModelFloat
from lava.proc.lif.process import LIF

from speak_neuro.export.graphs.layers import LANES, OPEN, Neurons
from speak_neuro.sim.child import guard, worker
from speak_neuro.sim.child.layer_network import FLOAT
from speak_neuro.sim.child.network import shared
from speak_neuro.sim.processes.array_source.process import ArraySource
from speak_neuro.sim.processes.neuron_layer.process import NeuronLayer
from speak_neuro.sim.processes.recorder.process import Recorder

MODELS = {**FLOAT, LIF: PyLifModelFloat}


def neurons(lanes: int, gate: int) -> Neurons:
    """Decay 1, threshold just above 1 as Lava's LIF with vth 1, reset to 0."""
    one, zero = np.ones(lanes, dtype=np.float32), np.zeros(lanes, dtype=np.float32)
    above = np.nextafter(one, np.float32(2))
    return Neurons(one, one, zero, above, zero, one / 2, zero, zero, gate=gate)


def simulate(job: Any, deadline: float, on_step: Callable[[int], None]) -> dict[str, np.ndarray]:
    """Seconds that source -> layer -> layer -> recorder takes for `steps` steps."""
    kind, steps, current = str(job["kind"]), int(job["steps"]), job["current"]
    lanes = current.shape[1]
    data = np.resize(current, (steps, lanes)).astype(np.float32)
    if kind == "stock":
        layers: list[Any] = [LIF(shape=(lanes,), du=1, dv=0, vth=1.0) for _ in range(2)]
        ports = [(layer.a_in, layer.s_out) for layer in layers]
    else:
        # The first layer reads gate lanes, always above 0, where it is to; the second takes spikes as they are.
        first = neurons(lanes, LANES if kind == "gated layer" else OPEN)
        layers = [NeuronLayer(layer=layer, batch=1, onset=0) for layer in (first, neurons(lanes, OPEN))]
        ports = [(layer.x_in, layer.s_out) for layer in layers]
        if kind == "gated layer":
            data = np.concatenate((data, np.ones_like(data)), axis=1)
    source = ArraySource(data=data)
    spikes = shared((steps, lanes), np.float32)  # the stock LIF sends its spikes as floats
    recorder = Recorder(data=spikes, counter=shared((1,), np.int64))
    source.s_out.connect(ports[0][0])
    ports[0][1].connect(ports[1][0])
    ports[1][1].connect(recorder.a_in)
    processes = [source, *layers, recorder]
    seconds = guard.run_guarded(
        source, {process: MODELS[type(process)] for process in processes}, steps, deadline=deadline
    )
    return {"seconds": np.asarray(seconds), "spikes": spikes[:64].copy()}


if __name__ == "__main__":
    sys.exit(worker.main(simulate=simulate))
