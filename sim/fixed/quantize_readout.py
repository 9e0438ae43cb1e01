"""Chooses the number formats of a fixed-point readout from a calibration run, or says what would fit.

Real features are sent as graded spikes x = round(feature * 2^p). One accumulator unit is the state's unit / 2^E, and
the exponent -E of the Dense shifts it away:

    a = sum over j (q_j x_j) >> E        q_j = round(gain * w_j * 2^(E - p) / unit), 16 bits in two parts of 8

p, E and the threshold's T are those with the least rounding error on the calibration run, of all whose sums fit 32
bits. Half a unit is added to the bias, so that the shift rounds to nearest. The bias is the weight of two more channels
that are always on, of payload 1 and 2^15. The gate has a scale of its own, since only its sum's sign counts.

One-hot characters are spikes of payload 1 and a table: p is 0, the bias goes into the table, and the gate's weight is
its decision, +2 or -2, which no rounding can change. Where 16 bits are too few, the spike's payload is 256 and the
table has 24 bits in three parts, at exponents -8, 0 and 7 (p and E are 8); nothing is lost to the shift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import Float64Array, Int64Array
from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.export.files.trace_file import Trace
from speak_neuro.neuron.integer import (
    ACCUMULATOR_LIMIT,
    PAYLOAD_LIMIT,
    WEIGHT_LIMIT,
    WIDE_EXPONENT,
    WIDE_WEIGHT_LIMIT,
    Part,
    largest_sum,
    weight_parts,
)
from speak_neuro.sim.fixed.quantize import HEADROOM, FixedNeuron, check_range, denominator, neuron_at, thresholds

BIAS_BITS = 15
MOST_SHIFT = 7
"""Largest E: the high part's exponent, 7 - E, must not cut what the low part needs."""
SAMPLES = 20_000
"""Positions that rounding errors are estimated on."""


@dataclass(frozen=True)
class FixedReadout:
    """Readout and neuron in integers, for graded spikes or one-hot characters."""

    fixed: FixedNeuron
    feature_bits: int
    """p: a feature's graded spike is round(feature * 2^p)."""
    payload_limit: int
    """Larger graded spikes are cut to this; the calibration run's are at most half of it."""
    shift: int
    """E: accumulator bits below the state's last one."""
    current: list[Part]
    gate: list[Part]
    """(D + 2,) weights each; the last two channels are always on, with payload 1 and 2^15."""
    gate_unit: float
    """Gate logit per accumulator unit; 0 where the gate's weights are its decision."""
    one_hot: bool
    current_bound: float
    """Largest error of a current, in the unit of the float current times gain."""
    gate_bound: float
    ranges: dict[str, float] = field(default_factory=dict)

    def payload(self, features: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Graded spikes (..., D + 2) of features (..., D), and where one had to be cut (...)."""
        wanted = np.rint(features.astype(np.float64) * 2.0**self.feature_bits)
        cut = np.clip(wanted, -self.payload_limit, self.payload_limit)
        on = np.broadcast_to([1.0, 2.0**BIAS_BITS], (*features.shape[:-1], 2))
        return np.concatenate((cut, on), axis=-1).astype(np.int32), (cut != wanted).any(axis=-1)


def is_one_hot(trace: Trace) -> bool:
    """Whether every real position has one feature of 1 and zeros."""
    features = trace.features[trace.valid]
    return bool(len(features) and np.isin(features, (0, 1)).all() and (features.sum(axis=1) == 1).all())


def fix_readout(
    exported: ExportedNeuron, trace: Trace, threshold: int | None = None, headroom: float = HEADROOM
) -> FixedReadout:
    """The formats of readout and neuron with the least rounding error on `trace`."""
    check_range(exported)
    gain, own = float(exported.gain[0]), float(exported.threshold[0])
    one_hot = is_one_hot(trace)
    weight, bias = exported.weight.astype(np.float64), exported.bias.astype(np.float64)
    if one_hot:
        weight, bias = (exported.weight + exported.bias[:, None]).astype(np.float64), np.zeros(2)
    drive, drive_bias = gain * weight[0], gain * bias[0]
    statistics = _payloads(trace, one_hot, headroom)
    best: tuple[float, int, int, int, list[Part]] | None = None
    for candidate in thresholds(exported, trace, threshold, headroom):
        for bits, payload in statistics.items():
            for shift in (bits,) if one_hot else range(MOST_SHIFT + 1):
                scale = candidate / own * 2.0 ** (shift - bits)
                half = 2.0 ** (shift - 1) if shift and not one_hot else 0.0  # makes a right shift round to nearest
                parts = _parts(drive * scale, drive_bias * scale * 2.0**bits + half, payload.limit, -shift)
                if parts is None:
                    break  # a finer accumulator only makes the numbers larger
                error = payload.error(drive, np.rint(drive * scale) / scale - drive)
                error += (own / candidate) ** 2 / 12 if half else 0.0
                if best is None or error < best[0]:
                    best = error, candidate, bits, shift, parts
                if error == 0:
                    break
    if best is None:
        raise _too_wide(exported, drive, drive_bias, statistics, threshold, one_hot)
    _, candidate, bits, shift, parts = best
    payload = statistics[bits]
    scale = candidate / own * 2.0 ** (shift - bits)
    rounding = np.rint(drive * scale) / scale - drive
    bound = float(np.abs(drive) @ payload.rounding + np.abs(rounding) @ payload.largest)
    whole = drive_bias * scale * 2.0**bits
    bound += abs(round(whole) - whole) / (scale * 2.0**bits) + (own / candidate if shift and not one_hot else 0.0)
    if one_hot:
        logit = exported.weight[1] + exported.bias[1]
        decision = np.where(logit > exported.gate_threshold[0], 2, -2)
        gate, gate_unit, gate_bound = weight_parts(np.append(decision, [0, 0])), 0.0, 0.0
    else:
        gate, gate_unit, gate_bound = _gate(weight[1], bias[1] - float(exported.gate_threshold[0]), bits, payload)
    ranges = {
        "largest_feature": float(payload.largest.max(initial=0.0)),
        "largest_weight": float(np.abs(drive).max(initial=0.0)),
        "largest_accumulator": float(largest_sum(payload.channels(), parts)),
        "largest_gate_accumulator": float(largest_sum(payload.channels(), gate)),
    }
    fixed = neuron_at(exported, trace, candidate)
    return FixedReadout(fixed, bits, payload.limit, shift, parts, gate, gate_unit, one_hot, bound, gate_bound, ranges)


@dataclass(frozen=True)
class _Payload:
    """The calibration's features at one resolution."""

    limit: int
    rounding: Float64Array
    """(D,) largest rounding error of a feature."""
    largest: Float64Array
    """(D,) largest magnitude."""
    mean_square_rounding: Float64Array
    mean_square: Float64Array

    def error(self, weight: Float64Array, weight_error: Float64Array) -> float:
        """Mean square error of a sum, roundings taken for independent."""
        return float(weight**2 @ self.mean_square_rounding + weight_error**2 @ self.mean_square)

    def channels(self) -> Int64Array:
        """Largest payload of each channel, the two that are always on included."""
        return np.array([self.limit] * len(self.largest) + [1, 2**BIAS_BITS], dtype=np.int64)


def _payloads(trace: Trace, one_hot: bool, headroom: float) -> dict[int, _Payload]:
    """Statistics of graded spikes by p, for every p that 16 bits hold."""
    features = trace.features[trace.valid]
    largest = np.abs(features).max(axis=0, initial=0.0).astype(np.float64)
    sample = features[:: max(1, len(features) // SAMPLES)].astype(np.float64)
    mean_square = (sample**2).mean(axis=0) if len(sample) else largest
    found = {}
    for bits in (0, -WIDE_EXPONENT) if one_hot else range(16):
        most = math.ceil(largest.max(initial=0.0) * 2.0**bits * (1 if one_hot else headroom))
        if most > PAYLOAD_LIMIT * (headroom if bits == 0 else 1):
            break
        residue = sample - np.rint(sample * 2.0**bits) / 2.0**bits
        exact = np.zeros_like(largest) if not residue.any() else np.full_like(largest, 2.0 ** -(bits + 1))
        limit = max(1, min(most, PAYLOAD_LIMIT))
        found[bits] = _Payload(limit, exact, largest, (residue**2).sum(axis=0) / max(1, len(sample)), mean_square)
        if not residue.any() and not one_hot:
            break
    if not found:
        raise SpeakError(
            f"a feature reaches {largest.max():.6g}; allowed: up to {PAYLOAD_LIMIT}, a graded spike has 16 bits"
        )
    return found


def _parts(weight: Float64Array, bias: float, limit: int, exponent: int) -> list[Part] | None:
    """Rounded weights with the bias on two channels of payload 1 and 2^15; None when they or their sums do not fit."""
    rounded = np.rint(weight)
    widest = WIDE_WEIGHT_LIMIT if exponent == WIDE_EXPONENT else WEIGHT_LIMIT
    if np.abs(rounded).max(initial=0.0) > widest or abs(bias) > 2.0 ** (2 * BIAS_BITS - 1):
        return None
    whole = round(bias)
    high = (whole + 2 ** (BIAS_BITS - 1)) >> BIAS_BITS
    integers = np.append(rounded, [whole - (high << BIAS_BITS), high]).astype(np.int64)
    parts = weight_parts(integers, exponent)
    channels = np.array([limit] * len(weight) + [1, 2**BIAS_BITS], dtype=np.int64)
    return parts if largest_sum(channels, parts) <= ACCUMULATOR_LIMIT else None


def _gate(weight: Float64Array, bias: float, bits: int, payload: _Payload) -> tuple[list[Part], float, float]:
    """The gate's weights at the finest power of two that fits: their sum's sign is all that counts."""
    if not (weight.any() or bias):
        return weight_parts(np.zeros(len(weight) + 2, dtype=np.int64)), 1.0, 0.0
    for fraction in range(40, -40, -1):
        scale = 2.0**fraction
        parts = _parts(weight * scale, bias * scale * 2.0**bits, payload.limit, 0)
        if parts is not None:
            error = np.abs(np.rint(weight * scale) / scale - weight)
            bound = float(np.abs(weight) @ payload.rounding + error @ payload.largest)
            rest = abs(round(bias * scale * 2.0**bits) / (scale * 2.0**bits) - bias)
            return parts, 1 / (scale * 2.0**bits), bound + rest
    raise SpeakError(f"the gate's weights reach {np.abs(weight).max():.3g}; allowed: below 1e12")


def _too_wide(
    exported: ExportedNeuron,
    drive: Float64Array,
    bias: float,
    statistics: dict[int, _Payload],
    threshold: int | None,
    one_hot: bool,
) -> SpeakError:
    """Why no format holds the readout: at the coarsest one, what is too large and by how much."""
    smallest = threshold or denominator(exported)
    widest, parts = (WIDE_WEIGHT_LIMIT, "three") if one_hot else (WEIGHT_LIMIT, "two")
    bits = 0 if one_hot else max(statistics)
    scale = smallest / float(exported.threshold[0]) * 2.0**-bits
    largest = max(float(np.abs(drive).max(initial=0.0)), abs(bias) / (statistics[bits].limit or 1))
    if largest * scale > widest:
        more = math.ceil(math.log2(largest * scale / widest))
        return SpeakError(
            f"the current's weights reach {largest:.6g}; allowed: {widest / scale:.6g}, what {parts} parts of 8 bits "
            f"hold with threshold {smallest} (this range needs {more} more exponent bit{'s' if more > 1 else ''})"
        )
    limit = statistics[0].limit
    total = float(np.abs(drive).sum() * limit * smallest / float(exported.threshold[0]))
    return SpeakError(
        f"a sum of the current's readout can reach {total:.6g} units; allowed: {ACCUMULATOR_LIMIT} (32 bits), weights "
        f"smaller by a factor of {total / ACCUMULATOR_LIMIT:.3g}"
    )
