"""What tables and pictures are made of: files of results, names for data, and which variant stands for SPEAK."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from groups import Setting, has, settings
from records import Record, load

from speak_neuro.errors import SpeakError


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The arguments of `select`."""
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="JSON files of results, run folders")
    parser.add_argument("--name", action="append", default=[], metavar="DATA=NAME", help="another name for a data set")
    parser.add_argument(
        "--speak",
        action="append",
        default=[],
        metavar="KNOB=VALUE",
        help="SPEAK's runs that stand for it have this setting, e.g. training.acceptance=literal "
        "(default: those with the most seeds)",
    )


def select(arguments: argparse.Namespace) -> list[Setting]:
    """The runs that the arguments name, grouped; what is left out is said on stderr."""
    records, unfinished = load(arguments.results)
    for line in unfinished:
        print(f"left out: {line}", file=sys.stderr)
    found = settings(renamed(records, arguments.name))
    choices = dict(item.partition("=")[::2] for item in arguments.speak)
    if choices and not any(has(variant, choices) for setting in found for variant in setting.of("speak")):
        raise SpeakError(f"--speak is {' '.join(arguments.speak)}, but no SPEAK run has that; see collect.py's knobs")
    for setting in found:
        setting.choices = choices
    return found


def renamed(records: Sequence[Record], names: Sequence[str]) -> list[Record]:
    """The records with data sets called as --name says."""
    chosen: dict[str, str] = {}
    for item in names:
        old, equals, new = item.partition("=")
        if not equals or not new:
            raise SpeakError(f"--name is {item!r}; allowed: DATA=NAME")
        if old not in {record.dataset for record in records}:
            known = ", ".join(sorted({record.dataset for record in records}))
            raise SpeakError(f"--name is {item!r}, but no run has data {old!r}; there are: {known}")
        chosen[old] = new
    return [dataclasses.replace(record, dataset=chosen.get(record.dataset, record.dataset)) for record in records]
