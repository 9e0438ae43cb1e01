"""Two demos in processes with other hash seeds and equal threads: every file compared byte by byte, times aside.

python experiments/reliability/demos.py --work runs/demos --json experiments/results/reliability/demos.json

    each demo    gtok.py --preset smoke, speak-export --to nir, speak-sim parity, as `make demo`
    compared     exemplar, weights, graph, trace as bytes; records and logs without times, dates and places

A step whose files are there is not made again, so the command can be stopped and given once more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.common.tensors import read_tensors, tensors_digest
from speak_neuro.errors import SpeakError
from speak_neuro.training.metrics_log import read_metrics

SEEDS = ("1", "20000")
"""PYTHONHASHSEED of the two."""
BYTES = ("exemplar.json", "model.safetensors", "boundary.nir", "trace.npz")
RECORDS = ("config.json", "results.json", "parity.json")
LEFT_OUT = ("seconds", "characters_per_second", "training_seconds", "date", "command", "sha256", "graph", "trace_file")
"""Fields that hold times and places, and a digest over them."""


def make(folder: Path, seed: str, flags: Sequence[str], threads: int) -> None:
    """A demo in `folder`, step by step."""
    gtok = str(Path(__file__).resolve().parents[1] / "gtok.py")
    module = "import sys; from speak_neuro.{}.cli import main; sys.exit(main())"
    begun = ["--resume", "auto"] if (folder / "config.json").exists() else ["--preset", "smoke", *flags]
    graph = ["--graph", str(folder / "boundary.nir"), "--trace", str(folder / "trace.npz")]
    steps = {
        "results.json": [gtok, "--out", str(folder), "--device", "cpu", "--quiet", *begun],
        "trace.npz": ["-c", module.format("export"), "--to", "nir", "--run", str(folder), "--quiet"],
        "parity.json": ["-c", module.format("sim"), "parity", *graph, "--timeout", "3000"],
    }
    number = str(threads)
    environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": number, "NUMBA_NUM_THREADS": number}
    for made, command in steps.items():
        if not (folder / made).exists():
            print(f"{folder.name}: {made}", flush=True)
            if code := subprocess.run([sys.executable, *command], env=environment).returncode:
                raise SpeakError(f"{folder}: the step that makes {made} ended with exit code {code}")


def plain(value: Any) -> Any:
    """A record without what may differ."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if name not in LEFT_OUT}
    return [plain(part) for part in value] if isinstance(value, list) else value


def digests(folder: Path) -> dict[str, str]:
    """A digest of each file, times aside."""
    found = {name: (folder / name).read_bytes() for name in BYTES}
    for name in RECORDS:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
        if name == "parity.json":
            value["trace"]["meta"].pop("run", None)
        found[name] = json.dumps(plain(value), sort_keys=True).encode()
    found["metrics.jsonl"] = json.dumps(plain(read_metrics(folder)), sort_keys=True).encode()
    tensors, _ = read_tensors(folder / "state.safetensors")
    found["state.safetensors, its tensors"] = tensors_digest(tensors).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1: a file differs."""
    parser = argparse.ArgumentParser(prog="reliability/demos.py", description="Two demos, compared byte by byte.")
    parser.add_argument("--work", type=Path, required=True, help="folder for the two runs")
    parser.add_argument("--steps", type=int, help="fewer steps than the preset's")
    parser.add_argument("--threads", type=int, default=1, help="of both (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the digests here")
    return run_command(parser, run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Make both and compare them."""
    flags = ["--steps", str(arguments.steps)] if arguments.steps else []
    # Equal names, since graph and trace name their run.
    folders = [arguments.work / f"hash-seed-{seed}" / "demo" for seed in SEEDS]
    for folder, seed in zip(folders, SEEDS, strict=True):
        make(folder, seed, flags, arguments.threads)
    first, second = map(digests, folders)
    differ = [name for name, digest in first.items() if second[name] != digest]
    level = json.loads((folders[0] / "parity.json").read_text(encoding="utf-8"))["levels"]["neuron"]
    bpc = json.loads((folders[0] / "results.json").read_text(encoding="utf-8"))["metrics"]["test_bpc"]
    counts = {"test_bpc": bpc, "spikes": level["spikes"], "mismatches": level["mismatches"]}
    metrics = {"steps": arguments.steps, "threads": arguments.threads, "differ": differ, "digests": first, **counts}
    for name, digest in first.items():
        print(f"{name:32} {digest[:16]}  {'DIFFERS' if name in differ else 'equal'}")
    write_result(arguments, metrics)
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(main())
