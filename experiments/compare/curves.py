"""Validation curves over training against steps, wall time and compute, averaged over seeds, and read at a budget.

    bpc(x) between two evaluations is the straight line between them; a group's curve is the mean over its seeds at the
    first seed's evaluation points

The learning rate falls to zero at each run's last step, so a point inside a run is worse than a run of that length
would be: the curves compare systems with each other at the same x, not one system's lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from records import Record, nested_config
from settings import Setting, Variant

from speak_neuro.common.settings import from_dict
from speak_neuro.config import RunConfig
from speak_neuro.errors import SpeakError
from speak_neuro.model.flops import cumulative_flops

Axis = Literal["steps", "seconds", "flops"]
AXES: dict[Axis, str] = {"steps": "steps", "seconds": "training time (s)", "flops": "training compute (FLOPs)"}


def points(record: Record, axis: Axis) -> list[float] | None:
    """x of a run's evaluations; None where the run does not have what it takes."""
    steps = record.curve.get("step")
    if not steps:
        return None
    if axis == "steps":
        return [float(step) for step in steps]
    if axis == "seconds":
        seconds = record.curve.get("seconds") or []
        if len(seconds) == len(steps) and all(value is not None for value in seconds):
            return [float(value) for value in seconds]
        return None
    return compute(record)


def compute(record: Record) -> list[float] | None:
    """FLOPs up to each evaluation, from SF and decisions in the steps before it (old files: from validation's SF)."""
    factors = record.curve.get("training_sf") or []
    if not factors or None in factors:
        factors = record.curve.get("sf") or []
    if record.vocabulary is None or record.parameters_tokenizer is None or None in factors or not factors:
        return None
    try:
        config = from_dict(RunConfig, nested_config(record.config))
    except SpeakError:
        return None  # settings of another version
    shares = record.curve.get("decided") or []
    known = (config, record.vocabulary, record.parameters_tokenizer, record.curve["step"], factors)
    return cumulative_flops(*known, None if None in shares or not shares else shares)


def curve(variant: Variant, axis: Axis) -> dict[str, Any] | None:
    """Mean validation BPC over the seeds, and its spread (zeros for one seed), where every seed reaches."""
    runs = [(points(run, axis), run.curve.get("bpc")) for run in variant.runs]
    usable = [(x, bpc) for x, bpc in runs if x and bpc]
    if not usable:
        return None
    last = min(x[-1] for x, _ in usable)
    first = max(x[0] for x, _ in usable)
    grid = [value for value in usable[0][0] if first <= value <= last]
    if not grid:
        return None
    values = np.array([np.interp(grid, x, bpc) for x, bpc in usable])
    deviation = values.std(0, ddof=1) if len(values) > 1 else np.zeros(len(grid))
    return {"x": grid, "bpc": values.mean(0).tolist(), "deviation": deviation.tolist(), "seeds": len(values)}


def at_budget(variant: Variant, axis: Axis, budget: float) -> list[float]:
    """Validation BPC of each seed at x = `budget`, for the seeds that reach it (to a millionth)."""
    found = []
    for run in variant.runs:
        x, bpc = points(run, axis), run.curve.get("bpc")
        if x and bpc and x[0] <= budget <= x[-1] * (1 + 1e-6):
            found.append(float(np.interp(budget, x, bpc)))
    return found


def common_budget(variants: Sequence[Variant], axis: Axis) -> float | None:
    """The largest x that every run of every variant reaches; None when one has no such axis."""
    ends: list[float] = []
    for variant in variants:
        for run in variant.runs:
            x: Any = points(run, axis)
            if not x:
                return None
            ends.append(x[-1])
    return min(ends) if ends else None


def equal_budgets(setting: Setting) -> dict[Axis, tuple[float, dict[str, list[float]]]]:
    """For each axis on which all main variants can be placed: the common budget, and every system's BPC at it."""
    mains = [variant for system in setting.systems() if (variant := setting.main(system)) is not None]
    mains = [variant for variant in mains if any(run.curve for run in variant.runs)]
    found: dict[Axis, tuple[float, dict[str, list[float]]]] = {}
    for axis in AXES:
        budget = common_budget(mains, axis)
        if budget is not None:
            found[axis] = budget, {variant.system: at_budget(variant, axis, budget) for variant in mains}
    return found
