"""How long the language model trains until it is as good as before: the presets' recipe against DTP's Adam.

    python experiments/bench/time_to_quality.py --data FOLDER --json FILE --picture FILE

Each arm trains the same model on the same windows behind the same tokenizer (white space unless told otherwise) with a
schedule of its own length, and is scored on held-out text:

    adam            post-norm layers, one Adam at the preset's former rate, cosine, float32: --steps steps
    recipe, n       the preset as it is: n = a quarter, half and all of the steps
    recipe but ...  with --ablations: all of the steps with one part of the recipe put back

Within a seed the arms take turns, some steps each, and what counts is processor time inside steps, so that what else
the machine does touches all alike. The speed-up is the time of `adam` over the time in which the recipe comes to the
same bits per character, between its two lengths around that; where the shortest is better already, at least that.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speak_neuro.common.command import run_command
from speak_neuro.common.device import describe_device
from speak_neuro.common.files import atomic_write, check_writable, write_json
from speak_neuro.common.provenance import result_record
from speak_neuro.config import RunConfig
from speak_neuro.corpus.reader import embedded_text
from speak_neuro.errors import MissingExtra, SpeakError
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.presets import PRESETS, with_adam

if TYPE_CHECKING:
    from speak_neuro.training.trainer import Trainer

TURN = 25
SYSTEMS = ("whitespace", "fixed", "vanilla")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="time_to_quality.py", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="folder with train.txt and test.txt (default: the embedded text)")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="compare-cpu", help="model and settings")
    parser.add_argument("--system", choices=SYSTEMS, default="whitespace", help="what cuts the text")
    parser.add_argument("--steps", type=int, default=300, help="steps of the longest arms (default 300)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default 3)")
    parser.add_argument("--characters", type=int, default=60_000, help="test characters that are scored")
    parser.add_argument("--threads", type=int, default=1, help="threads (default 1)")
    parser.add_argument("--ablations", action="store_true", help="also the recipe with one part put back at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw BPC against seconds there")
    return run_command(parser, measure, argv)


def measure(arguments: argparse.Namespace) -> int:
    """Train all arms of all seeds, report, and write what was asked for."""
    import torch

    for name, least in (("steps", 4), ("seeds", 1), ("characters", 2), ("threads", 1)):
        if getattr(arguments, name) < least:
            raise SpeakError(f"--{name} is {getattr(arguments, name)}; allowed: {least} or more")
    for path in (arguments.json, arguments.picture):
        if path is not None:
            check_writable(path)
    torch.set_num_threads(arguments.threads)
    train, test = read(arguments.data)
    arms = build_arms(PRESETS[arguments.preset], arguments)
    runs = []
    for seed in range(1, arguments.seeds + 1):
        for run in train_arms(arms, train, test[: arguments.characters], seed):
            runs.append(run)
            print(
                f"seed {seed}: {run['arm']:24} {run['steps']:5} steps {run['cpu_seconds']:8.1f} s  "
                f"bpc {run['bpc']:.4f}  token dependence {run['token_dependence']:.3f}",
                flush=True,
            )
    found = speed_ups(runs)
    for seed, value in found.items():
        print(f"seed {seed}: adam's BPC in {value['recipe_seconds']:.1f} s of {value['adam_seconds']:.1f}")
    told = [value["ratio"] for value in found.values()]
    print(f"speed-up {min(told):.1f} to {max(told):.1f}")
    metrics = {
        "preset": arguments.preset,
        "system": arguments.system,
        "threads": arguments.threads,
        "test_characters": min(len(test), arguments.characters),
        "runs": runs,
        "speed_up": found,
    }
    if arguments.picture is not None:
        draw(runs, arguments.picture)
    if arguments.json is not None:
        command = f"python experiments/bench/{arguments.command_line}"
        write_json(arguments.json, result_record(command, metrics, describe_device(torch.device("cpu"))))
    return 0


def read(folder: Path | None) -> tuple[str, str]:
    """Training and test text."""
    if folder is None:
        text = embedded_text("en")
        return text[: int(0.9 * len(text))], text[int(0.9 * len(text)) :]
    try:
        return tuple((folder / name).read_text(encoding="utf-8") for name in ("train.txt", "test.txt"))  # type: ignore[return-value]
    except OSError as error:
        raise SpeakError(
            f"{error.filename}: {error.strerror}; --data names a folder with train.txt and test.txt"
        ) from None


def build_arms(preset: RunConfig, arguments: argparse.Namespace) -> dict[str, RunConfig]:
    """Every arm's configuration, but for the seed."""

    def changed(config: RunConfig, steps: int, **training: Any) -> RunConfig:
        tokenizer = dataclasses.replace(config.tokenizer, kind=arguments.system)
        values = {"steps": steps, "warmup": min(config.training.warmup, steps // 4), **training}
        return dataclasses.replace(config, tokenizer=tokenizer, training=dataclasses.replace(config.training, **values))

    def post(config: RunConfig) -> RunConfig:
        return dataclasses.replace(config, model=dataclasses.replace(config.model, norm="post"))

    steps, former = arguments.steps, with_adam(preset, arguments.preset)
    arms = {"adam": changed(post(former), steps, precision="float32")}
    for length in (steps // 4, steps // 2, steps):
        arms[f"recipe, {length}"] = changed(preset, length)
    if arguments.ablations:
        arms["recipe but adam"] = changed(former, steps, learning_rate=4e-3, clip=1.0)
        arms["recipe but post-norm"] = changed(post(preset), steps)
        arms["recipe but cosine"] = changed(preset, steps, schedule="cosine")
        arms["recipe but float32"] = changed(preset, steps, precision="float32")
    return arms


def train_arms(arms: dict[str, RunConfig], train: str, test: str, seed: int) -> list[dict[str, Any]]:
    """All arms of one seed, some steps each in turn; then their scores."""
    from speak_neuro.training.evaluation import evaluate
    from speak_neuro.training.fit import train_step

    alphabet = Alphabet.learn(train)
    ids = alphabet.encode(train)
    trainers = {name: trainer_of(config, alphabet, ids, seed) for name, config in arms.items()}
    seconds = dict.fromkeys(arms, 0.0)
    worst = dict.fromkeys(arms, 0.0)
    while unfinished := [name for name, trainer in trainers.items() if trainer.step < arms[name].training.steps]:
        for name in unfinished:
            trainer, last = trainers[name], arms[name].training.steps
            for _ in range(min(TURN, last - trainer.step)):
                began = time.process_time()
                record = train_step(trainer)
                seconds[name] += time.process_time() - began
                if trainer.step > last // 2:  # a spike: a late loss far above the usual ones
                    worst[name] = max(worst[name], record["bpc"])
    runs = []
    for name, trainer in trainers.items():
        found = evaluate(trainer.system, alphabet.encode(test), arms[name].training.window)
        runs.append(
            {
                "arm": name,
                "seed": seed,
                "steps": trainer.step,
                "cpu_seconds": round(seconds[name], 2),
                "bpc": found.bpc,
                "token_dependence": found.token_dependence,
                "shortening_factor": found.shortening_factor,
                "worst_late_step_bpc": worst[name],
            }
        )
    return runs


def trainer_of(config: RunConfig, alphabet: Alphabet, ids: Any, seed: int) -> Trainer:
    """A run at step 0."""
    import torch

    from speak_neuro.systems.system import System
    from speak_neuro.training.trainer import Trainer

    config = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))
    torch.manual_seed(seed)
    return Trainer.create(System(config, len(alphabet), alphabet), config.training, ids, None)


def speed_ups(runs: Sequence[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """For each seed adam's seconds, the recipe's to the same BPC, and their ratio."""
    found = {}
    for seed in sorted({run["seed"] for run in runs}):
        own = [run for run in runs if run["seed"] == seed]
        adam = next(run for run in own if run["arm"] == "adam")
        recipe = sorted((r["cpu_seconds"], r["bpc"]) for r in own if r["arm"].startswith("recipe, "))
        taken = reached(recipe, adam["bpc"])
        if taken is None:
            raise SpeakError(
                f"seed {seed}: the recipe does not come to adam's BPC {adam['bpc']:.4f}; give more --steps"
            )
        found[seed] = {
            "bpc": adam["bpc"],
            "adam_seconds": adam["cpu_seconds"],
            "recipe_seconds": taken,
            "ratio": adam["cpu_seconds"] / taken,
        }
    return found


def reached(points: Sequence[tuple[float, float]], mark: float) -> float | None:
    """Seconds to come to `mark` along points (seconds, BPC) in the order of their seconds, straight in between.

    The first point's seconds where it is better already; None where no point is.
    """
    before: tuple[float, float] | None = None
    for seconds, bpc in points:
        if bpc <= mark:
            if before is None:
                return seconds
            share = (before[1] - mark) / (before[1] - bpc)
            return before[0] + share * (seconds - before[0])
        before = (seconds, bpc)
    return None


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """BPC against processor seconds, a point per run."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("the picture needs matplotlib: pip install 'speak-neuro[viz]'") from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault("recipe" if run["arm"].startswith("recipe, ") else run["arm"], []).append(run)
    for name, members in groups.items():
        axes.scatter([r["cpu_seconds"] for r in members], [r["bpc"] for r in members], s=18, label=name)
    axes.set_xlabel("processor seconds in training steps")
    axes.set_ylabel("test bits per character")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
