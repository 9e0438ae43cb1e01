"""Chooses the number format of the fixed-point neuron from a calibration run, or says what would fit.

One unit is the state's last bit: potential = integer * unit, unit = threshold / T. T is a 17-bit mantissa shifted by up
to 6 bits and a multiple of the denominators of reset_scale and of reset_potential / threshold, so that both resets are
exact integers (theta 0.8 = 4/5: T = 5 m). T is as large as leaves `headroom` times the largest potential of the
calibration run within 24 bits. The gain is folded into the current, a = round(gain * I / unit), half a unit off at the
most.

Where the threshold is an integer and all currents are (a network trained on the grid), T is the threshold and nothing
is rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import Int64Array
from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.export.files.trace_file import Trace
from speak_neuro.neuron.integer import (
    ACCUMULATOR_LIMIT,
    DECAY_ONE,
    MANTISSA_LIMIT,
    SHIFT_LIMIT,
    STATE_LIMIT,
    IntegerNeuron,
    float32_fraction,
    representable_threshold,
)

HEADROOM = 2.0
"""How far beyond the calibration's largest value a format reaches."""


@dataclass(frozen=True)
class FixedNeuron:
    """The neuron in integers; potential = integer * unit."""

    neuron: IntegerNeuron
    unit: float
    largest_potential: float
    """In thresholds, on the calibration run."""
    step_error: float
    """Bound on what one step adds to the potential's error beside the current's: decay and resets, in potential."""

    @property
    def range(self) -> float:
        """Largest potential that 24 bits hold, in thresholds."""
        return STATE_LIMIT / self.neuron.threshold


def check_range(exported: ExportedNeuron) -> None:
    """Refuse constants that no fixed-point format holds."""
    if exported.neurons != 1:
        raise SpeakError(f"the graph has {exported.neurons} neurons; allowed in fixed point: one")
    decay, threshold = float(exported.decay[0]), float(exported.threshold[0])
    if not 0 <= decay <= 1:
        raise SpeakError(f"decay is {decay}; allowed: 0 to 1")
    if not threshold > 0:
        raise SpeakError(f"threshold is {threshold}; allowed in fixed point: above 0, its mantissa has no sign")
    if exported.reset_scale[0] < 0:
        raise SpeakError(f"reset_scale is {exported.reset_scale[0]}; allowed in fixed point: at least 0")


def denominator(exported: ExportedNeuron) -> int:
    """What a threshold must be a multiple of, so that soft and hard reset are integers."""
    threshold = float(exported.threshold[0])
    fractions = (
        float32_fraction(float(exported.reset_scale[0])),
        float32_fraction(float(exported.reset_potential[0]) / threshold),
    )
    return math.lcm(*(fraction.denominator for fraction in fractions))


def largest_threshold(limit: int, multiple_of: int) -> int:
    """The largest T up to `limit` that a mantissa and a shift hold and `multiple_of` divides; 0 when there is none."""
    best = 0
    for shift in range(SHIFT_LIMIT + 1):
        step = multiple_of // math.gcd(multiple_of, 2**shift)
        mantissa = min(limit >> shift, MANTISSA_LIMIT)
        best = max(best, mantissa // step * step << shift)
    return best


def fix_neuron(
    exported: ExportedNeuron, trace: Trace, threshold: int | None = None, headroom: float = HEADROOM
) -> FixedNeuron:
    """The neuron's format for the potentials and currents of `trace`, or for a given integer `threshold`."""
    check_range(exported)
    return neuron_at(exported, trace, thresholds(exported, trace, threshold, headroom)[0])


def _largest_potential(exported: ExportedNeuron, trace: Trace) -> float:
    """In thresholds."""
    driven = np.abs(trace.current, dtype=np.float64).max(initial=0.0) * abs(float(exported.gain[0]))
    potentials = np.abs(trace.membrane, dtype=np.float64).max(initial=0.0)
    least = abs(float(exported.reset_potential[0]))
    return max(1.0, max(driven, potentials, least) / float(exported.threshold[0]))


def thresholds(exported: ExportedNeuron, trace: Trace, threshold: int | None, headroom: float) -> list[int]:
    """Thresholds to choose from, the preferred one first, or a refusal that says what would fit."""
    multiple, largest = denominator(exported), _largest_potential(exported, trace)
    scale = float32_fraction(float(exported.reset_scale[0]))
    limit = int(STATE_LIMIT // (headroom * largest))
    best = largest_threshold(limit, multiple)
    if best == 0:
        if largest_threshold(STATE_LIMIT, multiple):
            raise SpeakError(
                f"potentials reach {largest:.6g} thresholds; allowed in 24 bits with a threshold that is a multiple of "
                f"{multiple}: {STATE_LIMIT / headroom / multiple:.6g} thresholds (headroom {headroom:g} included)"
            )
        raise SpeakError(
            f"reset_scale {exported.reset_scale[0]} is {scale}: a threshold that makes the soft reset an integer is a "
            f"multiple of {multiple}; allowed: multiples up to {min(limit, MANTISSA_LIMIT << SHIFT_LIMIT)} "
            f"(nearest reset_scale that fits: {float(scale.limit_denominator(max(1, min(limit, 1000)))):.6g})"
        )
    if threshold is not None:
        if threshold < 1 or not representable_threshold(threshold) or threshold % multiple:
            near = largest_threshold(max(threshold, multiple), multiple)
            raise SpeakError(
                f"threshold {threshold} is not representable; allowed: multiples of {multiple} with a mantissa of 17 "
                f"bits shifted by 0 to {SHIFT_LIMIT}, {near} for instance"
            )
        if threshold > STATE_LIMIT // largest:
            raise SpeakError(
                f"threshold {threshold} leaves a range of {STATE_LIMIT / threshold:.4g} thresholds in 24 bits, and the "
                f"calibration run reaches {largest:.4g}; allowed: up to {best}"
            )
        return [threshold]
    found = []
    own = float(exported.threshold[0])
    if own == int(own) and own <= STATE_LIMIT // largest and representable_threshold(int(own)) and own % multiple == 0:
        if _integers(trace.current, exported.gain[0]):
            return [int(own)]  # already on the grid: nothing is to be rounded
        found.append(int(own))
    while best and best not in found:
        found.append(best)
        best = largest_threshold(best // 2, multiple)
    return found if found[0] != own else [*found[1:], found[0]]


def _integers(*arrays: Any) -> bool:
    return all(bool((np.rint(array) == array).all()) for array in arrays)


def neuron_at(exported: ExportedNeuron, trace: Trace, threshold: int) -> FixedNeuron:
    """The neuron on the grid of this threshold."""
    own, scale = float(exported.threshold[0]), float32_fraction(float(exported.reset_scale[0]))
    unit = own / threshold
    soft, reset = int(scale * threshold), round(float(exported.reset_potential[0]) / own * threshold)
    decay = round(float(exported.decay[0]) * DECAY_ONE)
    neuron = IntegerNeuron(threshold=threshold, soft_reset=soft, reset_potential=reset, decay=decay)
    largest = _largest_potential(exported, trace)
    error = abs(decay / DECAY_ONE - float(exported.decay[0])) * largest * own
    error += unit if decay not in (0, DECAY_ONE) else 0.0
    error += abs(soft * unit - float(exported.parameters().soft_reset[0]))
    error += abs(reset * unit - float(exported.reset_potential[0]))
    return FixedNeuron(neuron, unit, largest, error)


def fix_current(exported: ExportedNeuron, fixed: FixedNeuron, current: npt.NDArray[np.float32]) -> Int64Array:
    """Float currents to the grid: round(gain * current / unit), ties to even."""
    scale = float(exported.gain[0]) / float(exported.threshold[0]) * fixed.neuron.threshold
    wanted = np.rint(current.astype(np.float64) * scale)
    if wanted.size and np.abs(wanted).max() > ACCUMULATOR_LIMIT:
        raise SpeakError(
            f"a current reaches {np.abs(current).max():.6g}, {np.abs(wanted).max():.6g} units; allowed: 32 bits, "
            f"currents up to {abs(ACCUMULATOR_LIMIT / scale):.6g}"
        )
    return np.asarray(wanted.astype(np.int64))


def number_format(fixed: FixedNeuron) -> dict[str, Any]:
    """The neuron's format for a report."""
    neuron = fixed.neuron
    shift = next(k for k in range(SHIFT_LIMIT + 1) if neuron.threshold >> k <= MANTISSA_LIMIT)
    return {
        "state_bits": 24,
        "unit": fixed.unit,
        "threshold": neuron.threshold,
        "threshold_mantissa": neuron.threshold >> shift,
        "threshold_exponent": shift,
        "soft_reset": neuron.soft_reset,
        "reset_potential": neuron.reset_potential,
        "decay": neuron.decay,
        "decay_one": DECAY_ONE,
        "range_in_thresholds": fixed.range,
        "largest_potential_in_thresholds": fixed.largest_potential,
        "step_error": fixed.step_error,
    }
