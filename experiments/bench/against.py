"""What this tree takes against another one, in one run: processor time of the same work, in turns.

    git worktree add /tmp/before COMMIT
    python experiments/bench/against.py /tmp/before --json against.json

Each tree has a process of its own, and `contenders()` of a file: here `contenders.py` beside this script, there the
same path unless --contenders names another. The two take turns, call by call, on one thread. What counts is the median
of the ratios of neighbours, so that other work on the machine falls on both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError

ROOT = Path(__file__).resolve().parents[2]
PLACE = "experiments/bench/contenders.py"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="against.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("other", type=Path, help="a checkout to compare with")
    parser.add_argument("--contenders", type=Path, metavar="FILE", help=f"its contenders (default: its {PLACE})")
    parser.add_argument("--rounds", type=int, default=4, help="pairs of processes (default: 4)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each in a round (default: 5)")
    parser.add_argument("--seconds", type=float, default=0.3, help="least time of a measurement (default: 0.3)")
    parser.add_argument("--only", default="", metavar="TEXT", help="contenders whose names begin so")
    parser.add_argument("--name", default="", help="what the other checkout is called in the results")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return run_command(parser, compare, argv)


def compare(arguments: argparse.Namespace) -> int:
    at_least(arguments, 1, "rounds", "repeats")
    theirs = arguments.contenders or arguments.other / PLACE
    if not theirs.is_file():
        raise SpeakError(f"{theirs}: no such file; write the other tree's contenders and name them with --contenders")
    found: dict[str, list[dict[str, float]]] = {}
    for turn in range(arguments.rounds):  # a process's memory lies as it happens to: each round has new ones
        trees = {"other": Tree(arguments.other, theirs), "here": Tree(ROOT, ROOT / PLACE)}
        for name in trees["here"].names:
            if name in trees["other"].names and name.startswith(arguments.only):
                for repeat in range(arguments.repeats):
                    order = sorted(trees, reverse=bool((turn + repeat) % 2))
                    found.setdefault(name, []).append(
                        {side: trees[side].seconds(name, arguments.seconds) for side in order}
                    )
        for tree in trees.values():
            tree.end()
    other = arguments.name or arguments.other.name
    metrics: dict[str, Any] = {"other": other, "rounds": arguments.rounds, "repeats": arguments.repeats}
    for name, pairs in found.items():
        ratio = statistics.median(pair["here"] / pair["other"] for pair in pairs)
        medians = {side: statistics.median(pair[side] for pair in pairs) * 1e3 for side in ("other", "here")}
        metrics[name] = {"milliseconds": medians, "ratio": ratio, "pairs": pairs}
        print(f"{name:36} {medians['other']:10.3f} ms {medians['here']:10.3f} ms   {ratio:.3f}", flush=True)
    write_result(arguments, metrics)
    return 0


class Tree:
    """A process in a checkout that measures what it is asked."""

    def __init__(self, root: Path, contenders: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(root.resolve()),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        command = [sys.executable, str(Path(__file__).with_name("against_worker.py")), str(contenders.resolve())]
        self.process = subprocess.Popen(
            command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.names: list[str] = self._answer()

    def seconds(self, name: str, least: float) -> float:
        """Processor seconds of one call."""
        assert self.process.stdin is not None
        print(json.dumps([name, least]), file=self.process.stdin, flush=True)
        return float(self._answer())

    def end(self) -> None:
        """End the process: it has no more requests."""
        self.process.communicate()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SpeakError("a tree's process ended; its message is above")
        return json.loads(line)


if __name__ == "__main__":
    sys.exit(main())
