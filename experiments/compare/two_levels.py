"""A second level, tried: hard resets end words, soft ones pieces, in an Hourglass of two levels.

    python experiments/compare/two_levels.py --data texts/combined/fi --json FILE

Arms, of the same sizes, windows and seeds, each alone from weights of its own, all at --target-sf characters a piece:

    gated     two levels, the gate says which pieces end a word
    other     two levels, every other piece ends a word: the control, words that mean nothing
    hard      two levels, always a hard reset: every piece is a word
    one       one level, gated: SPEAK as it is

The JSON is written after every run; with --resume the runs that it has are left out. Differences are paired by seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.json_files import read_measurement
from speak_neuro.common.provenance import write_result
from speak_neuro.common.seeds import compare, p_value, text_error
from speak_neuro.errors import SpeakError
from speak_neuro.training.presets import PRESETS

if TYPE_CHECKING:
    from speak_neuro.config import RunConfig

ARMS = ("gated", "other", "hard", "one")
SETTINGS = ("preset", "steps", "characters", "target_sf", "entropy_share")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="two_levels.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train.txt, valid.txt and test.txt")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="compare-cpu", help="model and settings")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help="(default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="(default: 1 2 3)")
    parser.add_argument("--steps", type=int, default=250, help="(default: 250)")
    parser.add_argument("--characters", type=int, default=40_000, help="of test text (default: 40000)")
    parser.add_argument("--target-sf", type=float, default=4.0, help="characters a piece (default: 4)")
    parser.add_argument("--entropy-share", type=float, default=0.5, help="of pieces that end a word (default: 0.5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--resume", action="store_true", help="keep the runs that --json has")
    return run_command(parser, experiment, argv)


def experiment(arguments: argparse.Namespace) -> int:
    """Train what is not there, write after each run, and compare."""
    import torch

    from speak_neuro.corpus.splits import read_splits

    at_least(arguments, 2, "steps", "characters")
    torch.set_num_threads(1)
    texts = tuple(read_splits(arguments.data))
    metrics: dict[str, Any] = {name: getattr(arguments, name) for name in SETTINGS} | {"runs": []}
    if arguments.resume and arguments.json is not None and arguments.json.exists():
        metrics = read_measurement(arguments.json, "leave --resume away", *SETTINGS, "runs")
        if any(metrics[name] != getattr(arguments, name) for name in SETTINGS):
            raise SpeakError(f"{arguments.json}: has other settings; leave --resume away")
    for seed in arguments.seeds:
        for arm in arguments.arms:
            if any((run["arm"], run["seed"]) == (arm, seed) for run in metrics["runs"]):
                continue
            run = {"arm": arm, "seed": seed, **train(configured(arguments, arm, seed), arm, texts, arguments)}
            metrics["runs"].append(run)
            write_result(arguments, metrics)
            print(
                f"seed {seed} {arm:6} bpc {run['bpc']:.4f}  sf {run['sf']:.3f}  hard {run['hard']:.1%}  "
                f"token dependence {run['token_dependence']:.3f}",
                flush=True,
            )
    report(metrics["runs"])
    return 0


def configured(arguments: argparse.Namespace, arm: str, seed: int) -> RunConfig:
    """The preset with the information drive, as the comparison at equal tokens has it."""
    preset = PRESETS[arguments.preset]
    mode = "hard" if arm == "hard" else "gated"
    return preset.change(
        neuron={"decay": 1.0, "reset_scale": 1.0, "reset_mode": mode},
        training={
            "steps": arguments.steps,
            "warmup": min(preset.training.warmup, arguments.steps // 4),
            "seed": seed,
            "drive": "information",
            "target_sf": arguments.target_sf,
            "entropy_share": arguments.entropy_share,
            "tokenizer_learning_rate": 2e-3,
        },
    )


def train(config: RunConfig, arm: str, texts: Sequence[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """One run and its test scores."""
    import torch
    from two_levels_model import two_levels

    from speak_neuro.systems.system import System
    from speak_neuro.text.alphabet import Alphabet
    from speak_neuro.training.evaluation import evaluate
    from speak_neuro.training.fit import CALIBRATION_CHARACTERS, train_step
    from speak_neuro.training.rate import at_target
    from speak_neuro.training.trainer import Trainer

    alphabet = Alphabet.learn(texts[0])
    ids, valid, test = (alphabet.encode(text) for text in texts)
    torch.manual_seed(config.training.seed)
    if arm == "one":
        system = System(config, len(alphabet), alphabet)
    else:
        system = two_levels(config, len(alphabet), alphabet, by_gate=arm != "other")
    trainer = Trainer.create(system, config.training, ids, None)
    while trainer.step < config.training.steps:
        train_step(trainer)
    window = config.training.window
    with at_target(system, valid[:CALIBRATION_CHARACTERS], window, keep=True):
        found = evaluate(system, test[: arguments.characters], window, precision=config.training.precision)
    return {
        "bpc": found.bpc,
        "sf": found.shortening_factor,
        "hard": found.gate_rate,
        "token_dependence": found.token_dependence,
        "block_bpc": found.block_bpc,
    }


def report(runs: Sequence[dict[str, Any]]) -> None:
    """`gated` against each other arm."""
    bpc: dict[str, dict[int, float]] = {}
    blocks: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        bpc.setdefault(run["arm"], {})[run["seed"]] = run["bpc"]
        blocks.setdefault(run["arm"], {})[run["seed"]] = run["block_bpc"]
    for arm in bpc:
        if arm != "gated" and "gated" in bpc:
            found, error = compare(bpc["gated"], bpc[arm]), text_error(blocks["gated"], blocks[arm])
            difference = "" if found.difference is None else f"{found.difference:+.4f} "
            text = "" if error is None else f"(text {error:.4f})"
            print(f"gated against {arm}: {difference}{100 * found.relative:+.2f} % {text}, p {p_value(found)}")


if __name__ == "__main__":
    sys.exit(main())
