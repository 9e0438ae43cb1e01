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
from typing import Any

import numpy as np

from speak_neuro.common.command import run_command
from speak_neuro.common.files import check_writable, write_json
from speak_neuro.common.provenance import result_record
from speak_neuro.errors import SpeakError

KINDS = ("layer", "gated layer", "stock")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="network.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--lanes", type=int, default=1024, help="neurons side by side in each layer (default: 1024)")
    parser.add_argument("--steps", type=int, default=1000, help="time steps of a measurement (default: 1000)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    return run_command(parser, bench, argv)


def bench(arguments: argparse.Namespace) -> int:
    """Gate, then turns."""
    if arguments.json is not None:
        check_writable(arguments.json)
    for name in ("lanes", "steps", "repeats"):
        if getattr(arguments, name) < 1:
            raise SpeakError(f"--{name} is {getattr(arguments, name)}; allowed: 1 or more")
    rng = np.random.default_rng(0)
    current = (rng.integers(0, 9, (64, arguments.lanes)) / 8).astype(np.float32)
    spikes = {kind: measure(kind, current, 64)[1] for kind in KINDS}
    for kind in KINDS[:2]:
        if not np.array_equal(spikes[kind], spikes["stock"]) or not spikes[kind].any():
            raise SpeakError(f"{kind} and Lava's LIF spike at different steps: nothing is timed")
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.repeats):
        for kind in KINDS:
            seconds[kind].append(measure(kind, current, arguments.steps)[0])
    metrics: dict[str, Any] = {"lanes": arguments.lanes, "layers": 2, "steps": arguments.steps}
    for kind in KINDS:
        median = statistics.median(seconds[kind])
        ratio = statistics.median(a / b for a, b in zip(seconds[kind], seconds["stock"], strict=True))
        rate = 2 * arguments.lanes * arguments.steps / median
        metrics[kind] = {"seconds": seconds[kind], "steps_per_second": arguments.steps / median, "ratio": ratio}
        metrics[kind]["neuron_steps_per_second"] = rate
        print(
            f"{kind:11s} {arguments.steps / median:7.0f} steps/s, {rate / 1e6:5.2f} million neuron steps/s, "
            f"{ratio:.2f} of the stock LIF's time"
        )
    if arguments.json is not None:
        write_json(arguments.json, result_record(arguments.command_line, metrics))
    return 0


def measure(kind: str, current: Any, steps: int) -> tuple[float, Any]:
    """Seconds of `steps` steps in Lava, and the second layer's spikes."""
    from speak_neuro.sim.runner import run_job

    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    job = {"kind": np.asarray(kind), "steps": np.asarray(steps), "current": current}
    found = run_job(job, timeout=300, worker="network_worker").arrays
    return float(found["seconds"]), found["spikes"]


if __name__ == "__main__":
    sys.exit(main())
