"""A network of layers in Lava, a batch of sequences side by side. Imports Lava: the child interpreter only.

    source -> LinearSynapse -> NeuronLayer -> LinearSynapse -> NeuronLayer -> recorders
                                    ^------- LinearSynapse <-------'

Latencies and delay lines come planned (`speak_neuro.sim.networks.plan`); each layer of neurons waits for its inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.export.graphs.layers import LINEAR, Delay, Neurons, from_arrays
from speak_neuro.sim.child.network import shared
from speak_neuro.sim.processes.array_source.process import ArraySource, ArraySourceFloat32, ArraySourceInt32
from speak_neuro.sim.processes.delay_line.process import DelayLine, DelayLineFixed, DelayLineFloat32
from speak_neuro.sim.processes.linear_synapse.process import LinearSynapse, LinearSynapseFixed, LinearSynapseFloat32
from speak_neuro.sim.processes.neuron_layer.process import (
    LeakyLayerFixed,
    LeakyLayerFloat32,
    NeuronLayer,
    NeuronLayerFixed,
    NeuronLayerFloat32,
)
from speak_neuro.sim.processes.recorder.process import Recorder, RecorderModel

Arrays = Mapping[str, npt.NDArray[Any]]
FLOAT: dict[type, type] = {
    ArraySource: ArraySourceFloat32,
    LinearSynapse: LinearSynapseFloat32,
    DelayLine: DelayLineFloat32,
    NeuronLayer: NeuronLayerFloat32,
    Recorder: RecorderModel,
}
FIXED: dict[type, type] = {
    ArraySource: ArraySourceInt32,
    LinearSynapse: LinearSynapseFixed,
    DelayLine: DelayLineFixed,
    NeuronLayer: NeuronLayerFixed,
    Recorder: RecorderModel,
}


class LayerNetwork:
    """The processes of a job (see `layer_worker.simulate`) for some of its sequences."""

    def __init__(self, job: Arrays, inputs: npt.NDArray[Any], fixed: bool) -> None:
        self.spec = json.loads(str(job["network"]))
        self.length, self.batch, _ = inputs.shape
        self.fixed, self.dtype = fixed, np.int32 if fixed else np.float32
        self.models: dict[Any, type] = {}
        self.counter = shared((1,), np.int64)
        latency = self.spec["latency"]
        self.steps = self.length + max(latency.values())
        source = self._add(ArraySource(data=inputs.reshape(self.length, -1).astype(self.dtype)))
        self.entry = source
        self._outputs = {self.spec["input"]: source.s_out}
        self._recorders: dict[str, tuple[npt.NDArray[Any], int]] = {}
        self._ports: dict[str, Any] = {}
        for name in self.spec["feeds"]:
            if name not in (self.spec["input"], self.spec["output"]):
                self._layer(name, from_arrays(f"layer.{name}", job), latency[name])
        for name, feeds in self.spec["feeds"].items():
            if name == self.spec["input"]:
                continue
            if name == self.spec["output"]:
                self._record("output", self._fed(name, feeds), latency[name], self.dtype)
            else:
                for port in self._fed(name, feeds):
                    port.connect(self._ports[name])

    def _add(self, process: Any, model: type | None = None) -> Any:
        self.models[process] = model or (FIXED if self.fixed else FLOAT)[type(process)]
        return process

    def _layer(self, name: str, layer: Any, latency: int) -> None:
        """The process of one layer, without its inputs; layers of neurons are recorded."""
        if isinstance(layer, LINEAR):
            source = self.spec["feeds"][name][0][0]
            widths = {"inputs": self.spec["width"][source], "outputs": self.spec["width"][name]}
            synapse = self._add(LinearSynapse(layer=layer, batch=self.batch, onset=latency, **widths))
            self._ports[name], self._outputs[name] = synapse.s_in, synapse.a_out
        elif isinstance(layer, Delay):
            line = self._add(DelayLine(steps=layer.steps, batch=self.batch))
            self._ports[name], self._outputs[name] = line.s_in, line.s_out
        elif isinstance(layer, Neurons):
            leaky = None if layer.spiking else (LeakyLayerFixed if self.fixed else LeakyLayerFloat32)
            neurons = self._add(NeuronLayer(layer=layer, batch=self.batch, onset=latency), leaky)
            self._ports[name], self._outputs[name] = neurons.x_in, neurons.s_out
            if layer.spiking:
                self._record(f"{name}.spikes", [neurons.s_out], latency, np.int8)
            self._record(f"{name}.membrane", [neurons.u_out], latency, self.dtype)

    def _fed(self, name: str, feeds: list[tuple[str, int]]) -> list[Any]:
        """The ports that a layer listens to, through delay lines where a source is early."""
        ports = []
        for source, wait in feeds:
            port = self._outputs[source]
            if wait:
                steps = np.full(self.spec["width"][source], wait, dtype=np.int64)
                line = self._add(DelayLine(steps=steps, batch=self.batch))
                port.connect(line.s_in)
                port = line.s_out
            ports.append(port)
        return ports

    def _record(self, name: str, ports: list[Any], latency: int, kind: Any) -> None:
        width = int(np.prod(ports[0].shape))
        data = shared((self.steps, width), kind)
        recorder = self._add(Recorder(data=data, counter=self.counter))
        for port in ports:
            port.connect(recorder.a_in)
        self._recorders[name] = (data, latency)

    def recordings(self) -> dict[str, npt.NDArray[Any]]:
        """What was recorded, (T, batch, N), each layer from the step on at which it began to work."""
        return {
            name: data[start : start + self.length].reshape(self.length, self.batch, -1).copy()
            for name, (data, start) in self._recorders.items()
        }
