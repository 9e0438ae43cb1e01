"""Time of a training step: the model against the same model written plainly, and SPEAK against DTP's Gumbel boundaries.

    python experiments/bench/step.py --json step.json
    python experiments/bench/step.py --device cuda --models text8 --systems gpu paper --json step.json

Models (`hourglass`, whose parity gate runs first: logits and gradients must agree or nothing is timed):
the package's Hourglass and the plain one of `model.plain`, at the sizes of --models, forward to optimiser.
Systems (`systems`): SPEAK's whole step, with acceptance and metrics, and the dtp-gumbel step, at the sizes of
--systems, both at a boundary rate of 0.2. Where SPEAK decides at every k-th step, one measurement is the mean over k
steps. Contenders take turns in one process; medians are reported, and the memory of each system from a process of its
own (on a CUDA device from its allocator).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hourglass import PRESETS as MODELS
from hourglass import measure_preset
from step_setup import SIZES, configuration, gumbel_step, prepare, speak_step

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.common.timing import in_turns
from speak_neuro.config import ENCODERS, RunConfig
from speak_neuro.errors import SpeakError

RATE = 0.2
"""Boundaries per character of both systems: the tokens of a trained model."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_step", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--models", nargs="*", choices=sorted(MODELS), default=["tiny", "text8"], metavar="SIZE")
    parser.add_argument("--systems", nargs="*", choices=sorted(SIZES), default=["tiny", "smoke"], metavar="SIZE")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each contender (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--dropout", type=float, help="dropout of the systems (default: each size's own)")
    parser.add_argument("--acceptance-share", type=float, help="share of steps that decide (default: each size's own)")
    parser.add_argument(
        "--drive", choices=("proxy", "information"), default="proxy", help="SPEAK's drive (default: %(default)s)"
    )
    parser.add_argument("--encoder", choices=sorted(ENCODERS), help="SPEAK's encoder (default: each size's own)")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--memory-of", nargs=2, metavar=("SYSTEM", "SIZE"), help=argparse.SUPPRESS)
    return run_command(parser, bench, argv)


def bench(arguments: argparse.Namespace) -> int:
    card = prepare(arguments, "repeats")
    if arguments.memory_of:
        print(json.dumps(peak_memory(*arguments.memory_of, arguments)))
        return 0
    print(f"{card}, {arguments.threads} thread(s)")
    metrics: dict[str, Any] = {
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "models": {size: models(size, arguments) for size in arguments.models},
        "systems": {size: systems(size, arguments) for size in arguments.systems},
    }
    write_result(arguments, metrics, card)
    return 0


def models(size: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The package's model and the plain one."""
    import torch

    found = measure_preset(MODELS[size], torch.empty(0, device=arguments.device).device, arguments.repeats)
    clock = "wall_ms" if arguments.device != "cpu" else "cpu_ms"
    plain, ours = found[f"plain_{clock}"], found[f"ours_{clock}"]
    print(f"model {size:8} plain {plain:9.1f} ms   package {ours:9.1f} ms   plain / package {plain / ours:.2f}")
    return found


def systems(size: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """SPEAK's step and DTP's, taking turns."""
    from speak_neuro.common.device import choose_device, wait

    config, device = at_rest(of_size(size, arguments)), arguments.device
    decides = config.training.drive == "proxy"
    steps = {"speak": speak_step(config, device, RATE), "dtp-gumbel": gumbel_step(config, device, RATE)}
    cycle = round(1 / config.training.acceptance_share) if decides else 1
    factors: dict[str, list[float]] = {name: [] for name in steps}

    def seen(name: str, records: list[dict[str, float]]) -> None:
        if decides and name == "speak" and sum("changed" in record for record in records) != 1:
            raise SpeakError(f"{size}: not one step in {cycle} decided; allowed shares: 1, 1/2, 1/3, ...")
        factors[name].append(statistics.mean(record["sf"] for record in records))

    cycles = {name: lambda step=step: [step() for _ in range(cycle)] for name, step in steps.items()}
    times = in_turns(cycles, arguments.repeats, finish=lambda: wait(choose_device(device)), seen=seen)
    found: dict[str, Any] = {
        "batch": config.training.batch,
        "window": config.training.window,
        "dropout": config.model.dropout,
        "encoder": config.tokenizer.encoder,
        "drive": config.training.drive,
        "acceptance_share": config.training.acceptance_share,
        "precision": config.training.precision,
    }
    for name, spent in times.items():
        cpu, wall = spent.cpu / cycle, spent.wall / cycle
        found[name] = {
            "cpu_ms": cpu * 1e3,
            "wall_ms": wall * 1e3,
            "steps_per_second": 1 / wall,
            "characters_per_second": config.training.batch * config.training.window / wall,
            "sf": statistics.median(factors[name]),
        }
        if not arguments.no_memory:
            found[name]["peak_memory_mib"] = memory_in_its_own_process(name, size, arguments)
    # On a shared machine the processor's time repeats better than the clock's; on a CUDA device only the clock counts.
    clock = "wall_ms" if device != "cpu" else "cpu_ms"
    found["ratio"] = found["speak"][clock] / found["dtp-gumbel"][clock]
    print(
        f"system {size:7} SPEAK {found['speak'][clock]:9.1f} ms (SF {found['speak']['sf']:.1f})"
        f"   dtp-gumbel {found['dtp-gumbel'][clock]:9.1f} ms (SF {found['dtp-gumbel']['sf']:.1f})"
        f"   SPEAK / dtp-gumbel {found['ratio']:.3f}",
        flush=True,
    )
    return found


def of_size(size: str, arguments: argparse.Namespace) -> RunConfig:
    """A size with what the arguments say of dropout, acceptance, encoder and drive."""
    config = configuration(size, arguments.dropout, arguments.acceptance_share)
    if arguments.encoder:
        config = config.change(tokenizer={"encoder": arguments.encoder})
    if arguments.drive == "proxy":
        return config
    return config.change(
        training={"drive": "information", "target_sf": 1 / RATE, "entropy_share": 0.667},
        neuron={"decay": 1.0, "reset_scale": 1.0},
    )


def at_rest(config: RunConfig) -> RunConfig:
    """With learning rates of zero: every computation is made, but the number of tokens, on which its time depends and
    which swings in the first steps of training, stays as it is at the start."""
    rates = ("learning_rate", "matrix_learning_rate", "tokenizer_learning_rate")
    return config.change(training=dict.fromkeys(rates, 0.0))


def peak_memory(system: str, size: str, arguments: argparse.Namespace) -> float:
    """MiB that three steps need at most: of this process, or of the device."""
    import torch

    config = of_size(size, arguments)
    build = {"speak": speak_step, "dtp-gumbel": gumbel_step}[system]
    step = build(config, arguments.device)
    for _ in range(3):
        step()
    if arguments.device != "cpu":
        return torch.cuda.max_memory_allocated(arguments.device) / 2**20
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes / (2**20 if sys.platform == "darwin" else 2**10)


def memory_in_its_own_process(system: str, size: str, arguments: argparse.Namespace) -> float:
    flags = ["--memory-of", system, size, "--threads", str(arguments.threads), "--device", arguments.device]
    for name in ("acceptance_share", "dropout", "encoder", "drive"):
        if (value := getattr(arguments, name)) is not None:
            flags += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run([sys.executable, __file__, *flags], stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout))


if __name__ == "__main__":
    sys.exit(main())
