"""Contenders timed in turns, so that another load on the machine falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Spent(NamedTuple):
    """Seconds of one call, medians over the measurements."""

    cpu: float
    """Of this process; on a shared machine it repeats better than the clock."""
    wall: float


def in_turns(
    runs: Mapping[str, Callable[[], Any]],
    repeats: int,
    at_least: float = 0.0,
    finish: Callable[[], None] = lambda: None,
    seen: Callable[[str, Any], None] = lambda name, result: None,
) -> dict[str, Spent]:
    """Median time of a call of each contender, after one call of each that warms up.

    A call shorter than `at_least` seconds is repeated within one measurement. `finish` waits for a device. `seen` gets
    what each measured call returns.
    """
    calls, times = dict.fromkeys(runs, 1), {name: [] for name in runs}  # type: ignore[var-annotated]
    for name, run in runs.items():
        run()
        if at_least:
            began = time.perf_counter()
            run()
            finish()
            calls[name] = max(1, int(at_least / (time.perf_counter() - began)))
    for _ in range(repeats):
        for name, run in runs.items():
            finish()
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(calls[name]):
                result = run()
            finish()
            times[name].append(((time.process_time() - cpu) / calls[name], (time.perf_counter() - wall) / calls[name]))
            seen(name, result)
    return {name: Spent(*map(statistics.median, zip(*found, strict=True))) for name, found in times.items()}
