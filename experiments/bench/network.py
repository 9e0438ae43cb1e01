"""How fast a chain of two layers of neurons runs in Lava, as a ratio to two of Lava's stock LIF in the same
surroundings.

    python experiments/bench/network.py --json experiments/results/bench/network.json

Source, two layers, a recorder: once with the layers of `speak_neuro.sim.verify`, once with Lava's LIF. Both must
spike at the same steps, or nothing is timed. The two take turns and the median of the ratios counts, so that another
load on the machine falls on both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.sim.runner import run_job

KINDS = ("layer", "gated layer", "stock")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="network.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--lanes", type=int, default=1024, help="neurons side by side in each layer (default: 1024)")
    parser.add_argument("--steps", type=int, default=1000, help="time steps of a measurement (default: 1000)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    return run_command(parser, bench, argv)


def bench(arguments: argparse.Namespace) -> int:
    """Gate, then turns."""
    at_least(arguments, 1, "lanes", "steps", "repeats")
    rng = np.random.default_rng(0)
    current = (rng.integers(0, 9, (64, arguments.lanes)) / 8).astype(np.float32)
    gate = {kind: measure(kind, current, 64) for kind in KINDS}
    for kind in KINDS[:2]:
        if not np.array_equal(gate[kind].spikes, gate["stock"].spikes) or not gate[kind].spikes.any():
            raise SpeakError(f"{kind} and Lava's LIF spike at different steps: nothing is timed")
    runs: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for turn in range(arguments.repeats):
        for kind in KINDS[turn % len(KINDS) :] + KINDS[: turn % len(KINDS)]:  # none always follows the same other
            short, long = measure(kind, current, 64), measure(kind, current, arguments.steps + 64)
            runs[kind].append((long.seconds - short.seconds, long.processor - short.processor))
    metrics: dict[str, Any] = {"lanes": arguments.lanes, "layers": 2, "steps": arguments.steps}
    for kind in KINDS:
        metrics[kind] = summary(runs[kind], runs["stock"], arguments)
        metrics[kind]["arithmetic_microseconds"] = gate[kind].arithmetic * 1e6
        row = metrics[kind]
        print(
            f"{kind:11s} {row['steps_per_second']:7.0f} steps/s, {row['neuron_steps_per_second'] / 1e6:5.2f} million "
            f"neuron steps/s, {row['ratio']:.2f} of the stock LIF's time, {row['processor_ratio']:.2f} of its "
            f"processor time; its first layer's own arithmetic takes {row['arithmetic_microseconds']:.1f} us a step"
        )
    write_result(arguments, metrics)
    return 0


class Measured(NamedTuple):
    """One run in Lava."""

    seconds: float
    processor: float
    """Seconds of all its processes."""
    spikes: Any
    """The last layer's, as many steps as the current has."""
    arithmetic: float
    """Processor seconds of one step of the first of several layers without Lava around it."""


def measure(
    kind: str, current: Any, steps: int, layers: int = 2, arithmetic: str = "float", connected: bool = True
) -> Measured:
    """`steps` steps in Lava, by network_worker.py."""
    here = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    job = {"kind": kind, "steps": steps, "layers": layers, "arithmetic": arithmetic, "connected": int(connected)}
    arrays = {**{name: np.asarray(value) for name, value in job.items()}, "current": current}
    found = run_job(arrays, timeout=600, worker="network_worker").arrays
    return Measured(
        float(found["seconds"]), float(found["processor"]), found["spikes"], float(found.get("arithmetic", 0))
    )


def summary(
    runs: list[tuple[float, float]], stock: list[tuple[float, float]], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Medians of one kind, and of its ratios to the stock run of the same turn."""
    rate = arguments.steps / statistics.median(seconds for seconds, _ in runs)
    ratios, processor_ratios = (
        statistics.median(own[part] / other[part] for own, other in zip(runs, stock, strict=True)) for part in (0, 1)
    )
    return {
        "seconds": [seconds for seconds, _ in runs],
        "processor_seconds": [processor for _, processor in runs],
        "steps_per_second": rate,
        "neuron_steps_per_second": 2 * arguments.lanes * rate,
        "ratio": ratios,
        "processor_ratio": processor_ratios,
    }


if __name__ == "__main__":
    sys.exit(main())
