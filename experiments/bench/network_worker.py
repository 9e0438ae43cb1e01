"""Neurons that sim.py and network.py time in Lava, in an interpreter of their own: `python -m network_worker` with this
folder on PYTHONPATH, in place of speak_neuro.sim.child.worker."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from lava.proc.lif.models import PyLifModelBitAcc, PyLifModelFloat
from lava.proc.lif.process import LIF

from speak_neuro.export.graphs.layers import LANES, OPEN, Neurons
from speak_neuro.sim.child import guard, worker
from speak_neuro.sim.child.layer_network import FIXED, FLOAT
from speak_neuro.sim.child.network import gated_neurons, shared
from speak_neuro.sim.processes.array_source.process import ArraySource
from speak_neuro.sim.processes.neuron_layer.process import NeuronLayer, NeuronLayerFloat32
from speak_neuro.sim.processes.recorder.process import Recorder

MODELS = {"float": {**FLOAT, LIF: PyLifModelFloat}, "fixed": {**FIXED, LIF: PyLifModelBitAcc}}
MANTISSA = 64
CONSTANTS = {
    "float": {"decay": 1, "gain": 1, "threshold": 1, "reset_potential": 0, "reset_scale": 0.8, "gate_threshold": 0},
    "fixed": {
        "decay": 4096,
        "threshold": MANTISSA << 6,
        "soft_reset": (MANTISSA << 6) * 3 // 4,
        "reset_potential": 0,
        "gate_threshold": 0,
        "shift": 6,
    },
}


def neurons(lanes: int, gate: int) -> Neurons:
    """Decay 1, threshold 1, reset to 0."""
    one, zero = np.ones(lanes, dtype=np.float32), np.zeros(lanes, dtype=np.float32)
    return Neurons(one, one, zero, one, zero, one / 2, zero, zero, gate=gate)


def process_of(kind: str, arithmetic: str, lanes: int, first: bool) -> Any:
    """Neurons of a kind; all spike at the same steps when every gate is open: Lava's spike at >, so their threshold is
    the next smaller number.

    stock         Lava's LIF
    gated         the tokenizer's neuron, its gate on a port of its own
    layer         a layer of a network, always open; "gated layer" reads gate lanes if it is the first
    """
    if kind == "stock":
        if arithmetic == "float":
            return LIF(shape=(lanes,), du=1, dv=0, vth=np.nextafter(np.float64(1), 0))
        return LIF(shape=(lanes,), du=4095, dv=0, vth=MANTISSA - 1)
    if kind == "gated":
        return gated_neurons(lanes, CONSTANTS[arithmetic], arithmetic == "fixed")
    gate = LANES if kind == "gated layer" and first else OPEN
    return NeuronLayer(layer=neurons(lanes, gate), batch=1, onset=0)


def simulate(job: Any, deadline: float, on_step: Callable[[int], None]) -> dict[str, np.ndarray]:
    """Seconds of `steps` time steps, the processor time of all processes, the last neurons' spikes at first.

    `kind`, `arithmetic` float or fixed, `layers` of neurons; `connected` 1 for source -> neurons -> recorder, 0 for
    the neurons alone. `current` (T, lanes) is repeated to fill the steps. Processor time holds the processes' start
    too: `network.py` takes a short run's from it.
    """
    kind, arithmetic, steps, current = str(job["kind"]), str(job["arithmetic"]), int(job["steps"]), job["current"]
    lanes = current.shape[1]
    data = np.resize(current, (steps, lanes)).astype(np.float32 if arithmetic == "float" else np.int32)
    layers = [process_of(kind, arithmetic, lanes, not number) for number in range(int(job["layers"]))]
    processes, spikes = list(layers), np.zeros((1, 1), dtype=np.int8)
    if int(job["connected"]):
        row = np.concatenate((data, np.ones_like(data)), axis=1) if kind == "gated layer" else data
        source = ArraySource(data=row, second=np.ones_like(data) if kind == "gated" else None)
        if kind == "gated":
            source.g_out.connect(layers[0].g_in)
        spikes = shared((steps, lanes), np.float32)  # the stock LIF sends its spikes as floats
        recorder = Recorder(data=spikes, counter=shared((1,), np.int64))
        port = source.s_out
        for layer in layers:
            port.connect(layer.a_in if kind == "stock" else layer.x_in)
            port = layer.s_out
        port.connect(recorder.a_in)
        processes = [source, *layers, recorder]
    models = {process: MODELS[arithmetic][type(process)] for process in processes}
    seconds = guard.run_guarded(processes[0], models, steps, deadline=deadline)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {"seconds": seconds, "processor": used.ru_utime + used.ru_stime}
    if len(layers) > 1:
        found["arithmetic"] = alone(kind, data[0])
    return {**{name: np.asarray(value) for name, value in found.items()}, "spikes": spikes[: len(current)].copy()}


class _Port:
    """Gives the same array at each step, and takes what is sent."""

    def __init__(self, data: Any = None) -> None:
        self.data = data

    def recv(self) -> Any:
        return self.data.copy()

    def send(self, data: Any) -> None:
        pass


def alone(kind: str, row: Any) -> float:
    """Processor seconds of one step of the first layer's float model without Lava around it: the least of five."""
    lanes = row.size
    if kind == "stock":
        model: Any = PyLifModelFloat({"shape": row.shape})
        model.a_in, model.du, model.dv, model.vth = _Port(row.astype(np.float64)), 1, 0, 1.0
        model.u, model.v, model.bias_mant, model.bias_exp = np.zeros((4, lanes))
    else:
        gated = kind == "gated layer"
        layer = neurons(lanes, LANES if gated else OPEN)
        model = NeuronLayerFloat32({"layer": layer, "batch": 1, "onset": 0, "apart": False})
        model.x_in, model.u_out = _Port(np.concatenate((row, np.ones_like(row))) if gated else row), _Port()
    model.s_out, model.time_step = _Port(), 1
    taken = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(1000):
            model.run_spk()
        taken.append((time.process_time() - began) / 1000)
    return min(taken)


if __name__ == "__main__":
    sys.exit(worker.main(simulate=simulate))
