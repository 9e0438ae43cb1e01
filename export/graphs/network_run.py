"""Runs a network of layers in numpy, step by step: the reference that a simulation is compared with, and a second
reading of every graph written here (`network` says what it decides where NIR is silent)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speak_neuro.common.array_types import Array
from speak_neuro.errors import SpeakError
from speak_neuro.export.graphs.layers import (
    LINEAR,
    Delay,
    Layer,
    Neurons,
    State,
    advance,
    advance_integer,
    start,
)
from speak_neuro.export.graphs.network import Network


@dataclass(frozen=True)
class LayerRun:
    """What a layer of neurons took and did, (B, T, width), (B, T, N), (B, T, N)."""

    input: Array
    spikes: Array
    membrane: Array
    """u, before reset."""


@dataclass(frozen=True)
class NetworkRun:
    """A run of a network: its layers of neurons, and what came out, (B, T, *shape)."""

    layers: dict[str, LayerRun]
    output: Array
    values: dict[str, Array] = field(default_factory=dict)
    """What other layers gave, (B, T, width), where it was asked for."""


def check_inputs(network: Network, inputs: Array) -> Array:
    """(B, T, *shape) finite float32 inputs for `network`, flattened to (B, T, D)."""
    array, shape = np.asarray(inputs), network.shapes[network.input]
    if array.dtype.kind not in "fiub":
        raise SpeakError(f"inputs are {array.dtype}; allowed: numbers")
    if array.shape[2:] != shape or array.ndim < 2:
        raise SpeakError(f"inputs have shape {array.shape}; allowed: (batch, steps, {', '.join(map(str, shape))})")
    if 0 in array.shape:
        raise SpeakError(f"inputs have shape {array.shape}; allowed: at least one sequence and one step")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise SpeakError("inputs hold NaN or infinity; allowed: finite numbers")
    return array.reshape(*array.shape[:2], -1)


def run_network(network: Network, inputs: Array, record: Sequence[str] = ()) -> NetworkRun:
    """All steps of (B, T, *shape) inputs in float32; `record` names layers whose values are kept too."""
    return run_flat(network, check_inputs(network, inputs), record=record)


def run_flat(network: Network, inputs: Array, integer: bool = False, record: Sequence[str] = ()) -> NetworkRun:
    """All steps of (B, T, D) inputs, in float32 or in int64."""
    batch, steps, _ = inputs.shape
    stepper = Stepper(network, batch, inputs.dtype, integer)
    seen: dict[str, list[tuple[Array, Array, Array]]] = {name: [] for name in network.neurons()}
    kept: dict[str, list[Array]] = {name: [] for name in (network.output, *record)}
    for t in range(steps):
        values, details = stepper.step(inputs[:, t])
        for name, column in kept.items():
            column.append(values[name])
        for name, detail in details.items():
            seen[name].append(detail)
    layers = {
        name: LayerRun(*(np.stack(column, axis=1) for column in zip(*rows, strict=True))) for name, rows in seen.items()
    }
    seen_values = {name: np.stack(column, axis=1) for name, column in kept.items()}
    output = seen_values[network.output].reshape(batch, steps, *network.shapes[network.output])
    return NetworkRun(layers, output, {name: seen_values[name] for name in record})


class Stepper:
    """A network with its states, ready for one step after the other."""

    def __init__(self, network: Network, batch: int, dtype: Any, integer: bool = False) -> None:
        self.network, self._advance = network, advance_integer if integer else advance
        self._dtype = dtype
        self._states: dict[str, State] = {n: start(network.layers[n], batch) for n in network.neurons()}  # type: ignore[arg-type]
        self._past = {
            name: np.zeros((int(layer.steps.max(initial=0)) + 1, batch, layer.steps.size), dtype=dtype)
            for name, layer in network.layers.items()
            if isinstance(layer, Delay)
        }
        delayed = {s.name for sources in network.sources.values() for s in sources if s.delayed}
        self._before = {name: np.zeros((batch, network.width(name)), dtype=dtype) for name in delayed}

    def step(self, inputs: Array) -> tuple[dict[str, Array], dict[str, tuple[Array, Array, Array]]]:
        """Inputs (B, D) -> every layer's value, and of each layer of neurons input, spikes and potential."""
        values: dict[str, Array] = {}
        details: dict[str, tuple[Array, Array, Array]] = {}
        for name, layer in self.network.layers.items():
            x = inputs if name == self.network.input else self._total(name, values)
            if isinstance(layer, Neurons):
                done = self._advance(layer, x, self._states[name])
                self._states[name] = done.state
                values[name] = done.spikes.astype(self._dtype) if layer.spiking else done.membrane
                details[name] = (x, done.spikes, done.membrane)
            else:
                values[name] = self._apply(name, layer, x)
        self._before = {name: values[name] for name in self._before}
        return values, details

    def _total(self, name: str, values: dict[str, Array]) -> Array:
        total: Array | None = None
        for source in self.network.sources[name]:
            value = self._before[source.name] if source.delayed else values[source.name]
            total = value if total is None else total + value
        assert total is not None
        return total

    def _apply(self, name: str, layer: Layer, x: Array) -> Array:
        if isinstance(layer, LINEAR):
            return layer.apply(x)
        if isinstance(layer, Delay):
            past = self._past[name]
            past[1:] = past[:-1].copy()
            past[0] = x
            return np.asarray(past[layer.steps, :, np.arange(layer.steps.size)].T)
        return x
