"""Time of a whole training step in bfloat16 against float32, and where the time of a run goes outside its steps.

    python experiments/bench/precision.py --sizes compare-cpu text8 --json FILE

Both arithmetics train the same model on the same windows by the presets' recipe, tokens of five characters; they take
turns, and medians of processor time are compared. Before that the two losses of the first step, which are of the same
weights and windows, must agree. Beside them stand the reading of a step's windows and one evaluation, in steps: what a
run does between its steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from step_setup import SIZES, configuration, prepare, text_ids, trainer_of

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.common.timing import in_turns
from speak_neuro.errors import ParityError
from speak_neuro.training.presets import RECIPE

PRECISIONS = ("float32", "bfloat16")
TOLERANCE = 0.02
"""In nats a character: bfloat16 has 8 bits."""
EVALUATED = 20_000


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="precision.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=sorted(SIZES), default=["compare-cpu"], metavar="SIZE")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return run_command(parser, measure, argv)


def measure(arguments: argparse.Namespace) -> int:
    """All sizes, one after the other."""
    prepare(arguments, "repeats")
    metrics: dict[str, Any] = {"threads": arguments.threads, "repeats": arguments.repeats, "sizes": {}}
    for size in arguments.sizes:
        found = metrics["sizes"][size] = measure_size(size, arguments)
        print(
            f"{size:12} float32 {found['float32_ms']:8.1f} ms   bfloat16 {found['bfloat16_ms']:8.1f} ms   "
            f"{found['ratio']:.2f} times   windows {found['windows_in_steps']:.4f} steps   "
            f"evaluation {found['evaluation_in_steps']:.1f} steps",
            flush=True,
        )
    write_result(arguments, metrics)
    return 0


def measure_size(size: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a step in both, their ratio, and what else a run does in units of a step in bfloat16."""
    from speak_neuro.common.device import choose_device, wait
    from speak_neuro.training.evaluation import evaluate
    from speak_neuro.training.fit import train_step
    from speak_neuro.training.trainer import read_batch

    trainers = {name: trainer_of(setting(size, name), arguments.device) for name in PRECISIONS}
    losses = {name: train_step(trainer)["loss_lm"] for name, trainer in trainers.items()}
    difference = abs(losses["bfloat16"] - losses["float32"])
    if not difference < TOLERANCE:
        raise ParityError(f"{size}: the first losses differ by {difference:.4f} nats; allowed: {TOLERANCE}")
    last, ids = trainers["bfloat16"], text_ids()[0][:EVALUATED]
    window = last.config.window
    device = choose_device(arguments.device)

    def seconds(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
        # On a shared machine the processor's time repeats better; on a CUDA device only the clock counts.
        spent = in_turns(runs, repeats, finish=lambda: wait(device))
        return {name: time.cpu if device.type == "cpu" else time.wall for name, time in spent.items()}

    steps = {name: lambda trainer=trainer: train_step(trainer) for name, trainer in trainers.items()}
    float32, bfloat16 = seconds(steps, arguments.repeats).values()
    between: dict[str, Callable[[], Any]] = {
        "reading": lambda: read_batch(last),
        "evaluating": lambda: evaluate(last.system, ids, window, precision="bfloat16"),
    }
    reading, evaluating = seconds(between, 1).values()
    return {
        "float32_ms": 1e3 * float32,
        "bfloat16_ms": 1e3 * bfloat16,
        "ratio": float32 / bfloat16,
        "first_loss_difference": difference,
        "windows_in_steps": reading / bfloat16,
        "evaluation_in_steps": evaluating / bfloat16,
        "evaluated_characters": EVALUATED,
    }


def setting(size: str, precision: str) -> Any:
    """A size trained by the recipe, a token for every fifth character."""
    config = configuration(size, dropout=None)
    training = dataclasses.replace(
        RECIPE, batch=config.training.batch, window=config.training.window, precision=precision
    )
    config = config.change(tokenizer={"kind": "fixed", "fixed_length": 5})
    return dataclasses.replace(config, training=training)


if __name__ == "__main__":
    sys.exit(main())
