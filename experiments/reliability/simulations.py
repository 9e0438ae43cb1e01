"""speak-sim again and again, two at once, and under fault: what it ends with, how soon, and what it leaves behind.

python experiments/reliability/simulations.py --runs 50 --each 3 --json experiments/results/reliability/simulations.json

    in a row, two at once   `speak-sim parity` at both levels: exit code 0 and the same spikes each time
    group stopped           SIGSTOP to all processes of the simulation; --timeout has to end it
    worker stopped, parent killed      SIGSTOP to the worker, SIGKILL to speak-sim
    helper killed           SIGKILL to one of the worker's own processes: the resource tracker, the first, the last
    shared memory full      a /dev/shm of 64 KiB, where this process may mount one

Left behind are processes that carry this command's mark, files in /dev/shm that no process maps, and temporary files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import ExportedNeuron, write_neuron
from speak_neuro.export.files.trace_file import Trace, encode_texts, write_trace
from speak_neuro.neuron.reference import gated_lif_run

TIMEOUT = 8
"""Seconds of --timeout where that has to end the run."""
NOTICED = 90
"""The same where the fault itself has to, long before."""
MARK = "SPEAK_SIMULATIONS_MARK"
SHARED = Path("/dev/shm")
COMMAND = [sys.executable, "-c", "import sys\nfrom speak_neuro.sim.cli import main\nsys.exit(main())"]


def make_files(folder: Path, rows: int, positions: int) -> tuple[str, str]:
    """A graph and the trace of its run on random features, whose sums are exact in float32."""
    features = np.random.default_rng(positions).integers(-2, 5, (rows, positions, 1)).astype(np.float32) / 4
    constants = {"decay": 1.0, "gain": 1.0, "threshold": 1.0, "reset_potential": 0.0, "reset_scale": 0.75}
    exported = ExportedNeuron(
        weight=np.array([[1], [0.5]], dtype=np.float32),
        bias=np.array([0, -0.25], dtype=np.float32),
        gate_threshold=np.zeros(1, dtype=np.float32),
        **{name: np.array([value], dtype=np.float32) for name, value in constants.items()},
    )
    current, gate = np.moveaxis(features @ exported.weight.T + exported.bias, -1, 0)
    run = gated_lif_run(current[..., None], gate[..., None], exported.parameters())
    text, offsets = encode_texts(["x" * positions] * rows)
    trace = Trace(
        current=np.ascontiguousarray(current),
        gate_logit=np.ascontiguousarray(gate),
        membrane=run.membrane[..., 0],
        spikes=run.spikes[..., 0].astype(np.uint8),
        length=np.full(rows, positions),
        features=features,
        **{name: np.float32(value) for name, value in constants.items()},  # type: ignore[arg-type]
        text_utf8=text,
        text_offsets=offsets,
    )
    graph, path = folder / f"{positions}.nir", folder / f"{positions}.npz"
    write_neuron(graph, exported)
    write_trace(path, trace)
    return str(graph), str(path)


class Watch:
    """What the simulations of this command leave: a mark in their environment, files, a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.mark, self.before = uuid.uuid4().hex, set(SHARED.iterdir())
        self.place = folder / "tmp"
        self.place.mkdir()
        self.environment = {**os.environ, MARK: self.mark, "TMPDIR": str(self.place), "OMP_NUM_THREADS": "1"}

    def processes(self) -> list[int]:
        """Living processes with the mark."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and self.mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def memory(self) -> set[str]:
        """Files in shared memory that are new and that no process maps."""
        fresh = {path.name for path in set(SHARED.iterdir()) - self.before}
        for maps in Path("/proc").glob("[0-9]*/maps") if fresh else ():
            with contextlib.suppress(OSError):
                text = maps.read_text()
                fresh = {name for name in fresh if f"{SHARED}/{name}" not in text}
        return fresh

    def left(self, seconds: float = 20.0) -> dict[str, int]:
        """Counts of what is still there after so long; a process that was killed has a reaper, which takes a moment."""
        limit = time.monotonic() + seconds
        while True:
            found = [len(self.processes()), len(self.memory()), len(list(self.place.iterdir()))]
            if not any(found) or time.monotonic() > limit:
                return dict(zip(("processes", "shared memory", "temporary files"), found, strict=True))
            time.sleep(0.1)


def parity(watch: Watch, files: tuple[str, str], out: Path) -> dict[str, Any]:
    """One `speak-sim parity`."""
    command = [*COMMAND, "parity", "--graph", files[0], "--trace", files[1], "--out", str(out), "--timeout", "300"]
    began = time.monotonic()
    done = subprocess.run(command, env=watch.environment, capture_output=True, text=True)
    spikes = {}
    if done.returncode == 0:
        levels = json.loads((out / "parity.json").read_text(encoding="utf-8"))["levels"]
        spikes = {name: (level["spikes"], level["mismatches"]) for name, level in levels.items()}
    return {"code": done.returncode, "spikes": spikes, "seconds": time.monotonic() - began, "error": done.stderr[-200:]}


def children(process: int) -> list[int]:
    """Processes that a process has started."""
    with contextlib.suppress(OSError):
        return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def worker_of(process: int) -> int:
    """The simulation's worker, once it has processes of its own that simulate."""
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        for child in children(process):
            if len(children(child)) > 3:
                return child
        time.sleep(0.05)
    raise SpeakError(f"process {process}: no simulation began within 120 s")


def stop_group(process: int) -> None:
    os.killpg(worker_of(process), signal.SIGSTOP)


def stop_worker_kill_parent(process: int) -> None:
    os.kill(worker_of(process), signal.SIGSTOP)
    os.kill(process, signal.SIGKILL)


def kill_helper(which: str) -> Callable[[int], None]:
    """Kills the resource tracker, or the first or last of the others."""

    def act(process: int) -> None:
        found = children(worker_of(process))
        tracker = [one for one in found if b"resource_tracker" in Path(f"/proc/{one}/cmdline").read_bytes()]
        others = [one for one in found if one not in tracker]
        os.kill({"tracker": tracker, "first": others, "last": others[::-1]}[which][0], signal.SIGKILL)

    return act


FAULTS: dict[str, Callable[[int], None]] = {
    "group stopped": stop_group,
    "worker stopped, parent killed": stop_worker_kill_parent,
    "resource tracker killed": kill_helper("tracker"),
    "first helper killed": kill_helper("first"),
    "last helper killed": kill_helper("last"),
}


EXPECTED = {
    "group stopped": (2, "not done within 8 s"),
    "worker stopped, parent killed": (-signal.SIGKILL, ""),
    "shared memory full": (2, "is /dev/shm full?"),
}
"""Exit code and part of the message; of others 2 and that something was killed."""


def disturbed(watch: Watch, fault: str, files: tuple[str, str], out: Path) -> dict[str, Any]:
    """One `speak-sim run` with a fault, and what it ended with."""
    act, limit = FAULTS[fault], NOTICED if fault.endswith("killed") else TIMEOUT
    command = [*COMMAND, "run", "--level", "neuron", "--graph", files[0], "--trace", files[1], "--out", str(out)]
    # The limit counts from the start; a busy machine may need some of it before the fault comes.
    process = subprocess.Popen(
        [*command, "--timeout", str(limit)], env=watch.environment, stderr=subprocess.PIPE, text=True
    )
    began = time.monotonic()
    act(process.pid)
    acted = time.monotonic()
    _, error = process.communicate(timeout=120)
    ended = time.monotonic()
    left = watch.left()
    return {
        "code": process.returncode,
        "seconds after the fault": round(ended - acted, 2),
        "seconds beyond the limit": round(max(0.0, ended - began - limit), 2),
        "error": said(error),
        "left": left,
    }


def said(text: str) -> str:
    """The error, without the progress bar before it; several lines stay several."""
    _, found, rest = text.strip().rpartition("speak-sim: error: ")
    return rest if found and "Traceback" not in text else text.strip()[-300:]


def full_memory(watch: Watch, files: tuple[str, str], out: Path) -> dict[str, Any] | None:
    """A run with no room in /dev/shm; None where this process may not mount one of its own."""
    inner = [*COMMAND, "run", "--level", "neuron", "--graph", files[0], "--trace", files[1], "--out", str(out)]
    mount = f"mount -t tmpfs -o size=64k tmpfs {SHARED} && exec " + '"$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        return None
    began = time.monotonic()
    done = subprocess.run([*command, *inner, "--timeout", "60"], env=watch.environment, capture_output=True, text=True)
    return {
        "code": done.returncode,
        "seconds": round(time.monotonic() - began, 2),
        "error": said(done.stderr),
        "left": watch.left(),
    }


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="reliability/simulations.py", description="speak-sim again and under fault.")
    parser.add_argument("--runs", type=int, default=50, help="runs in a row, and as many by twos (default: 50)")
    parser.add_argument("--each", type=int, default=3, help="times that each fault is tried (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the outcomes here")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1: a run failed, ended otherwise than it should, or left something."""
    return run_command(build_parser(), run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Run, disturb, and count."""
    if not SHARED.is_dir():
        raise SpeakError(f"{SHARED}: no such folder; this measures Linux's shared memory")
    faults: dict[str, Any] = {}
    with TemporaryDirectory(prefix="speak-sims-", dir="/tmp") as name:
        folder = Path(name)
        watch, short, long = Watch(folder), make_files(folder, 3, 60), make_files(folder, 1, 400_000)
        runs = {"in a row": series(watch, short, folder, arguments.runs, 1)}
        runs["two at once"] = series(watch, short, folder, arguments.runs, 2)
        for fault in FAULTS:
            faults[fault] = [disturbed(watch, fault, long, folder / "out.npz") for _ in range(arguments.each)]
            print(fault, json.dumps(faults[fault][-1]), flush=True)
        if found := full_memory(watch, long, folder / "out.npz"):
            faults["shared memory full"] = [found]
            print("shared memory full", json.dumps(found), flush=True)
        else:
            print("shared memory full: left out, this process may not mount a file system")
    write_result(arguments, {"timeouts": [TIMEOUT, NOTICED], "runs": runs, "faults": faults})
    bad = [name for name, found in runs.items() if found["failed"] or any(found["left"].values())]
    for fault, tries in faults.items():
        code, wanted = EXPECTED.get(fault, (2, "killed"))
        bad += [
            fault
            for one in tries
            if one["code"] != code or wanted not in one["error"] or "\n" in one["error"] or any(one["left"].values())
        ]
    print("all as it should be" if not bad else f"not as it should be: {', '.join(bad)}")
    return int(bool(bad))


def series(watch: Watch, files: tuple[str, str], folder: Path, count: int, at_once: int) -> dict[str, Any]:
    """Many parity runs; what they leave is counted after all."""
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(lambda number: parity(watch, files, folder / f"out-{number}"), range(count)))
    results = {json.dumps(one["spikes"]) for one in found}
    failed = [one["error"] for one in found if one["code"]] or (["results differ"] if len(results) > 1 else [])
    summary = {
        "count": count,
        "failed": failed,
        "spikes": found[0]["spikes"],
        "longest_seconds": round(max(one["seconds"] for one in found), 2),
        "left": watch.left(),
    }
    print(f"{at_once} at once", json.dumps(summary), flush=True)
    return summary


if __name__ == "__main__":
    sys.exit(main())
