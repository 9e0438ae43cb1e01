"""The run folder: what training leaves and everything else reads. JSON and safetensors, never pickle.

    config.json          schema version, every setting, alphabet, data, package versions, commit, device
    exemplar.json        the exemplar tokenizer that started the proxy
    model.safetensors    weights of language model, tokenizer and loss mixes
    state.safetensors    the same, with optimiser, random state and proxy spikes: enough to go on bit for bit
    metrics.jsonl        one line per step, and per evaluation

Each file is replaced in one rename, so a full disk or a kill leaves the previous one whole.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from speak_neuro.common.files import write_json
from speak_neuro.common.settings import from_dict, to_dict
from speak_neuro.common.tensors import apply_tensors, read_tensors, write_tensors
from speak_neuro.config import SCHEMA_VERSION, RunConfig
from speak_neuro.errors import SpeakError
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet

CONFIG, MODEL, STATE, METRICS, EXEMPLAR = (
    "config.json",
    "model.safetensors",
    "state.safetensors",
    "metrics.jsonl",
    "exemplar.json",
)


@dataclass(frozen=True)
class Run:
    """A run folder's description, read and checked."""

    folder: Path
    config: RunConfig
    alphabet: Alphabet
    record: dict[str, Any]
    """The rest of config.json: data, versions, commit, device."""


def write_config(folder: Path, config: RunConfig, alphabet: Alphabet, record: dict[str, Any]) -> None:
    """Write config.json."""
    write_json(
        folder / CONFIG,
        {"schema": SCHEMA_VERSION, "config": to_dict(config), "alphabet": alphabet.to_json(), **record},
    )


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read config.json of a run folder."""
    path = Path(folder) / CONFIG
    if not Path(folder).is_dir():
        raise SpeakError(f"{folder}: no such run folder; train one with python experiments/gtok.py --out {folder}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpeakError(
            f"{folder}: holds no {CONFIG}, so it is not a run folder; name a training run's --out"
        ) from None
    except ValueError as error:
        raise SpeakError(f"{path}: not valid JSON ({error}); restore it or train again") from None
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA_VERSION:
        raise SpeakError(
            f"{path}: schema is {schema!r}, this version reads {SCHEMA_VERSION}; use the speak_neuro that wrote it"
        )
    config = from_dict(RunConfig, values.get("config"), f"{path}: config")
    try:
        alphabet = Alphabet.from_json(values.get("alphabet"))
    except (ValueError, AttributeError) as error:
        raise SpeakError(f"{path}: alphabet: {error}") from None
    record = {key: value for key, value in values.items() if key not in ("schema", "config", "alphabet")}
    return Run(Path(folder), config, alphabet, record)


def save_model(folder: Path, system: System) -> None:
    """Write model.safetensors."""
    write_tensors(folder / MODEL, system.state_dict(), {})


def start_from(system: System, folder: Path, alphabet: Alphabet) -> None:
    """Give a new run the weights of another run of the same system, model and alphabet."""
    run, config = read_run(folder), system.config
    if run.alphabet != alphabet:
        raise SpeakError(f"{folder}: has another alphabet than this run's text; start from a run on the same text")
    for section in ("neuron", "tokenizer", "model"):
        theirs, ours = to_dict(getattr(run.config, section)), to_dict(getattr(config, section))
        for name, value in theirs.items():
            if ours[name] != value and name != "reset_mode":  # which no weight knows of
                raise SpeakError(
                    f"{folder}: its {section}.{name} is {value}, this run's {ours[name]}; start from its like"
                )
    tensors, _ = read_tensors(folder / MODEL)
    apply_tensors(system, tensors, folder / MODEL)


def load_system(run: Run, device: torch.device | str = "cpu") -> System:
    """The trained system of a run folder, in evaluation mode."""
    system = System(run.config, len(run.alphabet), run.alphabet)
    tensors, _ = read_tensors(run.folder / MODEL)
    apply_tensors(system, tensors, run.folder / MODEL)
    return system.to(device).eval()
