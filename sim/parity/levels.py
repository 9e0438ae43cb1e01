"""The two runs that parity compares with the trained network's, each split into simulation jobs of bounded memory.

neuron level     the trace's own currents and gates go in: same inputs, so the same bits must come out
readout level    the trace's features go in, Lava's Dense computes currents and gates: equal up to rounding
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.export.files.trace_file import SCALARS, WEIGHTS, Trace
from speak_neuro.sim.job import CONSTANTS
from speak_neuro.sim.runner import run_job

Level = Literal["neuron", "readout"]
LANES = 16384
"""Sequences per network at the neuron level, where a lane is a few bytes a step."""
DENSE_WEIGHTS = 2**20
"""Weights per Dense (8 MB): the lanes of a readout network share one block-diagonal matrix."""
JOB_BYTES = 2**28
"""Inputs per job; a job is read into memory as a whole."""


@dataclass(frozen=True)
class LevelRun:
    """What Lava made of a trace, (B, L) each, zeros at padding."""

    spikes: npt.NDArray[np.int8]
    membrane: npt.NDArray[np.float32]
    current: npt.NDArray[np.float32]
    """At the readout level as Lava computed it, at the neuron level the trace's own."""
    gate_logit: npt.NDArray[np.float32]
    seconds: float
    versions: dict[str, str]


def check_same_neuron(exported: ExportedNeuron, trace: Trace) -> None:
    """Refuse a graph and a trace that are not of one run: another width, other constants, several neurons."""
    if exported.neurons != 1:
        raise SpeakError(f"the graph has {exported.neurons} neurons, a trace holds one: nothing to compare")
    features = trace.features.shape[2]
    if exported.features != features:
        raise SpeakError(
            f"graph and trace do not belong together: the readout takes {exported.features} features, "
            f"the trace has {features}; export both from one run"
        )
    for name in SCALARS:
        graph, run = getattr(exported, name)[0], getattr(trace, name)
        if graph.tobytes() != run.tobytes():
            raise SpeakError(
                f"graph and trace do not belong together: {name} is {graph} in the graph, {run} in the trace; "
                "export both from one run"
            )
    weights = [meta.get(WEIGHTS) for meta in (exported.metadata, trace.meta)]
    if None not in weights and weights[0] != weights[1]:
        raise SpeakError(
            f"graph and trace do not belong together: the weights' digest is {str(weights[0])[:12]}... in the graph, "
            f"{str(weights[1])[:12]}... in the trace; export both from one run"
        )


def run_level(
    level: Level,
    exported: ExportedNeuron,
    trace: Trace,
    *,
    timeout: float | None = None,
    python: str | None = None,
    on_step: Callable[[int, int], None] = lambda step, total: None,
) -> LevelRun:
    """Simulate every sequence of `trace`; `on_step(step, total)` follows the work.

    `timeout` is in seconds for the whole level; None allows ten times what a slow machine needs.
    """
    check_same_neuron(exported, trace)
    width = trace.features.shape[2] + 1 if level == "readout" else 2
    lanes = max(1, math.isqrt(DENSE_WEIGHTS // width)) if level == "readout" else LANES
    names = ("spikes", "membrane", "current", "gate_logit") if level == "readout" else ("spikes", "membrane")
    started = time.monotonic()
    found, versions = simulate_rows(
        lambda rows: _arrays(level, exported, trace, rows),
        trace.length,
        trace.current.shape[1],
        dict.fromkeys(names, np.float32) | {"spikes": np.int8},
        width=width,
        lanes=lanes,
        timeout=timeout,
        python=python,
        on_step=on_step,
    )
    seen = {"current": trace.current, "gate_logit": trace.gate_logit, **found}
    return LevelRun(**seen, seconds=time.monotonic() - started, versions=versions)


def simulate_rows(
    arrays: Callable[[npt.NDArray[np.int64]], dict[str, npt.NDArray[Any]]],
    length: npt.NDArray[np.int64],
    positions: int,
    outputs: Mapping[str, Any],
    *,
    width: int,
    lanes: int,
    timeout: float | None = None,
    python: str | None = None,
    on_step: Callable[[int, int], None] = lambda step, total: None,
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Run B sequences as jobs of bounded memory; `arrays(rows)` is the job (see `worker.simulate`) of some of them.

    Returns the `outputs`, types by name, each (B, positions) and zero at padding, and the simulator's versions.
    `width` counts the numbers that go in at a step for each of `lanes` sequences per network.
    """
    result: dict[str, npt.NDArray[Any]] = {
        name: np.zeros((len(length), positions), dtype=dtype) for name, dtype in outputs.items()
    }
    versions: dict[str, str] = {}
    # Long sequences first, so that the sequences of one network end together; empty ones need no run.
    order = np.argsort(-length, kind="stable")
    order = order[length[order] > 0]
    jobs = _jobs(length[order], width, lanes)
    total = sum(int(length[order[start]]) for job in jobs for start in range(job.start, job.stop, lanes))
    started = time.monotonic()
    limit = timeout if timeout is not None else 120.0 + 0.05 * total
    done = 0
    for job in jobs:
        rows = order[job]
        remaining = limit - (time.monotonic() - started)
        if remaining <= 0:
            raise SpeakError(f"the simulation was not done within {round(limit, 1):g} s; --timeout allows more")
        found = run_job(
            {**arrays(rows), "length": length[rows], "lanes": np.array(lanes)},
            timeout=remaining,
            python=python,
            on_step=lambda step, done=done: on_step(done + step, total),  # type: ignore[misc]
        )
        for name, values in result.items():
            values[rows, : found.arrays[name].shape[0]] = found.arrays[name].T
        versions = found.versions
        done += sum(int(length[order[start]]) for start in range(job.start, job.stop, lanes))
        on_step(done, total)
    return result, versions


def _jobs(lengths: npt.NDArray[np.int64], width: int, lanes: int) -> list[slice]:
    """Cut sequences, longest first, into jobs of whole groups of `lanes` that fit JOB_BYTES where one group does."""
    jobs = []
    start = 0
    while start < len(lengths):
        groups = max(1, JOB_BYTES // (4 * width * int(lengths[start]) * lanes))
        jobs.append(slice(start, min(start + groups * lanes, len(lengths))))
        start += groups * lanes
    return jobs


def _arrays(level: Level, exported: ExportedNeuron, trace: Trace, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    steps = int(trace.length[rows].max())
    constants = np.array([getattr(exported, name)[0] for name in CONSTANTS], dtype=np.float32)
    if level == "readout":
        features = np.swapaxes(trace.features[rows, :steps], 0, 1)
        return {"constants": constants, "features": features, "weight": exported.weight, "bias": exported.bias}
    current, gate_logit = trace.current[rows, :steps].T, trace.gate_logit[rows, :steps].T
    return {"constants": constants, "current": current, "gate_logit": gate_logit}
