"""A run's validation curve from its metrics.jsonl, thinned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speak_neuro.training.metrics_log import iterate_metrics

CURVE = ("step", "bpc", "sf", "seconds", "training_sf", "decided")
"""Columns of a validation curve: the step, its validation BPC and SF, the seconds of training up to it; of the steps
since the last entry the SF (characters / tokens of all of them) and the share at which SPEAK decided on proxies. None
where the run did not log it."""
CURVE_POINTS = 40


def read_curve(path: Path) -> dict[str, list[Any]]:
    """The evaluations of metrics.jsonl, thinned to CURVE_POINTS; a last line that a kill cut short is passed over."""
    evaluations: list[dict[str, Any]] = []
    rates: dict[int, float] = {}
    deciding: set[int] = set()
    if not path.is_file():
        return {}
    for values in iterate_metrics(path):
        if "valid_bpc" in values:
            evaluations.append(values)
        elif values.get("sf"):
            rates[values["step"]] = 1 / values["sf"]
            if "changed" in values:
                deciding.add(values["step"])
    curve: dict[str, list[Any]] = {name: [] for name in CURVE}
    before = 0
    for values in thinned(evaluations):
        step = values["step"]
        logged = [s for s in range(before + 1, step + 1) if s in rates]
        since = [rates[s] for s in logged]
        before = step
        point = (
            step,
            values["valid_bpc"],
            values.get("valid_shortening_factor"),
            values.get("seconds"),
            len(since) / sum(since) if since else None,
            len(deciding.intersection(logged)) / len(logged) if logged else None,
        )
        for name, value in zip(CURVE, point, strict=True):
            curve[name].append(round(value, 5) if isinstance(value, float) else value)
    return curve if evaluations else {}


def thinned(points: Sequence[Any], most: int = CURVE_POINTS) -> list[Any]:
    """At most `most` of the points, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(index * (len(points) - 1) / (most - 1))] for index in range(most)]
