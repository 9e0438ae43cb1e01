"""speak-train: train SPEAK, or a tokenizer it is compared with, together with a character language model.

speak-train                                     preset smoke on the embedded text
speak-train --data my.txt --out runs/mine       any UTF-8 file, or folder of .txt, in any language
speak-train --data texts/                       a folder with train.txt, valid.txt and test.txt as they are
speak-train --out runs/mine --resume            go on where the run stopped, on its own text
speak-train --tokenizer dtp-gumbel              another system, on the same model, data and schedule

`python experiments/gtok.py` in a checkout is the same command; torchrun starts it by several processes
(docs/scaling.md). `speak_neuro.train` is the same from Python.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.command import run_command
from speak_neuro.common.settings import add_flags
from speak_neuro.config import RunConfig
from speak_neuro.training.checks import add_data_flags, add_run_flags
from speak_neuro.training.launch import end_as_one, speak_once
from speak_neuro.training.presets import PRESETS

LOGS = ("tensorboard", "wandb")
Parser = argparse.ArgumentParser
MAIN_FLAGS = (
    "help help_all preset data dataset out resume overwrite device json quiet log "
    "tokenizer.kind tokenizer.encoder training.steps training.batch training.seed"
).split()
"""Destinations of the flags that --help shows; --help-all shows all."""


def build_parser(prog: str = "speak-train", everything: bool = True) -> argparse.ArgumentParser:
    """The command line; its help shows every flag, or those that matter first."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=None if everything else "%(prog)s [--data TEXT] [--out RUN] [flags]",
        description="Train a tokenizer, SPEAK's or another's, together with an Hourglass language model.",
        epilog="Flags of neuron, tokenizer, model and training override the preset. Ctrl-C ends the step, saves, and "
        "--resume goes on from there.",
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument("--help-all", action=HelpAll, nargs=0, help="show every flag and exit")
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), help="settings to start from (default: smoke); a resumed run has its own"
    )
    parser.add_argument("--faithful", action="store_true", help="the letter of the paper; flags still override it")
    add_data_flags(parser)
    parser.add_argument("--out", type=Path, help="run folder (default: runs/PRESET)")
    parser.add_argument(
        "--start-from", type=Path, metavar="FOLDER", help="weights of another run of the same system and model"
    )
    add_run_flags(parser)
    parser.add_argument("--log", choices=LOGS, help="also send the numbers of metrics.jsonl to this tracker")
    add_flags(parser, RunConfig)
    if not everything:
        for action in parser._actions:
            if action.dest not in MAIN_FLAGS:
                action.help = argparse.SUPPRESS
        for group in parser._action_groups:
            group.description = None
    return parser


class HelpAll(argparse.Action):
    """`--help-all`: the help of the whole parser."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        build_parser(parser.prog).print_help()
        parser.exit()


def main(argv: Sequence[str] | None = None, prog: str = "speak-train") -> int:
    """Entry point."""
    return run_command(speak_once(build_parser(prog, everything=False)), end_as_one(train), argv)


def train(arguments: argparse.Namespace) -> int:
    """Train, evaluate on the test text, and leave a run folder; with the other processes that a launcher started."""
    from speak_neuro.training.distributed import joined
    from speak_neuro.training.run import train_run

    with joined(arguments.device) as (ranks, device):
        return train_run(arguments, arguments.out or Path("runs") / (arguments.preset or "smoke"), ranks, device)


if __name__ == "__main__":
    sys.exit(main())
