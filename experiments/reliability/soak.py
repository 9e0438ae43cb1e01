"""A long run in pieces: calls of a tokenizer, then training with its checkpoints and log; memory has to stay flat.

python experiments/reliability/soak.py --work runs/soak --json experiments/results/reliability/soak.json

    grown    resident memory of a piece's last quarter over that of its second quarter, maxima of samples, in MiB

Flat is a growth of up to LIMIT_MIB in each piece. The first quarter is left out: pools and caches fill. Maxima, since a
buffer as large as a checkpoint comes and goes: medians jump by it, up or down, with the moments of the samples.

A piece is one process and takes up to --piece minutes; given once more, the command goes on where its JSON and --work
have come to.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from speak_neuro.common.command import run_command
from speak_neuro.common.json_files import read_measurement
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError

LIMIT_MIB = 4
SAMPLES = 200
"""Samples of memory in a piece of training, about."""
CALLS_A_SAMPLE = 20_000
LEAST_SAMPLES = 8
STEPS = 10_000_000
"""More than fit into the time."""


class Enough(Exception):
    """The time is over."""


class Memory:
    """Samples of this process's resident memory, at equal distances of time or calls."""

    def __init__(self) -> None:
        self.samples: list[float] = []

    def take(self) -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        self.samples.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    def measured(self) -> dict[str, Any]:
        """Growth and a curve of twenty points."""
        count = len(self.samples)
        if count < LEAST_SAMPLES:
            raise SpeakError(f"{count} samples of memory; allowed: {LEAST_SAMPLES} and more: give a longer --piece")
        quarters = [self.samples[count * part // 4 : count * (part + 1) // 4] for part in range(4)]
        second, last = max(quarters[1]), max(quarters[3])
        curve = [round(self.samples[at], 1) for at in np.linspace(0, count - 1, min(20, count)).astype(int)]
        return {"grown_mib": round(last - second, 2), "resident_mib": round(last, 1), "curve_mib": curve}


def train(folder: Path, seconds: float) -> dict[str, Any]:
    """Training in `folder` for so long after a first step, with an evaluation and a checkpoint at every 20th step."""
    import torch

    from speak_neuro.config import ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
    from speak_neuro.corpus.reader import embedded_text
    from speak_neuro.supervision.exemplar import whitespace_boundaries
    from speak_neuro.supervision.proxy import ProxyStore
    from speak_neuro.systems.run_folder import STATE
    from speak_neuro.systems.system import System
    from speak_neuro.text.alphabet import Alphabet
    from speak_neuro.training.fit import fit, resume
    from speak_neuro.training.trainer import Trainer

    torch.manual_seed(0)
    config = RunConfig(
        tokenizer=TokenizerConfig(encoder_width=32, context=4),
        model=ModelConfig(width=64, heads=4, inner=128, pre_layers=1, shortened_layers=1, post_layers=1),
        training=TrainingConfig(
            steps=STEPS, batch=8, window=128, proxy_steps=50, evaluate_every=20, evaluate_characters=4000
        ),
    )
    text = embedded_text("en")[:200_000]
    alphabet = Alphabet.learn(text)
    ids, spaces = alphabet.encode(text), whitespace_boundaries(text)
    proxy = ProxyStore.create(spaces[:-10_000])
    trainer = Trainer.create(System(config, len(alphabet), alphabet), config.training, ids[:-10_000], proxy)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / STATE).exists():
        resume(folder, trainer)
    memory, first, began, used = Memory(), trainer.step + 1, 0.0, 0.0

    def report(record: dict[str, Any]) -> None:
        nonlocal began, used
        if not memory.samples:  # the first step, which loads and compiles, is over
            began, used = time.monotonic(), time.process_time()
        over = time.monotonic() - began
        if over >= len(memory.samples) * seconds / SAMPLES:
            memory.take()
        if over > seconds:
            raise Enough

    with contextlib.suppress(Enough):
        fit(folder, trainer, ids[-10_000:], None, report)
    found = {"steps": trainer.step - first, "checkpoints": trainer.step // 20 - first // 20}
    found |= {"seconds": round(time.monotonic() - began, 1), "processor_seconds": round(time.process_time() - used, 1)}
    return {**found, **memory.measured()}


def call(calls: int, seconds: float) -> dict[str, Any]:
    """So many calls of a tokenizer, or as many as fit into the time: tokens of a line, pieces of a stream."""
    from speak_neuro.api.tokenizer import Tokenizer
    from speak_neuro.corpus.reader import embedded_text
    from speak_neuro.table.table import CompiledTable
    from speak_neuro.text.alphabet import Alphabet

    text = embedded_text("en")[:50_000]
    alphabet = Alphabet.learn(text)
    current, gate = np.random.default_rng(0).normal(0.3, 0.4, (2, 1, len(alphabet))).astype(np.float32)
    lines = [line[:40] for line in text.split("\n") if line][:50]
    memory, began, used, done = Memory(), time.monotonic(), time.process_time(), 0
    with TemporaryDirectory() as folder:
        CompiledTable(alphabet, current, gate).save(Path(folder) / "table.safetensors")
        tokenizer = Tokenizer.load(Path(folder) / "table.safetensors")
        stream = tokenizer.token_stream()
        while done < calls and time.monotonic() - began < seconds:
            if done % CALLS_A_SAMPLE == 0:
                memory.take()
            for line in lines:
                tokenizer.tokens(line)
                stream.feed(line)
            done += 2 * len(lines)
    found = {"calls": done, "seconds": round(time.monotonic() - began, 1)}
    return {**found, "processor_seconds": round(time.process_time() - used, 1), **memory.measured()}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1: memory has grown."""
    parser = argparse.ArgumentParser(prog="reliability/soak.py", description="A long run with flat memory.")
    parser.add_argument("--minutes", type=float, default=60, help="of training, all pieces together (default: 60)")
    parser.add_argument(
        "--calls", type=int, default=10_000_000, help="of a tokenizer, all together (default: 10 million)"
    )
    parser.add_argument("--piece", type=float, default=1e6, help="minutes that this process takes (default: all)")
    parser.add_argument("--work", type=Path, required=True, help="folder of the run that is trained")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="results, gone on from")
    return run_command(parser, run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Make the calls that are missing, train for the time that is missing, say by how much memory has grown."""
    if min(arguments.minutes, arguments.piece) <= 0 or arguments.calls < 0:
        raise SpeakError(
            f"--minutes is {arguments.minutes}, --piece {arguments.piece}, --calls {arguments.calls}; "
            "allowed: above 0, and 0 calls"
        )
    if not Path("/proc/self/statm").exists():
        raise SpeakError("/proc/self/statm: no such file; this measures memory on Linux")
    metrics: dict[str, Any] = {"limit_mib": LIMIT_MIB, "calls": [], "training": []}
    if arguments.json.exists():
        metrics = read_measurement(arguments.json, "name a file of this command", "calls", "training")
    began, piece = time.monotonic(), arguments.piece * 60

    def keep(part: str, found: dict[str, Any]) -> None:
        metrics[part].append(found)
        print(f"{part}: {found}", flush=True)
        write_result(arguments, metrics)

    missing = arguments.calls - sum(found["calls"] for found in metrics["calls"])
    if missing > 0:
        keep("calls", call(missing, piece))
    seconds = arguments.minutes * 60 - sum(found["seconds"] for found in metrics["training"])
    # What is left of a piece is for training, unless it is too short to say anything.
    seconds = min(seconds, piece - (time.monotonic() - began))
    if seconds > 0.1 * min(piece, arguments.minutes * 60):
        keep("training", train(arguments.work, seconds))
    return int(any(found["grown_mib"] > LIMIT_MIB for part in ("calls", "training") for found in metrics[part]))


if __name__ == "__main__":
    sys.exit(main())
