"""How far two float32 runs of one network can be apart when only the order of their sums differs.

With e_x a bound on the error of x, n the terms of a sum and r = 2^-24:

    linear layer    e_y = |W| e_x + 2 (n + 2) r (|W| |x| + |b|)
    sum             e   = sum of e_k + 2 k r sum |x_k|
    neurons         e_i = syn_decay e_i + |syn_gain| e_x + rounding,   e_u = decay e_v + |gain| e_i + rounding
                    e_v = 0 after a hard reset, else e_u;  where the gate's logit is within its own error, the larger
                    reset too

The spikes that come in are taken to be the same, so the bound holds up to the first spike that differs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from speak_neuro.common.array_types import Array
from speak_neuro.export.graphs.layers import (
    LANES,
    LINEAR,
    OPEN,
    Convolution,
    Delay,
    Dense,
    Layer,
    Neurons,
    advance,
    magnitude,
)
from speak_neuro.export.graphs.network import Network
from speak_neuro.export.graphs.network_run import Stepper

ROUND = 2.0**-24


def potential_bounds(network: Network, inputs: Array) -> dict[str, Array]:
    """For (B, T, D) inputs, of each layer of neurons the bound on u, (B, T, N) float32."""
    return _Bounds(network, inputs).run()


class _Bounds(Stepper):
    """The run of a network with an error beside every value."""

    def __init__(self, network: Network, inputs: Array) -> None:
        super().__init__(network, inputs.shape[0], np.float32)
        self._inputs = inputs
        self._sizes: dict[str, Layer] = {
            name: magnitude(layer) for name, layer in network.layers.items() if isinstance(layer, LINEAR)
        }
        batch = inputs.shape[0]
        self._errors_before = {name: np.zeros_like(value, dtype=np.float64) for name, value in self._before.items()}
        self._state_errors = {
            name: [np.zeros((batch, network.layers[name].size)) for _ in "vi"]  # type: ignore[union-attr]
            for name in network.neurons()
        }
        self._delayed_errors = {name: np.zeros_like(past, dtype=np.float64) for name, past in self._past.items()}
        self._errors: dict[str, Array] = {}
        self._found: dict[str, list[Array]] = {name: [] for name in network.neurons()}
        self._values: dict[str, Array] = {}

    def run(self) -> dict[str, Array]:
        for t in range(self._inputs.shape[1]):
            self._one(self._inputs[:, t])
        return {name: np.stack(rows, axis=1).astype(np.float32) for name, rows in self._found.items()}

    def _one(self, inputs: Array) -> None:
        values: dict[str, Array] = {}
        errors: dict[str, Array] = {}
        for name, layer in self.network.layers.items():
            if name == self.network.input:
                values[name], errors[name] = inputs, np.zeros(inputs.shape)
                continue
            x, e = self._gather(name, values, errors)
            if isinstance(layer, Neurons):
                values[name], errors[name] = self._neurons(name, layer, x, e)
            elif isinstance(layer, LINEAR):
                values[name], errors[name] = layer.apply(x), self._linear(name, layer, x, e)
            elif isinstance(layer, Delay):
                values[name] = self._apply(name, layer, x)
                past = self._delayed_errors[name]
                past[1:] = past[:-1].copy()
                past[0] = e
                errors[name] = past[layer.steps, :, np.arange(layer.steps.size)].T
            else:
                values[name], errors[name] = x, e
        self._before = {name: values[name] for name in self._before}
        self._errors_before = {name: errors[name] for name in self._errors_before}

    def _gather(self, name: str, values: dict[str, Array], errors: dict[str, Array]) -> tuple[Array, Array]:
        total: Array | None = None
        error: Array | float = 0.0
        size: Array | float = 0.0
        for source in self.network.sources[name]:
            value = self._before[source.name] if source.delayed else values[source.name]
            error = error + (self._errors_before[source.name] if source.delayed else errors[source.name])
            size = size + np.abs(value, dtype=np.float64)
            total = value if total is None else total + value
        assert total is not None
        count = len(self.network.sources[name])
        return total, np.asarray(error + (2 * count * ROUND * size if count > 1 else 0.0))

    def _linear(self, name: str, layer: Layer, x: Array, e: Array) -> Array:
        sizes: Any = self._sizes[name]
        terms = 1
        if isinstance(layer, Dense):
            terms = layer.weight.shape[1]
        elif isinstance(layer, Convolution):
            terms = layer.weight.shape[2]
        spread: Array = sizes.apply(np.abs(x, dtype=np.float64))
        carried: Array = sizes.apply(e)
        if isinstance(layer, (Dense, Convolution)):
            carried = carried - sizes.apply(np.zeros_like(e))
        return carried + 2 * (terms + 2) * ROUND * spread

    def _neurons(self, name: str, layer: Neurons, x: Array, e: Array) -> tuple[Array, Array]:
        before = self._states[name]
        step = advance(layer, x, before)
        self._states[name] = step.state
        error_v, error_i = self._state_errors[name]
        e_current = e[:, : layer.size]
        drive = np.abs(x[:, : layer.size], dtype=np.float64)
        if before.i is not None and step.state.i is not None:
            size = np.abs(layer.syn_decay * before.i) + np.abs(layer.syn_gain * x[:, : layer.size])
            error_i = layer.syn_decay * error_i + np.abs(layer.syn_gain) * e_current + 4 * ROUND * size
            e_current, drive = error_i, np.abs(step.state.i, dtype=np.float64)
        size = np.abs(layer.decay * before.v) + np.abs(layer.gain) * drive + np.abs(layer.bias)
        error_u = layer.decay * error_v + np.abs(layer.gain) * e_current + 6 * ROUND * size
        hard: Array | bool = layer.gate == OPEN
        unsure: Array | bool = False
        if layer.gate == LANES:
            logit = x[:, layer.size :]
            hard = logit > layer.gate_threshold
            unsure = np.abs(logit - layer.gate_threshold) <= e[:, layer.size :]
        jump = np.abs(layer.reset_potential - (step.membrane - layer.soft_reset))
        after = np.where(hard, 0.0, error_u + 2 * ROUND * np.abs(step.membrane))
        after = np.where(unsure, error_u + jump, after)
        self._state_errors[name] = [np.where(step.spikes, after, error_u), error_i]
        self._found[name].append(error_u)
        if layer.spiking:
            return step.spikes.astype(np.float32), np.zeros(error_u.shape)
        return step.membrane, error_u
