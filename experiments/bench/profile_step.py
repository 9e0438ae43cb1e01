"""Where a SPEAK training step spends its time, part by part.

    python experiments/bench/profile_step.py --size smoke --json profile.json

Steps of `training.fit.train_step` under torch.profiler, in the steady state of training (`systems`). Parts are
the step's own `speak.*` ranges, and "other" what lies between them; operators are listed by their own time. The
profiler slows small operations down, so shares count here, not milliseconds: `bench_step.py` measures those.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from step_setup import SIZES, configuration, prepare, speak_trainer

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result

PARTS = ("data", "pre", "tokenizer", "decode", "losses", "backward", "acceptance", "optimiser", "metrics")
OPERATORS = 12


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="profile_step", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="smoke", help="size (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="profiled steps (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--dropout", type=float, help="dropout (default: the size's own)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return run_command(parser, profile_step, argv)


def profile_step(arguments: argparse.Namespace) -> int:
    card = prepare(arguments, "steps")
    metrics = measure(arguments)
    print(f"{arguments.size}, {card}, {arguments.threads} thread(s)")
    print(f"{'part':14}{'ms / step':>10}{'share':>8}")
    for name, part in metrics["parts"].items():
        print(f"{name:14}{part['milliseconds']:10.2f}{part['share']:8.1%}")
    print(f"{'operator':42}{'share':>8}{'calls / step':>14}")
    for name, part in metrics["operators"].items():
        print(f"{name[:40]:42}{part['share']:8.1%}{part['calls']:14.1f}")
    write_result(arguments, metrics, card)
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of every part, and the operators that take most."""
    from torch.profiler import ProfilerActivity, profile, record_function

    from speak_neuro.training.fit import train_step

    trainer = speak_trainer(configuration(arguments.size, arguments.dropout), arguments.device)
    for _ in range(3):
        train_step(trainer)
    on_device = arguments.device != "cpu"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    with profile(activities=activities) as profiler:
        for _ in range(arguments.steps):
            with record_function("step"):
                train_step(trainer)
    events = {event.key: event for event in profiler.key_averages()}

    def milliseconds(event: Any, own: bool) -> float:
        clock = ("self_" if own else "") + ("device_time_total" if on_device else "cpu_time_total")
        return float(getattr(event, clock)) / 1e3 / arguments.steps

    total = milliseconds(events["step"], own=False)
    parts = {name: milliseconds(events[f"speak.{name}"], own=False) for name in PARTS}
    parts["other"] = total - sum(parts.values())
    named = {"step", *(f"speak.{name}" for name in PARTS)}
    operators = sorted(
        (
            (event.key, milliseconds(event, own=True), event.count)
            for event in events.values()
            if event.key not in named
        ),
        key=lambda item: -item[1],
    )
    return {
        "size": arguments.size,
        "threads": arguments.threads,
        "steps": arguments.steps,
        "milliseconds": total,
        "parts": {name: {"milliseconds": value, "share": value / total} for name, value in parts.items()},
        "operators": {
            name: {"milliseconds": value, "share": value / total, "calls": count / arguments.steps}
            for name, value, count in operators[:OPERATORS]
        },
    }


if __name__ == "__main__":
    sys.exit(main())
