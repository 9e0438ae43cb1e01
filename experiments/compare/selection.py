"""What tables and pictures are made of: files of results, names for data, and which variant stands for SPEAK."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from records import Record, flat_config, load, nested_config, read_json
from settings import Setting, has, settings

from speak_neuro.errors import SpeakError

SHA_DIGITS = 8
"""Of a text's SHA-256: enough to tell texts apart."""


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The arguments of `select`."""
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="JSON files of results, run folders")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="DATA=NAME",
        help="another name for a data set, or for the text whose SHA-256 begins like this (8 digits)",
    )
    parser.add_argument(
        "--speak",
        action="append",
        default=[],
        metavar="KNOB=VALUE",
        help="SPEAK's runs that stand for it have this setting, e.g. training.acceptance=literal "
        "(default: those with the most seeds)",
    )
    parser.add_argument(
        "--step-times",
        type=Path,
        metavar="FILE",
        help="results of step_times.py: training time is steps x these, instead of what the runs' clocks said",
    )


def select(arguments: argparse.Namespace) -> list[Setting]:
    """The runs that the arguments name, grouped; what is left out is said on stderr."""
    records, unfinished = load(arguments.results)
    for line in unfinished:
        print(f"left out: {line}", file=sys.stderr)
    records = renamed(records, arguments.name)
    if arguments.step_times:
        records = timed(records, arguments.step_times)
    found = settings(records)
    choices = dict(item.partition("=")[::2] for item in arguments.speak)
    if choices and not any(has(variant, choices) for setting in found for variant in setting.of("speak")):
        raise SpeakError(f"--speak is {' '.join(arguments.speak)}, but no SPEAK run has that; see collect.py's knobs")
    for setting in found:
        setting.choices = choices
    return found


def renamed(records: Sequence[Record], names: Sequence[str]) -> list[Record]:
    """The records with data sets called as --name says: by their present name, or by the beginning of their SHA-256."""
    found = list(records)
    for item in names:
        old, equals, new = item.partition("=")
        if not equals or not old or not new:
            raise SpeakError(f"--name is {item!r}; allowed: DATA=NAME")
        chosen = [r.dataset == old or (len(old) >= SHA_DIGITS and (r.text or "").startswith(old)) for r in records]
        if not any(chosen):
            known = ", ".join(sorted({f"{r.dataset} ({(r.text or '')[:SHA_DIGITS]})" for r in records}))
            raise SpeakError(f"--name is {item!r}, but no run has data {old!r}; there are: {known}")
        found = [dataclasses.replace(r, dataset=new) if yes else r for r, yes in zip(found, chosen, strict=True)]
    return found


def timed(records: Sequence[Record], path: Path) -> list[Record]:
    """The records with times of step_times.py: those of the same system, model, batch and window; others none."""
    measured = read_json(path).get("metrics", {}).get("step_times")
    if not isinstance(measured, list) or not all(isinstance(one, dict) and "step_ms" in one for one in measured):
        raise SpeakError(f"{path}: no step times; name a --json file of step_times.py")
    configs = [flat_config(nested_config(one["config"])) for one in measured]
    times = {
        step_key(one["system"], config): one["step_ms"] / 1e3 for one, config in zip(measured, configs, strict=True)
    }
    found = []
    for record in records:
        seconds = times.get(step_key(record.system, record.config))
        curve = dict(record.curve)
        if curve:
            curve["seconds"] = [None if seconds is None else round(step * seconds, 3) for step in curve["step"]]
        found.append(dataclasses.replace(record, curve=curve))
    if not any(value for record in found for value in record.curve.get("seconds", [])):
        raise SpeakError(f"{path}: times none of these runs' systems at their sizes; measure runs of this comparison")
    return found


def step_key(system: str, config: dict[str, Any]) -> tuple[str, ...]:
    """What a step's time depends on, but for the number of tokens and most choices of training."""
    names = ["training.batch", "training.window", *(["training.acceptance_share"] if system == "speak" else [])]
    sizes = {k: v for k, v in config.items() if k.startswith("model.") or k in names}
    return system, repr(sorted(sizes.items()))
