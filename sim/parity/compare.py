"""Compares a trained run with the numpy reference and with Lava, and says where and why they differ.

reference    the trace's currents and gates through `speak_neuro.neuron.reference`     bits
neuron       the same through the Lava process                                  bits
readout      the trace's features through Lava's Dense and the process          within float32 rounding
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import BoolArray
from speak_neuro.common.provenance import commit, package_versions
from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.export.files.trace_file import Trace
from speak_neuro.neuron.reference import gated_lif_run
from speak_neuro.sim.job import CONSTANTS
from speak_neuro.sim.parity.bits import number_bits
from speak_neuro.sim.parity.levels import Level, LevelRun, check_same_neuron, run_level
from speak_neuro.sim.parity.rounding import Judgement, judge

SCHEMA_VERSION = 1
CONTEXT_CHARACTERS = 24
LISTED_DIFFERENCES = 1000
UNBOUNDED = 1e30
"""Stands for no bound, where a value was cut; an infinity would turn into NaN on its way."""


@dataclass(frozen=True)
class Parity:
    """A comparison: `report` is what parity.json holds, `runs` what Lava made of the trace."""

    report: dict[str, Any]
    runs: dict[str, LevelRun] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """The verdict."""
        return bool(self.report["passed"])


def compare(
    exported: ExportedNeuron,
    trace: Trace,
    *,
    levels: Sequence[Level] = ("neuron", "readout"),
    strict_readout: bool = False,
    timeout: float | None = None,
    python: str | None = None,
    on_step: Callable[[str, int, int], None] = lambda level, step, total: None,
) -> Parity:
    """Run and judge. It passes when the reference and the neuron level give the trace's bits, and every difference at
    the readout level is one that float32 rounding accounts for (with `strict_readout`: when no spike differs at all).
    """
    report = header(exported, trace)
    backends = report["backends"]
    runs: dict[str, LevelRun] = {}
    for level in levels:
        run = runs[level] = run_level(
            level,
            exported,
            trace,
            timeout=timeout,
            python=python,
            on_step=lambda step, total, level=level: on_step(level, step, total),  # type: ignore[misc]
        )
        result = _exact(trace, run.spikes.astype(bool), run.membrane)
        if level == "readout":
            result.update(_rounding(trace, run, judge(exported, trace, run), strict_readout))
        result.update(seconds=round(run.seconds, 3), simulator=run.versions)
        report["levels"][level] = result
        backends[f"Lava float32, {level} level"] = {key: result[key] for key in ("passed", "mismatches")}
    report["passed"] = all(backend["passed"] for backend in backends.values())
    return Parity(report, runs)


def header(exported: ExportedNeuron, trace: Trace) -> dict[str, Any]:
    """A report before any simulation: what is compared, and the numpy reference's verdict."""
    check_same_neuron(exported, trace)
    reference = _exact(trace, *_reference_run(exported, trace))
    return {
        "schema_version": SCHEMA_VERSION,
        "passed": reference["passed"],
        "commit": commit(),
        "trace": {"sequences": trace.sequences, "positions": int(trace.length.sum()), "meta": trace.meta},
        "neuron": {name: float(getattr(exported, name)[0]) for name in CONSTANTS},
        "backends": {"numpy reference": reference},
        "levels": {},
        "versions": package_versions(),
    }


def _reference_run(exported: ExportedNeuron, trace: Trace) -> tuple[BoolArray, npt.NDArray[np.float32]]:
    # The reference knows only "above zero", so a gate threshold is applied before it.
    gate = np.where(trace.gate_logit > exported.gate_threshold[0], 1, -1).astype(np.float32)
    run = gated_lif_run(trace.current[..., None], gate[..., None], exported.parameters(), valid=trace.valid)
    return run.spikes[..., 0], np.where(trace.valid, run.membrane[..., 0], np.float32(0))


def _exact(trace: Trace, spikes: BoolArray, membrane: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Spike by spike and bit by bit against the trace; the two zeros are one number."""
    valid = trace.valid
    spike_differs = valid & (spikes != trace.spikes.astype(bool))
    bits_differ = valid & (number_bits(membrane) != number_bits(trace.membrane))
    zero_signs = valid & ~bits_differ & (np.signbit(membrane) != np.signbit(trace.membrane))
    difference = np.abs(membrane.astype(np.float64) - trace.membrane)
    either = np.argwhere(spike_differs | bits_differ)
    return {
        "passed": len(either) == 0,
        "sequences": trace.sequences,
        "positions": int(valid.sum()),
        "spikes": int(trace.spikes.sum()),
        "mismatches": int(spike_differs.sum()),
        "membrane_mismatches": int(bits_differ.sum()),
        "zero_signs": int(zero_signs.sum()),
        "max_membrane_difference": float(difference.max(initial=0.0)),
        "first_divergence": difference_at(trace, spikes, membrane, *either[0]) if len(either) else None,
    }


def _rounding(trace: Trace, run: LevelRun, judgement: Judgement, strict: bool) -> dict[str, Any]:
    """The readout level's own fields: what differs, by how much, and whether rounding accounts for it."""
    differs = judgement.explained | judgement.consequent | judgement.unexplained
    valid = trace.valid
    quantities = {}
    for name, got in (("current", run.current), ("gate_logit", run.gate_logit)):
        difference = np.where(valid, np.abs(getattr(trace, name).astype(np.float64) - got), 0.0)
        quantities[name] = {
            "max_difference": float(difference.max(initial=0.0)),
            "max_bound": float(np.where(valid, judgement.bounds[name], 0.0).max(initial=0.0)),
            "outside_bound": int(judgement.outside[name].sum()),
        }
    return {
        "passed": judgement.passed and not (strict and differs.any()),
        "explained": int(judgement.explained.sum()),
        "consequent": int(judgement.consequent.sum()),
        "unexplained": int(judgement.unexplained.sum()),
        "gate_differences": int(judgement.gates.sum()),
        "membrane_outside_bound": int(judgement.outside["membrane"].sum()),
        "quantities": quantities,
        **listed(trace, run, judgement, differs),
    }


def listed(trace: Trace, run: LevelRun, judgement: Judgement, differs: BoolArray) -> dict[str, Any]:
    """The first of the positions (B, L) that differ, each with what it is of; no bound where a value was cut."""
    kinds = {"within rounding": judgement.explained, "follows an earlier one": judgement.consequent}
    found, every = [], np.argwhere(differs)
    for row, position in every[:LISTED_DIFFERENCES].tolist():
        kind = next((name for name, mask in kinds.items() if mask[row, position]), "not explained")
        bound = float(judgement.bounds["membrane"][row, position])
        place = difference_at(trace, run.spikes.astype(bool), run.membrane, row, position)
        found.append({**place, "bound": bound if bound < UNBOUNDED else None, "kind": kind})
    return {"differences": found, "differences_listed": f"{len(found)} of {len(every)}"}


def difference_at(
    trace: Trace, spikes: BoolArray, membrane: npt.NDArray[np.float32], row: int, position: int
) -> dict[str, Any]:
    """One difference with its surroundings; `margin` is how far the trained run's potential is above the threshold."""
    text = trace.text(int(row))
    start, end = max(0, position - CONTEXT_CHARACTERS), position + CONTEXT_CHARACTERS + 1
    return {
        "row": int(row),
        "position": int(position),
        "character": printable(text[position]),
        "context": {"before": printable(text[start:position]), "after": printable(text[position + 1 : end])},
        "expected_spike": int(trace.spikes[row, position]),
        "got_spike": int(spikes[row, position]),
        "expected_membrane": float(trace.membrane[row, position]),
        "got_membrane": float(membrane[row, position]),
        "margin": float(trace.membrane[row, position].astype(np.float64) - trace.threshold),
    }


def printable(text: str) -> str:
    """`text` with lone surrogates, which no UTF-8 file can hold, replaced."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
