"""The layers of a network of neurons as plain arrays: what a graph, its reference run and its simulation share.

Linear layers, x of shape (B, inputs), all in one precision:

    Dense          y = x W^T + b
    Convolution    y[o, p] = sum_k w[o, k] x[place(p, k)] + b[o]        places outside the picture count as 0
    Scale          y = x * s                                            integers may be shifted right afterwards

Neurons, per element and step, each operation rounded:

    i = syn_decay * i + syn_gain * x            only with a current of its own (CubaLIF, CubaLI); else i = x
    u = decay * v + (gain * i + bias)           potential before reset
    s = [u >= threshold]                        NIR's u > v_threshold is u >= the next float above it
    v = u | reset_potential | u - soft_reset    no spike | spike, gate open | spike, gate closed

The gate is always open, always closed, or [e > gate_threshold] with x = [I_1..I_N | e_1..e_N]. A layer that does not
spike gives u. Integers run through the same code but for the decay, which truncates (`speak_neuro.neuron.integer`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from speak_neuro.common.array_types import Array

LANES, OPEN, CLOSED = 0, 1, -1
DECAY_BITS = 12
STATE_LIMIT = 2**23 - 1


@dataclass(frozen=True)
class Relay:
    """Passes its input on: Input, Output, Flatten."""


@dataclass(frozen=True)
class Dense:
    """y = x W^T + b."""

    weight: Array
    """(outputs, inputs)"""
    bias: Array
    """(outputs,), zeros for none"""
    shift: int = 0
    """Of integers: by how many bits the sum is shifted right, toward -infinity."""

    def apply(self, x: Array) -> Array:
        """(B, inputs) -> (B, outputs)."""
        return shifted(x @ self.weight.T + self.bias, self.shift)


@dataclass(frozen=True)
class Convolution:
    """A convolution or pooling of any dimension, as a matrix product of gathered patches."""

    index: Array
    """(groups, positions, taps): the flat input that each tap reads; the number of inputs stands for a zero."""
    weight: Array
    """(groups, channels, taps)"""
    bias: Array
    """(groups * channels,)"""
    inputs: int
    shift: int = 0

    def apply(self, x: Array) -> Array:
        """(B, inputs) -> (B, groups * channels * positions)."""
        padded = np.concatenate((x, np.zeros((len(x), 1), dtype=x.dtype)), axis=1)
        patches = padded[:, self.index]
        y = np.swapaxes(patches @ np.swapaxes(self.weight, 1, 2), 2, 3)
        groups, channels, _ = self.weight.shape
        y = y.reshape(len(x), groups * channels, -1) + self.bias[:, None]
        return shifted(y.reshape(len(x), -1), self.shift)


@dataclass(frozen=True)
class Scale:
    """y = x * s, element by element."""

    scale: Array
    shift: int = 0

    def apply(self, x: Array) -> Array:
        """(B, N) -> (B, N)."""
        return shifted(x * self.scale, self.shift)


@dataclass(frozen=True)
class Delay:
    """Each element comes out `steps` later, zeros before."""

    steps: Array
    """(N,) integers"""


@dataclass(frozen=True)
class Neurons:
    """N neurons, or leaky integrators when `spiking` is False; every array (N,)."""

    decay: Array
    gain: Array
    bias: Array
    threshold: Array
    reset_potential: Array
    soft_reset: Array
    gate_threshold: Array
    initial: Array
    """v before the first step."""
    syn_decay: Array = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    """Empty when the input is the current itself."""
    syn_gain: Array = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    gate: int = OPEN
    """LANES, OPEN or CLOSED."""
    spiking: bool = True

    @property
    def size(self) -> int:
        """N."""
        return int(self.decay.shape[0])

    @property
    def width(self) -> int:
        """Numbers that go in: 2N with gate lanes."""
        return self.size * (2 if self.gate == LANES else 1)


Layer = Relay | Dense | Convolution | Scale | Delay | Neurons
LINEAR = (Dense, Convolution, Scale)
KINDS: dict[str, type] = {kind.__name__: kind for kind in (Relay, Dense, Convolution, Scale, Delay, Neurons)}


class State(NamedTuple):
    """Of a layer of neurons, (B, N) each."""

    v: Array
    i: Array | None


class Step(NamedTuple):
    """What a layer of neurons did in one step, (B, N) each."""

    spikes: Array
    membrane: Array
    """u, before reset."""
    state: State


def start(layer: Neurons, batch: int) -> State:
    """The state before the first step."""
    v = np.repeat(layer.initial[None], batch, axis=0)
    return State(v, np.zeros_like(v) if layer.syn_decay.size else None)


def advance(layer: Neurons, x: Array, state: State) -> Step:
    """One step of float32 neurons on (B, width) inputs."""
    with np.errstate(over="ignore", invalid="ignore"):
        current, opened = split(layer, x)
        i = None if state.i is None else layer.syn_decay * state.i + layer.syn_gain * current
        drive = layer.gain * (current if i is None else i)
        if layer.bias.any():
            drive = drive + layer.bias
        u = layer.decay * state.v + drive
        return fire(layer, u, opened, i)


def advance_integer(layer: Neurons, x: Array, state: State) -> Step:
    """One step of integer neurons: 24-bit states, products with a decay in 1/4096 truncated toward zero."""
    current, opened = split(layer, x)
    i = None if state.i is None else decayed(state.i, layer.syn_decay) + layer.syn_gain * current
    drive = layer.gain * (current if i is None else i) + layer.bias
    u = np.clip(decayed(state.v, layer.decay) + drive, -STATE_LIMIT, STATE_LIMIT)
    return fire(layer, u, opened, i)


def decayed(state: Array, decay: Array) -> Array:
    """sgn(v) (|v| decay >> 12)."""
    return np.asarray(np.sign(state) * ((np.abs(state) * decay) >> DECAY_BITS))


def split(layer: Neurons, x: Array) -> tuple[Array, Array | bool]:
    """The currents, and where the gate is open."""
    if layer.gate != LANES:
        return x, layer.gate == OPEN
    current, logit = x[:, : layer.size], x[:, layer.size :]
    return current, logit > layer.gate_threshold


def fire(layer: Neurons, u: Array, opened: Array | bool, i: Array | None) -> Step:
    """Spikes of the potentials u and the state after them."""
    if not layer.spiking:
        return Step(np.zeros(u.shape, dtype=np.bool_), u, State(u, i))
    spikes = u >= layer.threshold
    after = np.where(opened, layer.reset_potential, u - layer.soft_reset)
    return Step(spikes, u, State(np.where(spikes, after, u), i))


def magnitude(layer: Layer) -> Layer:
    """The linear layer with every weight's absolute value, in float64: what rounding errors are bounded by."""
    names = [f.name for f in fields(layer) if f.name in ("weight", "bias", "scale")]
    return replace(layer, **{name: np.abs(getattr(layer, name)).astype(np.float64) for name in names})


def shifted(sums: Array, shift: int) -> Array:
    """The sums, or integers shifted right as a Dense with a negative exponent does."""
    return np.asarray(sums >> shift if shift else sums)


def to_arrays(prefix: str, layer: Layer) -> dict[str, Array]:
    """The layer as arrays that an .npz file holds, by names that begin with `prefix`."""
    found = {f"{prefix}.{f.name}": np.asarray(getattr(layer, f.name)) for f in fields(layer)}
    return {f"{prefix}.kind": np.asarray(type(layer).__name__), **found}


def from_arrays(prefix: str, arrays: Any) -> Layer:
    """The inverse of `to_arrays`."""
    kind = KINDS[str(arrays[f"{prefix}.kind"])]
    values: dict[str, Any] = {f.name: arrays[f"{prefix}.{f.name}"] for f in fields(kind)}
    for name in ("gate", "inputs", "shift"):
        if name in values:
            values[name] = int(values[name])
    if "spiking" in values:
        values["spiking"] = bool(values["spiking"])
    layer: Layer = kind(**values)
    return layer
