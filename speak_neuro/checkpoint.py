"""The run folder: what training leaves and everything else reads. JSON and safetensors, never pickle.

    config.json          schema version, every setting, alphabet, data, package versions, commit, device
    exemplar.json        the exemplar tokenizer that started the proxy
    model.safetensors    weights of language model, tokenizer and loss mixes
    state.safetensors    the same, with optimiser, random state and proxy spikes: enough to go on bit for bit
    metrics.jsonl        one line per step, and per evaluation

Each file is replaced in one rename, so a full disk or a kill leaves the previous one whole.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from speak_neuro.alphabet import Alphabet
from speak_neuro.command import atomic_write, write_json
from speak_neuro.config import SCHEMA_VERSION, RunConfig, from_dict, to_dict
from speak_neuro.errors import SpeakError
from speak_neuro.hourglass import Hourglass, HourglassConfig
from speak_neuro.losses import Mixes
from speak_neuro.segmenters import Segmentation, Segmenter, build_segmenter
from speak_neuro.tokenizer import SpeakTokenizer

CONFIG, MODEL, STATE, METRICS, EXEMPLAR = (
    "config.json",
    "model.safetensors",
    "state.safetensors",
    "metrics.jsonl",
    "exemplar.json",
)


class System(nn.Module):
    """All that is trained: the language model and what cuts the text for it.

    For SPEAK that is `tokenizer` and the `mixes` of its loss; for the systems it is compared with, `segmenter`.
    """

    tokenizer: SpeakTokenizer
    mixes: Mixes
    segmenter: Segmenter

    def __init__(self, config: RunConfig, vocabulary: int, alphabet: Alphabet | None = None) -> None:
        """`alphabet` is needed where a system knows characters: whitespace and magnet."""
        super().__init__()
        self.config = config
        m = config.model
        plain = config.tokenizer.kind == "vanilla"  # the same layers, all at full resolution
        self.language_model = Hourglass(
            HourglassConfig(
                vocabulary=vocabulary,
                width=m.width,
                heads=m.heads,
                inner=m.inner,
                pre_layers=m.pre_layers + m.shortened_layers + m.post_layers if plain else m.pre_layers,
                shortened_layers=0 if plain else m.shortened_layers,
                post_layers=0 if plain else m.post_layers,
                dropout=m.dropout,
                attention_dropout=m.attention_dropout,
            )
        )
        if self.is_speak:
            self.tokenizer = SpeakTokenizer(config, vocabulary)
            t = config.training
            self.mixes = Mixes(t.fire_mix, t.rest_mix, t.learn_mixes)
        else:
            self.segmenter = build_segmenter(config, alphabet)

    @property
    def is_speak(self) -> bool:
        return self.config.tokenizer.kind == "speak"

    @property
    def boundary_module(self) -> SpeakTokenizer | Segmenter:
        """Whatever cuts the text."""
        return self.tokenizer if self.is_speak else self.segmenter

    def segment(self, ids: Tensor, hidden: Tensor) -> Segmentation:
        """Where inference ends tokens: ids (B, L) and their pre-layer states (B, L, D)."""
        if not self.is_speak:
            return Segmentation(self.segmenter(ids, hidden))
        found = self.tokenizer(ids, hidden if self.tokenizer.needs_hidden else None)
        return Segmentation(found.spikes.bool(), self.tokenizer.effective_gate(found.gate_logit) > 0)


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


def load_system(run: Run, device: torch.device | str = "cpu") -> System:
    """The trained system of a run folder, in evaluation mode."""
    system = System(run.config, len(run.alphabet), run.alphabet)
    tensors, _ = read_tensors(run.folder / MODEL)
    apply_tensors(system, tensors, run.folder / MODEL)
    return system.to(device).eval()


def apply_tensors(system: System, tensors: dict[str, Tensor], path: Path) -> None:
    """Put `tensors` into `system`, exactly its names and shapes, all finite."""
    expected = system.state_dict()
    for name in sorted(set(expected) ^ set(tensors)):
        state = "missing" if name in expected else "unknown"
        raise SpeakError(f"{path}: tensor {name} is {state}; the file does not belong to this run's {CONFIG}")
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise SpeakError(
                f"{path}: tensor {name} has shape {tuple(value.shape)}, {CONFIG} says {tuple(expected[name].shape)}"
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value)).sum())
            raise SpeakError(f"{path}: tensor {name} holds {bad} values that are not finite; use an earlier checkpoint")
    system.load_state_dict(tensors)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and JSON metadata as one safetensors file, atomically."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    data = save(plain, metadata={"json": json.dumps(metadata)})
    with atomic_write(path) as stream:
        stream.write(data)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote."""
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = json.loads((stream.metadata() or {}).get("json", "{}"))
            return {name: stream.get_tensor(name) for name in stream.keys()}, metadata  # noqa: SIM118
    except FileNotFoundError:
        raise SpeakError(f"{path}: no such file; the run has saved no checkpoint yet") from None
    except (SafetensorError, ValueError) as error:
        raise SpeakError(f"{path}: not a whole safetensors file ({error}); restore it or train again") from None


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors."""
    state = optimiser.state_dict()["state"]
    return {f"optimiser.{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimiser_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


class MetricsLog:
    """metrics.jsonl, appended line by line; on resume cut back to the checkpoint's step."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / METRICS
        kept = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # a line half-written when the run was killed
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
        with atomic_write(self.path, "w") as stream:
            stream.writelines(kept)

    def append(self, record: dict[str, Any]) -> None:
        """Write one record; a value that is not finite is an error, found where it arises."""
        for name, value in record.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise SpeakError(
                    f"step {record.get('step')}: {name} is {value}; lower --learning-rate or --tokenizer-learning-rate"
                )
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        except OSError as error:  # a full disk gives no name
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All records of metrics.jsonl."""
    return [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]
