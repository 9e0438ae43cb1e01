"""The chains that network.py times, in an interpreter of their own: `python -m network_worker` with this folder on
PYTHONPATH."""

from __future__ import annotations

import resource
import sys
import time
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
from speak_neuro.sim.processes.neuron_layer.process import NeuronLayer, NeuronLayerFloat32
from speak_neuro.sim.processes.recorder.process import Recorder

MODELS = {**FLOAT, LIF: PyLifModelFloat}


def neurons(lanes: int, gate: int) -> Neurons:
    """Decay 1, threshold just above 1 as Lava's LIF with vth 1, reset to 0."""
    one, zero = np.ones(lanes, dtype=np.float32), np.zeros(lanes, dtype=np.float32)
    above = np.nextafter(one, np.float32(2))
    return Neurons(one, one, zero, above, zero, one / 2, zero, zero, gate=gate)


def simulate(job: Any, deadline: float, on_step: Callable[[int], None]) -> dict[str, np.ndarray]:
    """Seconds that source -> layer -> layer -> recorder takes for `steps` steps, and its processes' processor time.

    The latter holds their start too: `network.py` takes a short run's from it.
    """
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
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = np.asarray(used.ru_utime + used.ru_stime)
    alone = arithmetic(kind, data[0])
    return {"seconds": np.asarray(seconds), "processor": processor, "arithmetic": alone, "spikes": spikes[:64].copy()}


class _Port:
    """Gives the same array at each step, and takes what is sent."""

    def __init__(self, data: Any = None) -> None:
        self.data = data

    def recv(self) -> Any:
        return self.data.copy()

    def send(self, data: Any) -> None:
        pass


def arithmetic(kind: str, row: Any) -> Any:
    """Processor seconds of one step of the first layer's model without Lava around it: the least of five."""
    if kind == "stock":
        lanes = row.size
        model: Any = PyLifModelFloat({"shape": row.shape})
        model.a_in, model.du, model.dv, model.vth = _Port(row.astype(np.float64)), 1, 0, 1.0
        model.u, model.v, model.bias_mant, model.bias_exp = np.zeros((4, lanes))
    else:
        gated = kind == "gated layer"
        layer = neurons(row.size // 2 if gated else row.size, LANES if gated else OPEN)
        model = NeuronLayerFloat32({"layer": layer, "batch": 1, "onset": 0})
        model.x_in, model.u_out = _Port(row), _Port()
    model.s_out, model.time_step = _Port(), 1
    taken = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(1000):
            model.run_spk()
        taken.append((time.process_time() - began) / 1000)
    return np.asarray(min(taken))


if __name__ == "__main__":
    sys.exit(worker.main(simulate=simulate))
