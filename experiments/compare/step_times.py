"""Time of a training step of every system at its trained shortening factor, on a device that does nothing else.

    python experiments/compare/step_times.py --run runs/comparison/*-1 --json experiments/results/bench_systems.json
    python experiments/compare/tables.py comparison.json --step-times experiments/results/bench_systems.json

One run folder for each system: its weights, its settings and its training text. The systems take turns in one process;
learning rates are zero, so that the number of tokens, which decides much of the time, stays as trained. SPEAK judges
every window against the exemplar's spikes, the dearest case. Where runs shared a device while they trained, these times
give the time axis that the runs' own clocks cannot.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from records import flat_config
from texts import Texts

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.common.timing import in_turns
from speak_neuro.errors import SpeakError
from speak_neuro.supervision.proxy import ProxyStore

if TYPE_CHECKING:  # --help does not wait for torch
    from speak_neuro.systems.run_folder import Run
    from speak_neuro.training.trainer import Trainer


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="step_times.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--run", nargs="+", type=Path, required=True, metavar="R", help="run folders of gtok.py")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--text", type=Path, help="text to train on instead of each run's own")
    text.add_argument("--data", type=Path, help="where the runs' data are now, as gtok.py --data takes it")
    parser.add_argument("--repeats", type=int, default=15, help="timed steps of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.set_defaults(part="train")
    return run_command(parser, bench, argv)


def bench(arguments: argparse.Namespace) -> int:
    """Build a trainer for each run, let them take turns, report medians."""
    at_least(arguments, 1, "repeats", "threads")
    import torch

    from speak_neuro.common.device import choose_device, describe_device, wait
    from speak_neuro.systems.run_folder import read_run
    from speak_neuro.training.fit import train_step

    device = choose_device(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    texts = Texts(arguments)
    runs = [read_run(folder) for folder in arguments.run]
    trainers = [trainer(run, texts.of(run).text, device) for run in runs]
    # Where SPEAK decides at every k-th step, one measurement is the mean of k steps.
    cycles = [round(1 / one.config.acceptance_share) if one.system.is_speak else 1 for one in trainers]
    factors: list[list[float]] = [[] for _ in runs]
    steps = {
        str(index): lambda one=one, cycle=cycle: [train_step(one)["sf"] for _ in range(cycle)]
        for index, (one, cycle) in enumerate(zip(trainers, cycles, strict=True))
    }
    times = in_turns(
        steps,
        arguments.repeats,
        finish=lambda: wait(device),
        seen=lambda index, found: factors[int(index)].append(statistics.mean(found)),
    )
    found = [
        {
            "name": run.folder.resolve().name,
            "system": run.config.tokenizer.kind,
            "config": flat_config(dataclasses.asdict(run.config)),
            "step_ms": spent.wall * 1e3 / cycle,
            "sf": statistics.median(sf),
        }
        for run, spent, cycle, sf in zip(runs, times.values(), cycles, factors, strict=True)
    ]
    for one in found:
        print(f"{one['name']:24} {one['system']:12} {one['step_ms']:9.1f} ms a step at SF {one['sf']:.2f}")
    metrics = {"repeats": arguments.repeats, "threads": torch.get_num_threads(), "step_times": found}
    write_result(arguments, metrics, describe_device(device))
    return 0


def trainer(run: Run, text: str, device: Any) -> Trainer:
    """The run's system in training, with learning rates of zero, on the first windows of the text."""
    from speak_neuro.supervision.exemplar import UnigramExemplar
    from speak_neuro.systems.run_folder import EXEMPLAR, load_system
    from speak_neuro.training.trainer import Trainer

    still = {"learning_rate": 0.0, "matrix_learning_rate": 0.0, "tokenizer_learning_rate": 0.0}
    config = dataclasses.replace(run.config.training, **still, proxy_steps=0, exemplar_steps=0)
    needed = config.batch * (config.window + 1)
    if len(text) < needed:
        raise SpeakError(
            f"{run.folder}: a batch needs {needed} characters, the text has {len(text)}; give a longer one"
        )
    text = text[: 4 * needed]
    proxy = None
    if (run.folder / EXEMPLAR).is_file():
        proxy = ProxyStore.create(UnigramExemplar.load(run.folder / EXEMPLAR).boundaries(text))
        proxy.mark_visited(np.zeros(1, dtype=np.int64), len(text))
    settled = dataclasses.replace(run, config=dataclasses.replace(run.config, training=config))
    return Trainer.create(load_system(settled, device), config, run.alphabet.encode(text), proxy)


if __name__ == "__main__":
    sys.exit(main())
