"""How far two runs of the same settings are apart, step by step: for runs on other machines or numbers of processes.

python experiments/compare/diff_runs.py runs/one runs/two

For each logged quantity the largest difference and the first step at which it exceeds --tolerance; then the largest
difference of any weight and the share of proxy bits that differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError

TIMES = ("seconds", "characters_per_second")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="diff_runs.py", description="Compare the logs and the weights of two runs.")
    parser.add_argument("one", type=Path, help="run folder")
    parser.add_argument("other", type=Path, help="run folder")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="difference, relative above 1, that counts (default: 1e-4)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    return run_command(parser, compare, argv)


def compare(arguments: argparse.Namespace) -> int:
    """Print the differences."""
    from speak_neuro.systems.run_folder import METRICS, read_run
    from speak_neuro.training.metrics_log import read_metrics

    folders = arguments.one, arguments.other
    for folder in folders:
        read_run(folder)
        if not (folder / METRICS).is_file():
            raise SpeakError(f"{folder}: holds no {METRICS}; the run has made no step yet")
    logs = [read_metrics(folder) for folder in folders]
    differences = log_differences(*logs, arguments.tolerance)
    state = state_differences(*folders)
    for name, found in differences.items():
        first = "never" if found["first_step"] is None else f"from step {found['first_step']}"
        print(f"{name:32} at most {found['largest']:.3g}, above {arguments.tolerance:g} {first}")
    print(f"{'weights':32} at most {state['weights']:.3g}\n{'proxy bits':32} {state['proxy_share']:.3%} differ")
    metrics = {"log": differences, "state": state, "tolerance": arguments.tolerance}
    write_result(arguments, metrics)
    return 0


def log_differences(
    one: list[dict[str, Any]], other: list[dict[str, Any]], tolerance: float
) -> dict[str, dict[str, Any]]:
    """Of each quantity that both logs hold: the largest difference, and the first step at which it is too large."""
    logs = [{(record["step"], name): value for record in log for name, value in record.items()} for log in (one, other)]
    found: dict[str, dict[str, Any]] = {}
    for step, name in sorted(logs[0].keys() & logs[1].keys()):
        if name == "step" or name in TIMES:
            continue
        mine, theirs = logs[0][step, name], logs[1][step, name]
        difference = abs(mine - theirs)
        entry = found.setdefault(name, {"largest": 0.0, "first_step": None, "steps": 0})
        entry["largest"] = max(entry["largest"], difference)
        entry["steps"] += 1
        if entry["first_step"] is None and difference > tolerance * max(1.0, abs(mine)):
            entry["first_step"] = step
    return found


def state_differences(one: Path, other: Path) -> dict[str, float]:
    """The largest difference of a weight, and the share of proxy bits that differ."""
    import numpy as np

    from speak_neuro.common.tensors import read_tensors
    from speak_neuro.systems.run_folder import STATE

    (first, _), (second, _) = (read_tensors(folder / STATE) for folder in (one, other))
    weights = 0.0
    for name, value in first.items():
        if name.startswith("system."):
            if name not in second or second[name].shape != value.shape:
                raise SpeakError(f"{other}: has no {name} like that of {one}; compare runs of the same settings")
            weights = max(weights, float((value.double() - second[name].double()).abs().max()))
    share = 0.0
    if "proxy" in first and "proxy" in second and first["proxy"].shape == second["proxy"].shape:
        changed = np.unpackbits((first["proxy"] ^ second["proxy"]).numpy()[0])
        share = float(changed.mean())
    return {"weights": weights, "proxy_share": share}


if __name__ == "__main__":
    sys.exit(main())
