"""Fixed point against its definition and against the trained float run.

Two questions with two kinds of answer. Lava's fixed-point model must equal `neuron.integer` exactly, spikes,
potentials and saturated states; so must the float32 neuron in the same units, where it is exact. How far the integers
are from the float run is a measurement: which spikes differ, by what margin, and whether the formats' stated error
accounts for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import BoolArray
from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.export.files.trace_file import Trace
from speak_neuro.neuron.integer import DECAY_ONE, IntegerNeuron, IntegerRun
from speak_neuro.neuron.reference import gated_lif_run
from speak_neuro.sim.fixed.levels import (
    FixedLevel,
    describe,
    fixed_level,
    float_run,
    input_unit,
    simulate_fixed,
)
from speak_neuro.sim.parity.compare import CONTEXT_CHARACTERS, UNBOUNDED, Parity, listed, printable
from speak_neuro.sim.parity.levels import Level, LevelRun
from speak_neuro.sim.parity.rounding import judge


def add_fixed(parity: Parity, exported: ExportedNeuron, trace: Trace, **options: Any) -> Parity:
    """`parity` with the `fixed` section of `compare_fixed`, whose verdicts count like the others'."""
    section, runs = compare_fixed(exported, trace, **options)
    backends = dict(parity.report["backends"])
    for level, result in section.items():
        backends[f"Lava fixed point, {level} level"] = {key: result[key] for key in ("passed", "mismatches")}
    passed = all(backend["passed"] for backend in backends.values())
    return Parity({**parity.report, "backends": backends, "fixed": section, "passed": passed}, {**parity.runs, **runs})


def compare_fixed(
    exported: ExportedNeuron,
    trace: Trace,
    *,
    levels: Sequence[Level] = ("neuron", "readout"),
    calibration: Trace | None = None,
    threshold: int | None = None,
    strict: bool = False,
    timeout: float | None = None,
    python: str | None = None,
    on_step: Callable[[str, int, int], None] = lambda level, step, total: None,
) -> tuple[dict[str, Any], dict[str, LevelRun]]:
    """The report's `fixed` section, by level, and the integer runs in float units.

    A level passes when Lava and, where it is exact, float32 equal the integer reference; with `strict` also only when
    no spike differs from the float run.
    """
    section: dict[str, Any] = {}
    runs: dict[str, LevelRun] = {}
    for level in levels:
        started = time.monotonic()
        found = fixed_level(level, exported, trace, calibration=calibration, threshold=threshold)
        got, versions = simulate_fixed(
            found,
            trace,
            timeout=timeout,
            python=python,
            on_step=lambda step, total, level=level: on_step(f"fixed {level}", step, total),  # type: ignore[misc]
        )
        result = against_reference(found, trace, got)
        result["float32"] = in_float32(found, trace)
        result["float"], runs[f"fixed {level}"] = against_float(found, exported, trace)
        result["format"] = describe(found)
        result["passed"] = (
            result["passed"]
            and result["float32"]["passed"] is not False
            and not (strict and result["float"]["differing_spikes"])
        )
        result.update(seconds=round(time.monotonic() - started, 3), simulator=versions)
        section[level] = result
    return section, runs


def in_float_units(found: FixedLevel, exported: ExportedNeuron, trace: Trace) -> LevelRun:
    """The integer run as potentials, currents and gate logits of the float run's units."""
    valid = trace.valid
    membrane = np.where(valid, found.run.membrane * found.fixed.unit, 0.0)
    current = trace.current.astype(np.float64)
    if exported.gain[0]:
        current = found.current * input_unit(exported, found.fixed) * np.sign(float(exported.gain[0]))
    threshold = float(exported.gate_threshold[0])
    if found.readout is not None and found.readout.gate_unit:
        gate = found.gate * found.readout.gate_unit + threshold
    else:  # decisions: the same logit where they agree, its mirror image where they do not
        open_gate = found.gate > found.fixed.neuron.gate_threshold
        logit = trace.gate_logit.astype(np.float64)
        gate = np.where(open_gate == (logit > threshold), logit, 2 * threshold - logit)
    spikes = found.run.spikes.astype(np.int8)
    return float_run(trace, spikes, membrane, np.where(valid, current, 0.0), np.where(valid, gate, 0.0))


def against_float(found: FixedLevel, exported: ExportedNeuron, trace: Trace) -> tuple[dict[str, Any], LevelRun]:
    """How the integers compare with the trained float run."""
    run = in_float_units(found, exported, trace)
    bounds = {"current": found.current_bound, "gate_logit": found.gate_bound}
    judgement = judge(exported, trace, run, bounds, found.fixed.step_error)
    valid, expected = trace.valid, trace.spikes.astype(bool)
    differs = valid & (found.run.spikes != expected)
    positions = int(valid.sum())
    both, mine, theirs = (int(mask.sum()) for mask in (found.run.spikes & expected, found.run.spikes, expected))
    errors = np.abs(run.current - trace.current)[valid & ~found.cut]
    return {
        "positions": positions,
        "spikes": theirs,
        "differing_spikes": int(differs.sum()),
        "agreement": 1 - int(differs.sum()) / positions if positions else 1.0,
        "f1": 2 * both / (mine + theirs) if mine + theirs else 1.0,
        "identical_sequences": int((~differs.any(axis=1)).sum()),
        "gate_differences": int(_gate_differs(run, exported, trace).sum()),
        "explained": int(judgement.explained.sum()),
        "consequent": int(judgement.consequent.sum()),
        "unexplained": int(judgement.unexplained.sum()),
        "outside_bound": {name: int(mask.sum()) for name, mask in judgement.outside.items()},
        "worst_current_error": float(errors.max(initial=0.0)),
        "current_error_bound": float(found.current_bound[valid & (found.current_bound < UNBOUNDED)].max(initial=0.0)),
        "payloads_cut": int(found.cut.sum()),
        **listed(trace, run, judgement, differs),
    }, run


def _gate_differs(run: LevelRun, exported: ExportedNeuron, trace: Trace) -> BoolArray:
    threshold = exported.gate_threshold[0]
    return np.asarray(trace.valid & ((run.gate_logit > threshold) != (trace.gate_logit > threshold)))


def against_reference(found: FixedLevel, trace: Trace, got: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Lava's fixed-point run against the integer reference: every bit of every quantity."""
    valid = trace.valid
    expected = {
        "spikes": found.run.spikes,
        "membrane": found.run.membrane,
        "current": found.current,
        "gate": found.gate,
    }
    names = {"spikes": "mismatches", "membrane": "membrane_mismatches", "current": "current_mismatches"}
    wrong = {
        name: valid & (got["gate_logit" if name == "gate" else name] != values) for name, values in expected.items()
    }
    first = np.argwhere(wrong["spikes"] | wrong["membrane"])
    text = None
    if len(first):
        row, position = map(int, first[0])
        around = trace.text(row)[max(0, position - CONTEXT_CHARACTERS) : position + 1]
        text = {
            "row": row,
            "position": position,
            "context": printable(around),
            **{f"expected_{name}": int(values[row, position]) for name, values in expected.items()},
            **{f"got_{name}": int(got["gate_logit" if name == "gate" else name][row, position]) for name in expected},
        }
    return {
        "passed": not any(mask.any() for mask in wrong.values()),
        "sequences": trace.sequences,
        "positions": int(valid.sum()),
        "spikes": int((found.run.spikes & valid).sum()),
        **{names.get(name, "gate_mismatches"): int(mask.sum()) for name, mask in wrong.items()},
        "saturations": int(found.run.saturated.sum()),
        "first_divergence": text,
    }


def in_float32(found: FixedLevel, trace: Trace) -> dict[str, Any]:
    """The float32 neuron in integer units against the integer reference, or why it need not be equal."""
    neuron = found.fixed.neuron
    reason = inexact_in_float32(neuron, found.run)
    if reason:
        return {"passed": None, "reason": reason}
    p = neuron.float_parameters()
    gate = np.where(found.gate > neuron.gate_threshold, 1, -1).astype(np.float32)
    run = gated_lif_run(found.current.astype(np.float32), gate, p, valid=trace.valid)
    spikes = int((run.spikes != found.run.spikes).sum())
    membrane = int((run.membrane != found.run.membrane)[trace.valid].sum())
    return {"passed": not spikes and not membrane, "mismatches": spikes, "membrane_mismatches": membrane}


def inexact_in_float32(neuron: IntegerNeuron, run: IntegerRun) -> str:
    """Why float32 may differ from these integers; empty when it must not."""
    if neuron.decay not in (0, DECAY_ONE):
        return f"the decay {neuron.decay}/{DECAY_ONE} truncates toward zero, which float32 does not"
    if run.saturated.any():
        return f"{int(run.saturated.sum())} potentials saturate at 24 bits"
    if neuron.shift:
        return "the current is shifted"
    try:
        neuron.float_parameters()
    except ValueError as error:
        return str(error)
    return ""


def fixed_lines(result: dict[str, Any]) -> list[str]:
    """Formats and agreement of a level in a few lines, for a terminal."""
    formats, compared = result["format"], result["float"]
    lines = [
        f"  threshold {formats['threshold']:,} ({formats['threshold_mantissa']:,} << {formats['threshold_exponent']}), "
        f"soft reset {formats['soft_reset']:,}, decay {formats['decay']}/{formats['decay_one']}; range "
        f"{formats['range_in_thresholds']:.4g} thresholds, used {formats['largest_potential_in_thresholds']:.4g}"
    ]
    if "feature_bits" in formats:
        bits = formats["feature_bits"]
        inputs = "one-hot spikes" if formats["one_hot"] else f"features in steps of 1/{2**bits}" if bits else "integers"
        dense = len(formats["current_parts"]), len(formats["gate_parts"])
        lines.append(f"  {inputs}, {dense[0]} Dense for the current and {dense[1]} for the gate")
    lines.append(
        f"  rounding of the current: {compared['worst_current_error']:.3g} at worst, bound "
        f"{compared['current_error_bound']:.3g}; {result['saturations']:,} saturations, "
        f"{compared['payloads_cut']:,} features cut"
    )
    line = (
        f"  against float: {compared['agreement']:.4%} of positions agree, F1 {compared['f1']:.5f}, "
        f"{compared['differing_spikes']:,} spikes differ"
    )
    if compared["differing_spikes"]:
        line += (
            f" ({compared['explained']:,} within rounding, {compared['consequent']:,} following from them, "
            f"{compared['unexplained']:,} not explained)"
        )
    return [*lines, line]
