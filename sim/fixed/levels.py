"""A trace's run in integers: formats chosen, integer reference, and the same in Lava's fixed-point models.

neuron level     the trace's currents on the grid and its gate decisions
readout level    the trace's features as graded spikes, through integer weights
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import BoolArray, Int64Array
from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.export.files.trace_file import Trace
from speak_neuro.neuron.integer import IntegerRun, Part, integer_readout, integer_run
from speak_neuro.sim.fixed.quantize import FixedNeuron, fix_current, fix_neuron, number_format
from speak_neuro.sim.fixed.quantize_readout import FixedReadout, fix_readout
from speak_neuro.sim.job import INTEGERS
from speak_neuro.sim.parity.compare import UNBOUNDED
from speak_neuro.sim.parity.levels import DENSE_WEIGHTS, LANES, Level, LevelRun, check_same_neuron, simulate_rows
from speak_neuro.sim.parity.rounding import readout_bounds

CHUNK = 2**24
"""Features that are turned into graded spikes at a time."""


@dataclass(frozen=True)
class FixedLevel:
    """A trace's run in integers, (B, L) each, and what it may differ from the float run by."""

    fixed: FixedNeuron
    readout: FixedReadout | None
    current: Int64Array
    gate: Int64Array
    payload: npt.NDArray[np.int32] | None
    """(B, L, D + 2) graded spikes, at the readout level."""
    cut: BoolArray
    """Positions with a graded spike beyond its range."""
    run: IntegerRun
    current_bound: npt.NDArray[np.float64]
    gate_bound: npt.NDArray[np.float64]

    @property
    def parts(self) -> list[tuple[int, Part]]:
        """The readout's Dense, each with its port: 0 for the current, 1 for the gate."""
        if self.readout is None:
            return []
        return [*((0, part) for part in self.readout.current), *((1, part) for part in self.readout.gate)]


def fixed_level(
    level: Level,
    exported: ExportedNeuron,
    trace: Trace,
    *,
    calibration: Trace | None = None,
    threshold: int | None = None,
) -> FixedLevel:
    """Choose the formats on `calibration` (default: the trace itself) and run the integer reference over the trace."""
    check_same_neuron(exported, trace)
    calibration = calibration or trace
    check_same_neuron(exported, calibration)
    valid = trace.valid
    cut = np.zeros(valid.shape, dtype=np.bool_)
    payload = None
    if level == "neuron":
        fixed, readout = fix_neuron(exported, calibration, threshold), None
        current = fix_current(exported, fixed, trace.current)
        gate = np.where(trace.gate_logit > exported.gate_threshold[0], 1, -1).astype(np.int64)
        step = input_unit(exported, fixed)
        exact = exported.gain[0] == 1 and np.array_equal(current * step, trace.current)
        current_bound = np.full(valid.shape, 0.0 if exact else step / 2)
        gate_bound = np.zeros(valid.shape)
    else:
        readout = fix_readout(exported, calibration, threshold)
        fixed = readout.fixed
        payload, cut, current, gate = _in_chunks(readout, trace)
        gain = abs(float(exported.gain[0])) or math.inf
        bounds = readout_bounds(exported, trace, float_run(trace, trace.spikes, trace.membrane))
        current_bound = bounds["current"] + readout.current_bound / gain
        gate_bound = bounds["gate_logit"] + readout.gate_bound
    run = integer_run(current, gate, fixed.neuron, valid=valid)
    current_bound = np.where(cut | run.saturated, UNBOUNDED, current_bound)
    return FixedLevel(fixed, readout, current, gate, payload, cut, run, current_bound, gate_bound)


def _in_chunks(readout: FixedReadout, trace: Trace) -> tuple[Any, BoolArray, Int64Array, Int64Array]:
    """Graded spikes, cuts, currents and gates of a trace, some rows at a time: features are the bulk of a trace."""
    rows, positions, width = trace.features.shape
    payload = np.zeros((rows, positions, width + 2), dtype=np.int32)
    cut = np.zeros((rows, positions), dtype=np.bool_)
    current, gate = (np.zeros((rows, positions), dtype=np.int64) for _ in range(2))
    step = max(1, CHUNK // max(1, positions * width))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        real = trace.valid[part]
        spikes, cuts = readout.payload(trace.features[part])
        payload[part] = np.where(real[..., None], spikes, 0)
        cut[part] = cuts & real
        current[part] = integer_readout(payload[part], readout.current)
        gate[part] = integer_readout(payload[part], readout.gate)
    return payload, cut, current, gate


def input_unit(exported: ExportedNeuron, fixed: FixedNeuron) -> float:
    """The float current that one integer stands for."""
    return fixed.unit / (abs(float(exported.gain[0])) or math.inf)


def float_run(trace: Trace, spikes: Any, membrane: Any, current: Any = None, gate: Any = None) -> LevelRun:
    return LevelRun(
        spikes=spikes,
        membrane=membrane,
        current=trace.current if current is None else current,
        gate_logit=trace.gate_logit if gate is None else gate,
        seconds=0.0,
        versions={},
    )


def describe(found: FixedLevel) -> dict[str, Any]:
    """All number formats of a level."""
    formats = number_format(found.fixed)
    if found.readout is None:
        return formats
    readout = found.readout
    return {
        **formats,
        "one_hot": readout.one_hot,
        "feature_bits": readout.feature_bits,
        "payload_limit": readout.payload_limit,
        "accumulator_shift": readout.shift,
        "current_parts": [part.exponent for part in readout.current],
        "gate_parts": [part.exponent for part in readout.gate],
        "current_bound": readout.current_bound,
        "gate_bound": readout.gate_bound,
        **readout.ranges,
    }


def simulate_fixed(
    found: FixedLevel,
    trace: Trace,
    *,
    timeout: float | None = None,
    python: str | None = None,
    on_step: Callable[[int, int], None] = lambda step, total: None,
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """The same in Lava's fixed-point models: `spikes`, `membrane`, `current`, `gate_logit` (B, L), and versions."""
    integers = np.array([getattr(found.fixed.neuron, name) for name in INTEGERS], dtype=np.int64)
    parts = found.parts

    def arrays(rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        steps = slice(0, int(trace.length[rows].max()))
        if found.payload is None:
            current, gate = (values[rows, steps].T.astype(np.int32) for values in (found.current, found.gate))
            return {"integers": integers, "current": current, "gate_logit": gate}
        return {
            "integers": integers,
            "payload": np.swapaxes(found.payload[rows, steps], 0, 1),
            "part_port": np.array([port for port, _ in parts]),
            "part_weight": np.array([part.weight for _, part in parts]),
            "part_exponent": np.array([part.exponent for _, part in parts]),
        }

    names = ["spikes", "membrane"]
    width, lanes = 2, LANES
    if found.payload is not None:
        names += ["current", "gate_logit"]
        width = found.payload.shape[2]
        lanes = max(1, math.isqrt(DENSE_WEIGHTS // (width * len(parts))))
    result, versions = simulate_rows(
        arrays,
        trace.length,
        trace.current.shape[1],
        dict.fromkeys(names, np.int64),
        width=width,
        lanes=lanes,
        timeout=timeout,
        python=python,
        on_step=on_step,
    )
    return {"current": found.current, "gate_logit": found.gate, **result}, versions
