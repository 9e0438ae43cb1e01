"""How long the language model trains until it is as good as before: the presets' recipe against DTP's Adam.

    python experiments/bench/time_to_quality.py --data FOLDER --json FILE --picture FILE
    python experiments/bench/time_to_quality.py --data FOLDER --mark 2.04 --arms adam quarter --steps 2000 --json FILE
    python experiments/bench/time_to_quality.py --data FOLDER --systems speak magnet --arms adam-bf16 recipe --json FILE

Every arm of a system trains the same model on the same windows with a schedule of its own length, and is scored on
held-out text. An arm is one of

    adam                      post-norm layers, one Adam at the preset's former rate, cosine, float32: --steps steps
    adam-bf16                 the same in bfloat16 where the device has it
    quarter, half, recipe     the preset as it is: a quarter, half and all of the steps
    but-adam, but-post, ...   all of the steps with one part of the recipe put back

Within a system and seed the arms take turns, each a twentieth of its steps, and what counts is processor time inside
steps, so that what else the machine does touches all alike. The speed-up is the time of `adam` over the time in which
the recipe comes to the same bits per character, between its lengths around that; where the shortest is better already,
at least that. With --mark each arm is also scored after every turn of its second half, ends when it is as good as the
mark, and its time is that of the mark, straight between two scores; an arm `adam` that ends above sets the mark itself.

Boundaries that training draws (dtp-gumbel, magnet) are scored as the likelier ones, and under "drawn" as it draws them.
The JSON is written after every system and seed; with --resume those that it has are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from time_to_quality_arms import ARMS, Text, build_arms, draw, parse_system, read, speed_up

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.device import describe_device
from speak_neuro.common.files import check_writable
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.training.presets import PRESETS

if TYPE_CHECKING:
    from speak_neuro.config import RunConfig
    from speak_neuro.training.trainer import Trainer

TURNS = 20
"""In which every arm goes its way."""
SETTINGS = ("preset", "arms", "steps", "mark", "threads", "characters")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="time_to_quality.py", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="folder with train.txt and test.txt (default: the embedded text)")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="compare-cpu", help="model and settings")
    parser.add_argument(
        "--systems",
        nargs="+",
        type=parse_system,
        default=["whitespace"],
        metavar="NAME",
        help="what cuts the text; NAME-started begins as dtp-unigram (default: whitespace)",
    )
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=ARMS,
        default=["adam", "quarter", "half", "recipe"],
        help="what is compared (default: adam quarter half recipe)",
    )
    parser.add_argument("--steps", type=int, default=300, help="steps of the longest arms (default 300)")
    parser.add_argument("--mark", type=float, metavar="BPC", help="stop each arm where it is as good")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="seeds (default 1 2 3)")
    parser.add_argument("--characters", type=int, default=60_000, help="test characters that are scored")
    parser.add_argument("--threads", type=int, default=1, help="threads (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--resume", action="store_true", help="keep the systems and seeds that --json has")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw BPC against seconds there")
    return run_command(parser, measure, argv)


def measure(arguments: argparse.Namespace) -> int:
    """Train all arms of all systems and seeds that are not there, report, and write what was asked for."""
    import torch

    at_least(arguments, TURNS, "steps")
    at_least(arguments, 2, "characters")
    at_least(arguments, 1, "threads")
    check_writable(arguments.picture)
    torch.set_num_threads(arguments.threads)
    text = read(arguments.data, arguments.characters)
    metrics = begin(arguments, text)
    runs = metrics["runs"]
    for seed in arguments.seeds:
        for system in arguments.systems:
            if any((run["system"], run["seed"]) == (system, seed) for run in runs):
                continue
            arms = build_arms(PRESETS[arguments.preset], arguments.preset, system, arguments.steps, arguments.arms)
            for run in train_arms(arms, text, seed, arguments.mark):
                runs.append({"system": system, **run})
                print(
                    f"seed {seed} {system:20} {run['arm']:10} {run['steps']:5} steps {run['cpu_seconds']:8.1f} s  "
                    f"bpc {run['bpc']:.4f}  sf {run['shortening_factor']:.2f}  "
                    f"token dependence {run['token_dependence']:.3f}",
                    flush=True,
                )
            finish(arguments, metrics)
    for row in metrics["speed_up"]:
        told = f"seed {row['seed']} {row['system']:20} bpc {row['bpc']:.4f}: adam in {row['adam_seconds']:.1f} s, "
        if row["ratio"] is None:
            print(f"{told}the recipe not; give more --steps")
        else:
            print(f"{told}the recipe in {row['recipe_seconds']:.1f} s: {row['ratio']:.1f} times as fast")
    if arguments.picture is not None:
        draw(runs, arguments.picture)
    return 0


def begin(arguments: argparse.Namespace, text: Text) -> dict[str, Any]:
    """The metrics to go on from: empty, or with --resume those of --json, of the same settings and text."""
    metrics = {name: getattr(arguments, name) for name in SETTINGS}
    metrics |= {"text_sha256": text.sha256, "runs": [], "speed_up": []}
    if not (arguments.resume and arguments.json is not None and arguments.json.exists()):
        return metrics
    found = json.loads(arguments.json.read_text(encoding="utf-8")).get("metrics", {})
    for name in (*SETTINGS, "text_sha256"):
        if found.get(name) != metrics[name]:
            raise SpeakError(
                f"{arguments.json}: has {name} {found.get(name)}, not {metrics[name]}; leave --resume away"
            )
    return found  # type: ignore[no-any-return]


def finish(arguments: argparse.Namespace, metrics: dict[str, Any]) -> None:
    """Work the speed-ups out and write the JSON."""
    import torch

    metrics["speed_up"] = []
    for system, seed in dict.fromkeys((run["system"], run["seed"]) for run in metrics["runs"]):
        own = [run for run in metrics["runs"] if (run["system"], run["seed"]) == (system, seed)]
        if (found := speed_up(own, arguments.mark)) is not None:
            metrics["speed_up"].append({"system": system, "seed": seed, **found})
    write_result(arguments, metrics, describe_device(torch.device("cpu")))


def train_arms(arms: dict[str, RunConfig], text: Text, seed: int, mark: float | None) -> list[dict[str, Any]]:
    """All arms of one system and seed, some steps each in turn, and their scores."""
    running = {name: Arm(name, trainer_of(config, text, seed), text) for name, config in arms.items()}
    for turn in range(1, TURNS + 1):
        for arm in running.values():
            if arm.reached(mark):
                continue
            arm.train(turn)
            if turn == TURNS or (mark is not None and 2 * turn > TURNS):
                arm.score()
    return [{"arm": name, "seed": seed, **arm.record()} for name, arm in running.items()]


class Arm:
    """One arm's run, its time inside steps, and its scores on the way."""

    def __init__(self, name: str, trainer: Trainer, text: Text) -> None:
        self.name, self.trainer, self.text = name, trainer, text
        self.seconds = 0.0
        self.losses: list[float] = []
        self.curve: list[tuple[float, float]] = []
        self.found: Any = None

    def train(self, turn: int) -> None:
        """The steps up to the end of a turn."""
        from speak_neuro.training.fit import train_step

        last = self.trainer.config.steps * turn // TURNS
        began = time.process_time()
        while self.trainer.step < last:
            self.losses.append(train_step(self.trainer)["bpc"])
        self.seconds += time.process_time() - began

    def score(self) -> None:
        """Score the test text."""
        self.found = self.evaluate()
        self.curve.append((round(self.seconds, 2), self.found.bpc))

    def evaluate(self) -> Any:
        """What the test text says."""
        from speak_neuro.training.evaluation import evaluate

        config = self.trainer.config
        return evaluate(self.trainer.system, self.text.test_ids, config.window, precision=config.precision)

    def reached(self, mark: float | None) -> bool:
        return mark is not None and bool(self.curve) and self.curve[-1][1] <= mark

    def record(self) -> dict[str, Any]:
        """What is written."""
        half = len(self.losses) // 2
        record = {
            "steps": self.trainer.step,
            "cpu_seconds": round(self.seconds, 2),
            **scores(self.found),
            "curve": self.curve,
            "worst_late_step_bpc": max(self.losses[half:]),  # a spike: a late loss far above the usual ones
        }
        system = self.trainer.system
        if not system.is_speak and system.segmenter.samples:
            segmenter: Any = system.segmenter
            segmenter.sampled = not segmenter.sampled
            record["drawn" if segmenter.sampled else "likelier"] = scores(self.evaluate())
            segmenter.sampled = not segmenter.sampled
        return record


def scores(found: Any) -> dict[str, float]:
    """Of an evaluation, what is written."""
    return {name: getattr(found, name) for name in ("bpc", "token_dependence", "shortening_factor")}


def trainer_of(config: RunConfig, text: Text, seed: int) -> Trainer:
    """A run at step 0."""
    import torch

    from speak_neuro.systems.system import System
    from speak_neuro.training.trainer import Trainer

    config = config.change(training={"seed": seed})
    torch.manual_seed(seed)
    system = System(config, len(text.alphabet), text.alphabet)
    return Trainer.create(system, config.training, text.ids, text.proxy(config))


if __name__ == "__main__":
    sys.exit(main())
