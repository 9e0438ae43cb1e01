"""What a training run's settings may not be, and which of the given ones make no difference."""

from __future__ import annotations

import argparse
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speak_neuro.common.files import check_writable
from speak_neuro.config import SYSTEMS, RunConfig, parse_priors
from speak_neuro.corpus.named_sets import NAMED
from speak_neuro.errors import SpeakError
from speak_neuro.training.run_lock import contents

if TYPE_CHECKING:  # the command's --help does not wait for torch
    from speak_neuro.text.alphabet import Alphabet

# Not read again after a run has begun, so that a change would only make config.json wrong; or part of what is saved.
FIXED_AT_START = ("exemplar_vocabulary", "seed", "drive", "target_sf", "optimiser")


def check_same_system(folder: Path, old: RunConfig, new: RunConfig) -> None:
    """Refuse a resume as something else: how a run is trained may change on the way, what is trained may not."""
    for section in ("neuron", "tokenizer", "model", "training"):
        part, changed = getattr(old, section), getattr(new, section)
        for item in fields(part):
            if section == "training" and item.name not in FIXED_AT_START:
                continue
            value, given = getattr(part, item.name), getattr(changed, item.name)
            if given != value:
                raise SpeakError(
                    f"{folder}: {flag_of(item)} is {given} and was {value}; leave it away to resume the run"
                )
    if new.needs_exemplar and not old.needs_exemplar:
        steps = new.training.exemplar_steps
        raise SpeakError(f"{folder}: --exemplar-steps is {steps} and was 0; leave it away to resume the run")


def flag_of(item: Field[Any]) -> str:
    """The command line's name of a setting."""
    return item.metadata["flag"] or "--" + item.name.replace("_", "-")


def check_settings(config: RunConfig) -> None:
    """Refuse a system that could not end a single token, or hold no rate."""
    check_target(config)
    if why := SYSTEMS.load(config.tokenizer.kind).check(config):
        raise SpeakError(why)


def check_target(config: RunConfig) -> None:
    """Refuse a target shortening factor that is none, or that nothing would hold."""
    training, target = config.training, config.training.target_sf
    if target and not 1 < target <= training.window:
        raise SpeakError(
            f"--target-sf is {target}; allowed: 0 for none, or above 1 and up to --window {training.window}"
        )


def unread(arguments: argparse.Namespace, config: RunConfig, alphabet: Alphabet) -> list[str]:
    """What was asked for and makes no difference, in words."""
    notes, kind = [], config.tokenizer.kind
    for section in fields(config):
        for item in fields(getattr(config, section.name)):
            if getattr(arguments, f"{section.name}.{item.name}", None) is None:
                continue
            readers = ("speak",) if section.name == "neuron" else item.metadata["systems"]
            if readers and kind not in readers:
                notes.append(
                    f"{flag_of(item)} is a setting of {' and '.join(readers)}; --tokenizer {kind} does not read it"
                )
    if kind == "magnet":
        from speak_neuro.systems.scripts import script_of

        scripts = {script_of(character) for character in alphabet.characters}
        for script in parse_priors(config.tokenizer.script_priors):
            if script not in scripts:
                notes.append(f"--script-priors names {script}, of which the training part has no letter")
    return notes


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which text."""
    parser.add_argument(
        "--data",
        type=Path,
        help="UTF-8 text, folder of .txt files (both cut 90/5/5), or folder with train.txt, valid.txt and test.txt "
        "(default: the embedded text; with --resume the run's own)",
    )
    parser.add_argument("--dataset", help=f"a data set by name, instead of --data: {', '.join(sorted(NAMED))}")
    parser.add_argument(
        "--dataset-files",
        type=Path,
        metavar="PATH",
        help="local files of the data set in the hub's shape, where there is no network",
    )
    parser.add_argument(
        "--dtp-hebrew-digits",
        action="store_true",
        help="Hebrew points become spaces, which breaks spelled digits up, as in Dynamic Token Pooling's data",
    )
    parser.add_argument(
        "--cache", type=Path, help="folder for prepared texts, which runs share (default: cache, beside the run folder)"
    )
    parser.add_argument(
        "--exemplar", type=Path, metavar="FILE", help="exemplar.json of another run, instead of learning one"
    )
    parser.add_argument("--stream", action="store_true", help="memory-map the text however small it is")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """How a run is made, whatever is trained."""
    parser.add_argument(
        "--resume",
        nargs="?",
        const="last",
        choices=("last", "auto"),
        help="go on from the last checkpoint, with the run's own settings; auto: from the newest that is whole",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing run folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--stop-after", type=int, metavar="STEP", help="stop (with a checkpoint) at this step")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse to write over another run unasked, or over anything that is no run."""
    if resume and overwrite:
        raise SpeakError("--resume and --overwrite exclude each other; give one")
    occupied = folder.exists() and (not folder.is_dir() or bool(contents(folder)))
    if occupied and not (folder / "config.json").is_file():
        raise SpeakError(f"{folder}: exists and is not a run folder; choose another --out")
    if occupied and not resume and not overwrite:
        raise SpeakError(f"{folder}: holds a run; go on with --resume, replace it with --overwrite, or change --out")
    if resume and not occupied:
        raise SpeakError(f"{folder}: holds no run to resume; leave --resume away to begin one")
    check_writable(folder / "config.json")
