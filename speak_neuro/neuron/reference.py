"""The gated-reset leaky integrate-and-fire neuron in plain numpy: the oracle every backend is compared with.

Per sequence, at each position t, all in float32 and in this order (paper Eq. 1, 9-11):

    u_t = decay * v_{t-1} + gain * I_t          membrane potential before reset
    s_t = 1 if u_t >= threshold else 0          spike
    m_t = 1 if e_t > 0 else 0                   gate, the same as sigmoid(e_t) > 0.5
    v_t = u_t                                   if s_t = 0
        = reset_potential                       if s_t = 1 and m_t = 1   (hard reset)
        = u_t - reset_scale * threshold         if s_t = 1 and m_t = 0   (scaled soft reset)

Rounding is part of the definition: `reset_scale * threshold` is rounded to float32 once, each product is rounded before
the addition, nothing is fused or reassociated, and the branches are selected, never multiplied by masks.

Reset modes, each a choice of what the two gate values do (`neuron.resets`):

    gated       hard | scaled soft     SPEAK
    hard        hard | hard            the gate is read as always open
    soft        soft | soft            the gate is read as never open
    none        none | none            the potential is never reset
    hard/none   hard | none
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from speak_neuro.common.array_types import BoolArray, Float32Array
from speak_neuro.neuron.resets import RESETS, check_mode

CONSTANTS = ("decay", "gain", "threshold", "reset_potential", "reset_scale")


@dataclass(frozen=True)
class NeuronParameters:
    """Constants of the neuron, each a number or an array of shape (N,), one value per neuron."""

    decay: float | Float32Array = 1.0
    """gamma: share of the carried potential that survives one step, in [0, 1]."""
    gain: float | Float32Array = 1.0
    """delta: factor on the input current."""
    threshold: float | Float32Array = 1.0
    """u_th: potential at and above which the neuron fires."""
    reset_potential: float | Float32Array = 0.0
    """u_reset: potential after a hard reset, and before the first position; below the threshold."""
    reset_scale: float | Float32Array = 0.8
    """theta: share of the threshold that a soft reset subtracts."""
    mode: str = "gated"
    """One of `neuron.resets.RESETS`."""

    def __post_init__(self) -> None:
        check_mode(self.mode)
        for name in CONSTANTS:
            value = np.asarray(getattr(self, name), dtype=np.float32)
            if value.ndim > 1:
                raise ValueError(f"{name} has shape {value.shape}; allowed: a number or shape (N,)")
            if not np.isfinite(value).all():
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: finite numbers")
            object.__setattr__(self, name, value)
        if (self.decay < 0).any() or (self.decay > 1).any():  # type: ignore[union-attr]
            raise ValueError(f"decay is {self.decay}; allowed: 0 to 1")
        if np.any(np.less_equal(self.threshold, self.reset_potential)):
            raise ValueError(f"threshold is {self.threshold}; allowed: above reset_potential {self.reset_potential}")

    @property
    def soft_reset(self) -> Float32Array:
        """What a soft reset subtracts, rounded to float32 once; 0 in the modes without a soft reset."""
        amount = np.multiply(self.reset_scale, self.threshold, dtype=np.float32)
        return np.asarray(amount if RESETS[self.mode].subtracts else np.zeros_like(amount))


class Run(NamedTuple):
    """One pass over a batch of sequences: shapes (B, L) or (B, L, N), the final state (B,) or (B, N)."""

    spikes: BoolArray
    membrane: Float32Array
    """u, the potential before reset; at a padding position the carried potential."""
    state: Float32Array
    """v after the last position."""


def gated_lif_step(
    current: Float32Array, gate_logit: Float32Array, state: Float32Array, parameters: NeuronParameters
) -> tuple[BoolArray, Float32Array, Float32Array]:
    """One position: `current`, `gate_logit`, `state` of shape (B,) or (B, N) -> spikes, membrane, new state."""
    p = parameters
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are carried on, silently as in every backend
        leaked = np.multiply(p.decay, state, dtype=np.float32)
        driven = np.multiply(p.gain, current, dtype=np.float32)
        membrane = np.add(leaked, driven, dtype=np.float32)
        spikes = membrane >= p.threshold
        opened, closed = (
            action.after(membrane, p.reset_potential, p.soft_reset).astype(np.float32) for action in RESETS[p.mode]
        )
        after_spike = np.where(gate_logit > 0, opened, closed)
    return spikes, membrane, np.where(spikes, after_spike, membrane).astype(np.float32)


def gated_lif_run(
    current: Float32Array,
    gate_logit: Float32Array,
    parameters: NeuronParameters | None = None,
    state: Float32Array | None = None,
    valid: BoolArray | None = None,
) -> Run:
    """All positions of (B, L) or (B, L, N) inputs, from `state` (default: the reset potential).

    Where `valid` (B, L) is False the neuron holds its state and never spikes.
    """
    p = parameters or NeuronParameters()
    current = np.asarray(current, dtype=np.float32)
    gate_logit = np.asarray(gate_logit, dtype=np.float32)
    if current.shape != gate_logit.shape or current.ndim not in (2, 3):
        raise ValueError(
            f"current has shape {current.shape}, gate_logit {gate_logit.shape}; allowed: both (B, L) or both (B, L, N)"
        )
    lanes = current.shape[:1] + current.shape[2:]
    neurons = current.shape[2] if current.ndim == 3 else 1
    for name in CONSTANTS:
        size = np.size(getattr(p, name))
        if size not in (1, neurons):  # (N,) against (B,) would otherwise broadcast over the batch
            raise ValueError(f"{name} has {size} values; allowed: 1 or one for each of {neurons} neurons")
    if state is None:
        state = np.broadcast_to(np.asarray(p.reset_potential, dtype=np.float32), lanes)
    state = np.array(state, dtype=np.float32)
    if state.shape != lanes:
        raise ValueError(f"state has shape {state.shape}; allowed: {lanes}")
    if valid is not None and valid.shape != current.shape[:2]:
        raise ValueError(f"valid has shape {valid.shape}; allowed: {current.shape[:2]}")

    spikes = np.zeros(current.shape, dtype=np.bool_)
    membrane = np.empty(current.shape, dtype=np.float32)
    for t in range(current.shape[1]):
        fired, potential, carried = gated_lif_step(current[:, t], gate_logit[:, t], state, p)
        if valid is not None:
            real = valid[:, t].reshape(valid.shape[:1] + (1,) * (state.ndim - 1))
            fired = fired & real
            potential = np.where(real, potential, state)
            carried = np.where(real, carried, state)
        spikes[:, t], membrane[:, t], state = fired, potential, carried
    return Run(spikes, membrane, state)
