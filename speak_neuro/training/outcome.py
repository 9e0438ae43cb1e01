"""What a run leaves: its test score, results.json, curves, and what is said at its end."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from speak_neuro.common.device import describe_device
from speak_neuro.common.files import write_json
from speak_neuro.common.provenance import result_record
from speak_neuro.common.settings import to_dict
from speak_neuro.config import RunConfig
from speak_neuro.errors import MissingExtra
from speak_neuro.systems.system import System
from speak_neuro.training.evaluation import Evaluation, evaluate
from speak_neuro.training.launch import command_of
from speak_neuro.training.metrics_log import read_metrics
from speak_neuro.training.plots import plot_metrics
from speak_neuro.training.run_data import Data
from speak_neuro.training.trainer import Trainer
from speak_neuro.training.words import advice, boundaries_of, in_colour, sample, summary, white_space_f1


def finish(arguments: argparse.Namespace, folder: Path, trainer: Trainer, data: Data, device: torch.device) -> None:
    """Score the finished run on the test text, write results.json and the curves, and say it."""
    system, config, ranks = trainer.system, trainer.system.config, trainer.ranks
    found = evaluate(system, data.test, config.training.window, data.test_exemplar, ranks=ranks)
    metrics: dict[str, Any] = {
        **{f"test_{name}": value for name, value in asdict(found).items()},
        "parameters_language_model": count(system.language_model),
        "parameters_tokenizer": count(system.boundary_module),
        "training_seconds": round(trainer.seconds, 3),
        "training_characters": trainer.step * config.training.batch * config.training.window,
        "processes": ranks.world,
        "data": data.record,
        "config": to_dict(config),
    }
    if not config.is_speak and system.segmenter.samples:  # the other way to evaluate them, as DTP does, beside ours
        segmenter: Any = system.segmenter
        segmenter.sampled = not segmenter.sampled
        other = evaluate(system, data.test, config.training.window, ranks=ranks)
        name = "sampled" if segmenter.sampled else "likeliest"
        metrics[f"test_{name}_boundaries"] = {"bpc": other.bpc, "shortening_factor": other.shortening_factor}
    if not ranks.first:
        return
    record = result_record(command_of(arguments), metrics, describe_device(device))
    write_json(folder / "results.json", record)
    if arguments.json:
        write_json(arguments.json, record)
    draw(folder)
    unknown = f", {found.unknown_characters:,} characters unknown to the alphabet" if found.unknown_characters else ""
    if system.is_speak:
        show(system, config, data, found)
    told = in_a_line(system, data, asdict(found))
    print(f"test {told} ({found.characters:,} characters, {found.tokens:,} tokens{unknown})\nrun folder {folder}")


def in_a_line(system: System, data: Data, values: dict[str, Any]) -> str:
    """An evaluation's numbers, those that the system has."""
    return summary(
        values["bpc"],
        values["shortening_factor"],
        values["token_dependence"] if system.language_model.config.shortened_layers else None,
        values["gate_rate"] if system.is_speak else None,
        None if data.exemplar is None else values["boundary_f1"],
    )


def undecided(config: RunConfig, steps_per_epoch: int) -> str:
    """A line for a run too short for SPEAK's acceptance, which decides on windows whose text was read before."""
    training = config.training
    if not config.is_speak or training.acceptance == "never":
        return ""
    if training.drive != "proxy":
        return ""
    first = max(training.proxy_steps, steps_per_epoch)
    if training.steps > first:
        return ""
    return f"{training.steps} steps: --acceptance {training.acceptance} decides nothing before step {first}"


def show(system: System, config: RunConfig, data: Data, found: Evaluation) -> None:
    """A few lines of the test text cut into tokens, and what is wrong with the tokenizer, if anything is."""
    fired, hard = boundaries_of(system, data.test, config.training.window)
    ids = data.test[: len(fired)]
    for line in sample(data.alphabet, ids, fired, hard, in_colour(sys.stdout)):
        print(f"  {line}")
    spaces = white_space_f1(data.alphabet.decode_lossy(ids), fired)
    for line in advice(config, found.shortening_factor, found.gate_rate, spaces):
        print(f"warning: {line}", file=sys.stderr)


def draw(folder: Path) -> None:
    """Curves of the run; without matplotlib one line says how to get them."""
    try:
        plot_metrics(read_metrics(folder), folder / "curves.png", str(folder))
    except MissingExtra as error:
        print(f"no curves.png: {error}", file=sys.stderr)


def count(module: Any) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())
