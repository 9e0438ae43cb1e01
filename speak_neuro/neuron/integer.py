"""The gated-reset neuron and its readout in integers, under Loihi 2's rules: the definition of the fixed-point model.

Per sequence, at each position t, all in integers:

    w_t = sgn(v) * (|v_{t-1}| * decay >> 12)           decay in 1/4096, truncated toward zero; 4096 changes nothing
    u_t = w_t + (a_t << shift), saturated              24-bit state: -(2^23 - 1) to 2^23 - 1
    s_t = 1 if u_t >= threshold else 0
    m_t = 1 if g_t > gate_threshold else 0
    v_t = u_t | reset_potential | u_t - soft_reset     no spike | spike with m_t = 1 | spike with m_t = 0

The readout is a sum of parts, each a Lava `Dense` of 8-bit weights w with an exponent of its own, on graded spikes x:

    a_t = sum over parts of (w . x_t) << exponent      a negative exponent shifts the sum right, toward -infinity

Nothing here rounds, so the order of summation is free and every backend can give the same bits: float32 in the same
units (`float_parameters`; exact below 2^24 and without decay), Lava's floating-point and fixed-point models.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import BoolArray, Int64Array
from speak_neuro.neuron.reference import NeuronParameters

Integers = npt.NDArray[Any]
"""Any integer type."""

STATE_LIMIT = 2**23 - 1
"""Largest magnitude of the 24-bit state."""
MANTISSA_LIMIT = 2**17 - 1
"""Largest threshold mantissa, 17 bits; the threshold is mantissa << exponent, exponent 0 to SHIFT_LIMIT."""
SHIFT_LIMIT = 6
"""Largest alignment shift of threshold and current; the one that Lava's stock LIF always has."""
DECAY_BITS = 12
DECAY_ONE = 2**DECAY_BITS
WEIGHT_LIMIT = 2**15 - 1
"""Largest weight of a high and a low part, each of 8 bits."""
WIDE_WEIGHT_LIMIT = 2**23 - 1
"""Largest weight of three parts."""
WIDE_EXPONENT = -8
"""The least exponent, and the only one that leaves three parts within the largest, 7."""
PAYLOAD_LIMIT = 2**15 - 1
"""Largest magnitude of a graded spike."""
ACCUMULATOR_LIMIT = 2**31 - 1
"""Largest sum of a Dense, int32 in Lava; a readout that could pass it is refused."""


@dataclass(frozen=True)
class IntegerNeuron:
    """Constants of one neuron; potentials in units of the state's last bit."""

    threshold: int
    soft_reset: int
    """What a soft reset subtracts, 0 for none."""
    reset_potential: int = 0
    decay: int = DECAY_ONE
    gate_threshold: int = 0
    shift: int = 0
    """Alignment of the current: by how many bits it is shifted left before it is added."""

    def __post_init__(self) -> None:
        limits = {
            "threshold": (1, MANTISSA_LIMIT << SHIFT_LIMIT),
            "soft_reset": (0, STATE_LIMIT),
            "reset_potential": (-STATE_LIMIT, STATE_LIMIT),
            "decay": (0, DECAY_ONE),
            "gate_threshold": (-ACCUMULATOR_LIMIT, ACCUMULATOR_LIMIT),
            "shift": (0, SHIFT_LIMIT),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise ValueError(f"{name} is {value!r}; allowed: an integer")
            object.__setattr__(self, name, int(value))
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; allowed: {low} to {high}")
        if not representable_threshold(self.threshold):
            raise ValueError(
                f"threshold is {self.threshold}; allowed: a mantissa of up to {MANTISSA_LIMIT} shifted left by 0 to "
                f"{SHIFT_LIMIT} bits"
            )
        if self.threshold <= self.reset_potential:
            raise ValueError(f"threshold is {self.threshold}; allowed: above reset_potential {self.reset_potential}")
        # u >= threshold when it is subtracted, so the state stays within 24 bits without another saturation.
        if self.threshold - self.soft_reset < -STATE_LIMIT:
            raise ValueError(
                f"soft_reset is {self.soft_reset}; allowed: up to {self.threshold + STATE_LIMIT}, or a reset would "
                "leave the 24-bit state"
            )

    def float_parameters(self) -> NeuronParameters:
        """The float32 neuron in the same units: equal as long as no potential saturates and decay is 4096.

        Its reset scale is the soft reset's share of the threshold, and must multiply back to the integer.
        """
        scale = np.float32(self.soft_reset) / np.float32(self.threshold)
        if np.float32(scale) * np.float32(self.threshold) != np.float32(self.soft_reset):
            raise ValueError(
                f"soft_reset {self.soft_reset} is not a float32 share of threshold {self.threshold} without rounding"
            )
        return NeuronParameters(
            decay=self.decay / DECAY_ONE,
            threshold=float(self.threshold),
            reset_potential=float(self.reset_potential),
            reset_scale=float(scale),
        )


class IntegerRun(NamedTuple):
    """One pass over a batch of sequences: (B, L) each, the final state (B,)."""

    spikes: BoolArray
    membrane: Int64Array
    """u, the potential before reset; at a padding position the carried potential."""
    state: Int64Array
    saturated: BoolArray
    """Where the potential did not fit 24 bits."""


def representable_threshold(threshold: int) -> bool:
    """Whether a 17-bit mantissa and a shift of 0 to 6 give `threshold`."""
    return any(threshold >> k <= MANTISSA_LIMIT and threshold >> k << k == threshold for k in range(SHIFT_LIMIT + 1))


def integer_step(
    current: Int64Array, gate: Int64Array, state: Int64Array, neuron: IntegerNeuron
) -> tuple[BoolArray, Int64Array, Int64Array, BoolArray]:
    """One position: int64 arrays of one shape -> spikes, membrane, new state, saturated."""
    n = neuron
    leaked = np.sign(state) * (np.abs(state) * n.decay >> DECAY_BITS)
    wanted = leaked + (current << n.shift)
    membrane = np.clip(wanted, -STATE_LIMIT, STATE_LIMIT)
    spikes = membrane >= n.threshold
    after_spike = np.where(gate > n.gate_threshold, n.reset_potential, membrane - n.soft_reset)
    return spikes, membrane, np.where(spikes, after_spike, membrane), wanted != membrane


def integer_run(
    current: Integers,
    gate: Integers,
    neuron: IntegerNeuron,
    state: Int64Array | None = None,
    valid: BoolArray | None = None,
) -> IntegerRun:
    """All positions of (B, L) integer inputs, from `state` (B,) (default: the reset potential).

    Where `valid` (B, L) is False the neuron holds its state and never spikes.
    """
    if current.shape != gate.shape or current.ndim != 2:
        raise ValueError(f"current has shape {current.shape}, gate {gate.shape}; allowed: both (B, L)")
    for name, value in (("current", current), ("gate", gate)):
        if value.dtype.kind not in "iu":
            raise ValueError(f"{name} is {value.dtype}; allowed: integers")
        if value.size and max(int(value.max()), -int(value.min())) > ACCUMULATOR_LIMIT:
            raise ValueError(f"{name} runs from {value.min()} to {value.max()}; allowed: 32 bits")
    wide_current, wide_gate = current.astype(np.int64), gate.astype(np.int64)
    rows, positions = current.shape
    carried = np.full(rows, neuron.reset_potential, dtype=np.int64) if state is None else state.astype(np.int64)
    spikes, saturated = (np.zeros((rows, positions), dtype=np.bool_) for _ in range(2))
    membrane = np.empty((rows, positions), dtype=np.int64)
    for t in range(positions):
        fired, potential, after, full = integer_step(wide_current[:, t], wide_gate[:, t], carried, neuron)
        if valid is not None:
            real = valid[:, t]
            fired, full = fired & real, full & real
            potential, after = np.where(real, potential, carried), np.where(real, after, carried)
        spikes[:, t], membrane[:, t], saturated[:, t], carried = fired, potential, full, after
    return IntegerRun(spikes, membrane, carried, saturated)


class Part(NamedTuple):
    """One Dense of 8-bit weights."""

    weight: Int64Array
    """(D,), 0 to 255, or even and -256 to 254: with both signs the hardware's lowest bit is the sign's."""
    exponent: int


def weight_parts(weight: Integers, exponent: int = 0) -> list[Part]:
    """Integer weights (D,) as parts whose sum they are: one where 8 bits hold them, two for 16 bits, three for 24.

    weight = 2 high * 2^7 + low, with 2 high even and of both signs, low 0 to 255: every 16-bit integer, odd ones too.
    Three parts need exponents 15 apart, hence an exponent of -8 and payloads that are multiples of 256 to be exact.
    """
    weight = weight.astype(np.int64)
    limit = WIDE_WEIGHT_LIMIT if exponent == WIDE_EXPONENT else WEIGHT_LIMIT
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    if high > limit or low < -limit - 1:
        raise ValueError(f"weights run from {low} to {high}; allowed: {-limit - 1} to {limit}")
    if (low >= 0 and high <= 255) or (low >= -256 and high <= 254 and not (weight & 1).any()):
        return [Part(weight, exponent)]
    if high <= WEIGHT_LIMIT and low >= -WEIGHT_LIMIT - 1:
        return [Part(2 * (weight >> 8), exponent + 7), Part(weight & 255, exponent)]
    return [
        Part(2 * (weight >> 16), exponent + 15),
        Part(weight >> 8 & 255, exponent + 8),
        Part(weight & 255, exponent),
    ]


def integer_readout(payload: Integers, parts: list[Part]) -> Int64Array:
    """Graded spikes (..., D) through the parts of one lane -> (...), as that many Dense on one port give."""
    payload = payload.astype(np.int64)
    total = np.zeros(payload.shape[:-1], dtype=np.int64)
    for weight, exponent in parts:
        accumulated = payload @ weight
        total += accumulated << exponent if exponent > 0 else accumulated >> -exponent
    return total


def largest_sum(limit: Integers, parts: list[Part]) -> int:
    """What no partial sum of `parts` can pass for payloads of magnitude up to `limit` (D,), before and after shifts."""
    limit = limit.astype(np.int64)
    sums = [int(np.abs(weight) @ limit) for weight, _ in parts]
    shifted = [
        (total << part.exponent if part.exponent > 0 else (total >> -part.exponent) + 1)
        for total, part in zip(sums, parts, strict=True)
    ]
    return max([*sums, sum(shifted)])


def float32_fraction(value: float) -> Fraction:
    """The fraction with the smallest denominator that rounds to `value` in float32: 0.8 is 4/5."""
    number = np.float32(value)
    exact = Fraction(float(number))
    below = Fraction(float(np.nextafter(number, np.float32(-np.inf))))
    above = Fraction(float(np.nextafter(number, np.float32(np.inf))))
    # Open interval between the midpoints, made closed by a sliver.
    low, high = exact - (exact - below) * Fraction(499, 1000), exact + (above - exact) * Fraction(499, 1000)
    return _simplest(low, high)


def _simplest(low: Fraction, high: Fraction) -> Fraction:
    """The fraction of smallest denominator in [low, high]."""
    if low <= 0 <= high:
        return Fraction(0)
    if high < 0:
        return -_simplest(-high, -low)
    whole = -(-low.numerator // low.denominator)
    if whole <= high:
        return Fraction(whole)
    return whole - 1 + 1 / _simplest(1 / (high - (whole - 1)), 1 / (low - (whole - 1)))
