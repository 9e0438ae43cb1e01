"""Lava networks for the two levels of parity. Imports Lava: only the simulation's own interpreter loads this module.

    neuron level     source I, e -> neuron -> recorders                 the trained network's own currents and gates
    readout level    source features+1 -> Dense I -> neuron -> recorders     currents and gates computed in Lava
                                       -> Dense e ->

One lane is one sequence. A Dense holds its result for one step, as the chip does, so its inputs are played one step
ahead of the neuron; the latency is computed from the graph, never searched for. Lava's Dense has no bias: the bias is
the weight of one more feature that is 1 while the sequence runs and 0 while the pipeline fills.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from lava.magma.core.process.ports.ports import InPort
from lava.proc.dense.models import PyDenseModelFloat
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.sparse.process import Sparse

from speak_neuro.errors import SpeakError
from speak_neuro.export.graphs.layers import LANES, Neurons
from speak_neuro.sim.processes.array_source.process import ArraySource, ArraySourceFloat32
from speak_neuro.sim.processes.neuron_layer.process import NeuronLayer, NeuronLayerFloat32
from speak_neuro.sim.processes.recorder.process import Recorder, RecorderModel
from speak_neuro.sim.processes.table_synapse.process import TableSynapse

MODELS: dict[type, type] = {
    ArraySource: ArraySourceFloat32,
    Dense: PyDenseModelFloat,
    NeuronLayer: NeuronLayerFloat32,
    Recorder: RecorderModel,
}
GRADED = 24
"""Message bits of a Dense; 0 would read any input as 1."""


@dataclass(frozen=True)
class Network:
    """A built network: run it for `steps`, then read the `recordings`."""

    entry: Any
    models: dict[Any, type]
    steps: int
    length: int
    """Positions played; `steps` is longer by the latency."""
    counter: npt.NDArray[np.int64]
    recorders: dict[str, tuple[Any, npt.NDArray[Any]]]

    def recordings(self) -> dict[str, npt.NDArray[Any]]:
        """What each recorder saw, by name, with its path's latency cut off the front."""
        result = {}
        for name, (recorder, data) in self.recorders.items():
            start = latency(recorder.a_in)
            result[name] = data[start : start + self.length].copy()
        return result


def gated_neurons(lanes: int, constants: Mapping[str, Any], integers: bool = False) -> NeuronLayer:
    """A neuron for each lane, its gate on a port of its own. Constants are numbers or arrays (lanes,): CONSTANTS in
    float32, or INTEGERS (`sim.job`), of which `shift` aligns the current."""
    kind: Any = np.int64 if integers else np.float32
    given: dict[str, Any] = {
        name: np.broadcast_to(np.asarray(value, dtype=kind), (lanes,)) for name, value in constants.items()
    }
    zero = np.zeros(lanes, dtype=kind)
    if integers:
        given["gain"] = np.left_shift(1, given.pop("shift", zero))
    else:
        given["soft_reset"] = given.pop("reset_scale") * given["threshold"]  # rounded once
    start = given["reset_potential"]
    return NeuronLayer(layer=Neurons(**given, bias=zero, initial=start, gate=LANES), batch=1, onset=0, apart=True)


def neuron_network(
    current: npt.NDArray[np.float32], gate_logit: npt.NDArray[np.float32], constants: Mapping[str, Any]
) -> Network:
    """The neuron alone: `current` and `gate_logit` of shape (T, lanes), `constants` as `gated_neurons` takes them."""
    steps, lanes = current.shape
    neuron = gated_neurons(lanes, constants)
    source = ArraySource(data=current, second=gate_logit)
    source.s_out.connect(neuron.x_in)
    source.g_out.connect(neuron.g_in)
    return recorded(neuron, [source], {}, steps)


def readout_network(
    features: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    constants: Mapping[str, Any],
) -> Network:
    """Readouts and neuron: `features` (T, lanes, D), `weight` (2, D) and `bias` (2,) for current and gate."""
    steps, lanes, _ = features.shape
    always_on = np.ones((steps, lanes, 1), dtype=np.float32)
    source = ArraySource(data=np.concatenate((features, always_on), axis=2).reshape(steps, -1))
    rows = np.concatenate((weight, bias[:, None]), axis=1).astype(np.float64)
    dense = [Dense(weights=np.kron(np.eye(lanes), row[None, :]), num_message_bits=GRADED) for row in rows]
    neuron = gated_neurons(lanes, constants)
    for readout, port in zip(dense, (neuron.x_in, neuron.g_in), strict=True):
        source.s_out.connect(readout.s_in)
        readout.a_out.connect(port)
    outputs = {"current": [dense[0].a_out], "gate_logit": [dense[1].a_out]}
    return recorded(neuron, [source, *dense], outputs, steps)


def recorded(
    neuron: Any,
    others: list[Any],
    outputs: dict[str, list[Any]],
    length: int,
    *,
    dtype: Any = np.float32,
    models: Mapping[type, type] = MODELS,
    potential: bool = True,
) -> Network:
    """Attach the recorders; the neuron waits for its inputs, and the run is longer by as much.

    An output port, or several whose values are added, is recorded under each name of `outputs`, as are the spikes and,
    where it is wanted, the potential.
    """
    lanes = neuron.s_out.shape[0]
    neuron.proc_params.overwrite("onset", aligned_latency(neuron))
    steps = length + aligned_latency(neuron)
    counter = shared((1,), np.int64)
    recorders = {}
    for name, ports, kind in [
        ("spikes", [neuron.s_out], np.int8),
        *([("membrane", [neuron.u_out], dtype)] if potential else []),
        *((name, ports, dtype) for name, ports in outputs.items()),
    ]:
        data = shared((steps, lanes), kind)
        recorder = Recorder(data=data, counter=counter)
        for port in ports:
            port.connect(recorder.a_in)
        recorders[name] = (recorder, data)
    processes = [neuron, *others, *(recorder for recorder, _ in recorders.values())]
    chosen = {process: models[type(process)] for process in processes}
    return Network(neuron, chosen, steps, length, counter, recorders)


def shared(shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """Zeros in an anonymous mapping that forked processes share."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype=dtype).reshape(shape)


def latency(port: InPort) -> int:
    """Steps between a source's sending and the arrival at `port`: a direct connection 0, a Dense 1, a delay d 1 + d."""
    arrivals = {_departure(source) for source in port.get_src_ports()}
    if not arrivals:
        raise SpeakError(f"input {port.name} of {type(port.process).__name__} is connected to nothing")
    if len(arrivals) > 1:
        raise SpeakError(
            f"signals reach {port.name} of {type(port.process).__name__} after different delays: {sorted(arrivals)}"
        )
    return arrivals.pop()


def aligned_latency(process: Any) -> int:
    """The one latency of all inputs of `process`; different ones are an error, since Lava would not notice."""
    arrivals = {port.name: latency(port) for port in process.in_ports}
    if len(set(arrivals.values())) > 1:
        paths = ", ".join(f"{name} after {steps}" for name, steps in arrivals.items())
        raise SpeakError(
            f"inputs of {type(process).__name__} arrive at different steps ({paths}): "
            "add an identity Dense to the shorter path"
        )
    return next(iter(arrivals.values()))


def _departure(port: Any) -> int:
    process = port.process
    if isinstance(process, DelayDense):
        delays = np.unique(process.delays.init)
        if len(delays) > 1:
            raise SpeakError(f"a DelayDense has several delays {delays.tolist()}; allowed: one")
        return latency(process.s_in) + 1 + int(delays[0])
    if isinstance(process, (Dense, Sparse, TableSynapse)):
        return latency(process.s_in) + 1
    if not list(process.in_ports):
        return 0
    return aligned_latency(process)
