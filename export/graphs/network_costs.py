"""What a network costs on a neuromorphic chip, a layer and a step, by NeuroBench's definitions, and an energy estimate.

    dense synaptic operations       every connection, at every step, whatever the input
    effective synaptic operations   connections that are not zero, at inputs that are not zero: ACs where inputs are
    spikes (an
                                    addition each), MACs where they are numbers; no biases
    neuron updates                  one a neuron and step
    footprint                       bytes of weights, constants and state, in float32; a convolution stores its
                                    kernel once

Energy is operations times the published figures of `export.graphs.costs`: of the first Loihi, simulated before there
was silicon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from speak_neuro.common.array_types import Array
from speak_neuro.export.graphs.costs import LOIHI
from speak_neuro.export.graphs.layers import LINEAR, Convolution, Dense, Neurons, Scale
from speak_neuro.export.graphs.network import Network
from speak_neuro.export.graphs.network_run import Stepper

CONSTANTS = 6
"""Numbers that a neuron needs beside its state."""


@dataclass(frozen=True)
class LayerCosts:
    """Means a step of one sequence, unless the name says otherwise."""

    name: str
    kind: str
    connections: int
    """Of a linear layer, in all; a convolution's kernel counts at every position."""
    dense_synops: float
    effective_acs: float
    effective_macs: float
    neurons: int
    spikes: float
    footprint_bytes: int
    picojoules: float


@dataclass(frozen=True)
class NetworkCosts:
    """Of every layer that computes, and their sum."""

    layers: tuple[LayerCosts, ...]
    total: LayerCosts
    activation_sparsity: float
    """Share of zeros among the neurons' outputs."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def network_costs(network: Network, inputs: Array) -> NetworkCosts:
    """Costs of `network` on (B, T, *shape) inputs, by a run of it in numpy."""
    flat = np.asarray(inputs, dtype=np.float32).reshape(*np.shape(inputs)[:2], -1)
    batch, steps = flat.shape[:2]
    stepper = Stepper(network, batch, np.float32)
    operations = {name: 0.0 for name, layer in network.layers.items() if isinstance(layer, LINEAR)}
    spiking = dict.fromkeys(operations, True)
    counts = {name: _present(network.layers[name]) for name in operations}
    spikes = dict.fromkeys(network.neurons(), 0)
    for t in range(steps):
        values, details = stepper.step(flat[:, t])
        for name in operations:
            source = np.sum([values[s.name] for s in network.sources[name]], axis=0)
            spiking[name] &= bool(np.isin(source, (0, 1)).all())
            operations[name] += float(((source != 0) @ counts[name]).sum())
        for name, (_, fired, _u) in details.items():
            spikes[name] += int(fired.sum())
    each = batch * steps
    layers = []
    for name, layer in network.layers.items():
        if isinstance(layer, LINEAR):
            layers.append(_linear(name, network.kinds[name], layer, operations[name] / each, spiking[name]))
        elif isinstance(layer, Neurons):
            layers.append(_neurons(name, network.kinds[name], layer, spikes[name] / each))
    return NetworkCosts(tuple(layers), _total(layers), _sparsity(network, spikes, each))


def _present(layer: Any) -> Array:
    """For each input how many connections that are not zero lead from it."""
    if isinstance(layer, Dense):
        return np.count_nonzero(layer.weight, axis=0).astype(np.float64)
    if isinstance(layer, Scale):
        return (layer.scale != 0).astype(np.float64)
    found = np.zeros(layer.inputs + 1)
    per_tap = np.count_nonzero(layer.weight, axis=1)  # (groups, taps): channels that a tap leads to
    for group, index in enumerate(layer.index):
        np.add.at(found, index, np.broadcast_to(per_tap[group], index.shape))
    return found[:-1]


def _linear(name: str, kind: str, layer: Any, effective: float, spikes: bool) -> LayerCosts:
    if isinstance(layer, Convolution):
        connections = layer.index.shape[1] * layer.weight.size
        stored = layer.weight.nbytes + layer.bias.nbytes
    elif isinstance(layer, Dense):
        connections, stored = layer.weight.size, layer.weight.nbytes + layer.bias.nbytes
    else:
        connections, stored = layer.scale.size, layer.scale.nbytes
    return LayerCosts(
        name=name,
        kind=kind,
        connections=int(connections),
        dense_synops=float(connections),
        effective_acs=effective if spikes else 0.0,
        effective_macs=0.0 if spikes else effective,
        neurons=0,
        spikes=0.0,
        footprint_bytes=int(stored),
        picojoules=LOIHI["synaptic"].picojoules * effective,
    )


def _neurons(name: str, kind: str, layer: Neurons, spikes: float) -> LayerCosts:
    states = 2 if layer.syn_decay.size else 1
    return LayerCosts(
        name=name,
        kind=kind,
        connections=0,
        dense_synops=0.0,
        effective_acs=0.0,
        effective_macs=0.0,
        neurons=layer.size,
        spikes=spikes,
        footprint_bytes=4 * layer.size * (CONSTANTS + states),
        picojoules=LOIHI["active"].picojoules * layer.size + LOIHI["spike"].picojoules * spikes,
    )


def _total(layers: list[LayerCosts]) -> LayerCosts:
    def add(field: str) -> Any:
        return sum(getattr(layer, field) for layer in layers)

    names = [f for f in LayerCosts.__dataclass_fields__ if f not in ("name", "kind")]
    return LayerCosts(name="all", kind="network", **{field: add(field) for field in names})


def _sparsity(network: Network, spikes: Mapping[str, int], each: int) -> float:
    outputs = sum(each * network.width(name) for name in spikes)
    return 1 - sum(spikes.values()) / outputs if outputs else 1.0
