"""What is asked of a run of rtok.py: its flags, checked before anything is read, and against the run it resumes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speak_neuro.common.command import at_least
from speak_neuro.common.settings import from_dict, override, to_dict
from speak_neuro.common.tensors import tensors_digest
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.config import DEFAULTS, RTokConfig, ahead
from speak_neuro.rtok.tasks.task import TASKS, Split, Task
from speak_neuro.rtok.tokenizers.baselines import check_embedder, check_name
from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer
from speak_neuro.systems.run_folder import read_run


@dataclass(frozen=True)
class Request:
    """What was asked for, checked."""

    task: Task
    tokenizer: str
    config: RTokConfig
    train: Split
    select: Split
    scored: Sequence[Split]
    source: str
    settings: dict[str, Any]
    """What a resumed run has to share with its beginning."""


def request_of(arguments: argparse.Namespace) -> Request:
    """The flags, checked before anything is read."""
    task, name = TASKS[arguments.task], check_name(arguments.tokenizer)
    check_embedder(arguments.embedder)
    for flag in ("mimic", "start_from"):
        if getattr(arguments, flag) and name != "speak":
            given = f"--{flag.replace('_', '-')} is given with --tokenizer {name}"
            raise SpeakError(f"{given}; allowed: speak, the others do not learn")
    begin = ahead(DEFAULTS[task.name]) if arguments.ahead else DEFAULTS[task.name]
    if arguments.start_from is not None:
        begin = like(arguments.start_from, begin)
    config: RTokConfig = override(begin, arguments)
    at_least(arguments, 1, "stop_after")
    train = Split.parse(arguments.train) if arguments.train else task.train
    select = Split.parse(arguments.select) if arguments.select else task.select
    settings = {
        "task": task.name,
        "tokenizer": name,
        "model": arguments.model,
        "embedder": arguments.embedder,
        "train": str(train),
        "select": str(select),
        "mimic": list(arguments.mimic),
        "start_from": start_record(arguments.start_from),
        "config": to_dict(config),
    }
    scored = list(map(Split.parse, arguments.evaluate)) if arguments.evaluate else list(task.evaluate)
    return Request(task, name, config, train, select, scored, arguments.data or task.hub, settings)


def like(folder: Path, config: RTokConfig) -> RTokConfig:
    """`config` with the neuron and the encoder of the RTok tokenizer in a folder."""
    run = read_run(folder)
    encoder = run.config.tokenizer
    speak = replace(
        config.speak,
        encoder=encoder.encoder,
        context=encoder.context,
        encoder_width=encoder.encoder_width,
        tanh=encoder.tanh,
        look_ahead=run.record.get("look_ahead", 0),
        neuron_loss=run.config.training.neuron_loss,
    )
    return replace(config, neuron=run.config.neuron, speak=speak)


def start_record(folder: Path | None) -> str:
    """What a resume has to share of the tokenizer that a run starts from: its weights' digest."""
    if folder is None:
        return ""
    return tensors_digest(CharacterTokenizer.load(folder).state_dict())


def completed(settings: dict[str, Any]) -> dict[str, Any]:
    """A run's settings with those that came after it, as it did without them."""
    config = to_dict(from_dict(RTokConfig, settings["config"], "settings.config"))
    return {"start_from": "", **settings, "config": config}


def check_same(folder: Path, old: dict[str, Any], new: dict[str, Any], above: str = "") -> None:
    """Refuse a resume with other settings."""
    for name, value in old.items():
        if isinstance(value, dict) and isinstance(new.get(name), dict):
            check_same(folder, value, new[name], f"{above}{name}.")
        elif new.get(name) != value:
            raise SpeakError(
                f"{folder}: {above}{name} is {new.get(name)!r} and was {value!r}; give the run's own flags"
            )
