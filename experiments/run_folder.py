"""What the training commands share: the flags of a run and its folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from speak_neuro.command import check_writable
from speak_neuro.errors import SpeakError


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """How a run is made, whatever is trained."""
    parser.add_argument("--overwrite", action="store_true", help="replace an existing run folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--stop-after", type=int, metavar="STEP", help="stop (with a checkpoint) at this step")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse to write over another run unasked, or over anything that is no run."""
    if resume and overwrite:
        raise SpeakError("--resume and --overwrite exclude each other; give one")
    occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if occupied and not (folder / "config.json").is_file():
        raise SpeakError(f"{folder}: exists and is not a run folder; choose another --out")
    if occupied and not resume and not overwrite:
        raise SpeakError(f"{folder}: holds a run; go on with --resume, replace it with --overwrite, or change --out")
    if resume and not occupied:
        raise SpeakError(f"{folder}: holds no run to resume; leave --resume away to begin one")
    check_writable(folder / "config.json")
