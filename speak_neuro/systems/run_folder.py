"""The run folder: what training leaves and everything else reads. JSON and safetensors, never pickle.

    config.json          schema version, every setting, alphabet, data, package versions, commit, device
    exemplar.json        the exemplar tokenizer that started the proxy
    model.safetensors    weights of language model, tokenizer and loss mixes
    state.safetensors    the same, with optimiser, random state and proxy spikes: enough to go on bit for bit
    state-N.safetensors  the checkpoint before it, of step N
    metrics.jsonl        one line per step, and per evaluation
    .lock                held by the process that trains in the folder, while it lives

Each file is replaced in one rename, so a full disk or a kill leaves the previous one whole. Each holds the SHA-256 of
its content; weights and states also the identity of their run, so that another run's are refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from speak_neuro.common.digests import DIGEST, check_digest, digest_of
from speak_neuro.common.files import write_json
from speak_neuro.common.json_files import Strict, check_json
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import read_whole
from speak_neuro.common.settings import from_dict, to_dict
from speak_neuro.common.tensors import apply_tensors, read_tensors, tensor_shapes, write_tensors
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
RUN = "run"
"""The field of a file's header that holds the identity of its run."""
WITH_DIGEST = 2
"""The first schema whose files hold digests."""
ADVICE = "restore it or train again"


@dataclass(frozen=True)
class Run:
    """A run folder's description, read and checked."""

    folder: Path
    config: RunConfig
    alphabet: Alphabet
    record: dict[str, Any]
    """The rest of config.json: data, versions, commit, device."""
    written: dict[str, Any]
    """The settings as they stand in the file: without those that came later."""
    schema: int = SCHEMA_VERSION

    @property
    def identity(self) -> str:
        """What is trained on what: the same for all files of a run, however often it was resumed."""
        # As written, since a version with one more setting has to read the folder too.
        kept = {part: self.written.get(part, {}) for part in ("neuron", "tokenizer", "model")}
        data = self.record.get("data")
        return digest_of({**kept, "seed": self.config.training.seed, "alphabet": self.alphabet.to_json(), "data": data})


class _ConfigFile(Strict):
    """config.json; what stands beside these fields is a record."""

    schema_: Annotated[int, Field(alias="schema")]
    config: dict[str, Any]
    alphabet: dict[str, Any]


def write_config(
    folder: Path, config: RunConfig, alphabet: Alphabet, record: dict[str, Any], schema: int = SCHEMA_VERSION
) -> None:
    """Write config.json. A run that began with an older `schema` keeps it: its other files hold no digests."""
    values = {"schema": schema, "config": to_dict(config), "alphabet": alphabet.to_json(), **record}
    if schema >= WITH_DIGEST:
        values[DIGEST] = digest_of(values)
    write_json(folder / CONFIG, values)


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read config.json of a run folder."""
    path = Path(folder) / CONFIG
    if not Path(folder).is_dir():
        raise SpeakError(f"{folder}: no such run folder; train one with speak-train --out {folder}")
    try:
        values = parse_json(read_whole(path, ADVICE), str(path), ADVICE)
    except FileNotFoundError:
        raise SpeakError(
            f"{folder}: holds no {CONFIG}, so it is not a run folder; name a training run's --out"
        ) from None
    schema = values.get("schema") if isinstance(values, dict) else None
    if type(schema) is not int or not 1 <= schema <= SCHEMA_VERSION:
        raise SpeakError(
            f"{path}: schema is {schema!r}, this version reads 1 to {SCHEMA_VERSION}; use the speak_neuro that wrote it"
        )
    check_json(values, _ConfigFile, str(path), ADVICE)
    config = from_dict(RunConfig, values["config"], f"{path}: config")
    try:
        alphabet = Alphabet.from_json(values["alphabet"])
    except ValueError as error:
        raise SpeakError(f"{path}: alphabet: {error}") from None
    if schema >= WITH_DIGEST:
        check_digest(values, None, path, ADVICE)
    record = {key: value for key, value in values.items() if key not in ("schema", "config", "alphabet", DIGEST)}
    return Run(Path(folder), config, alphabet, record, values["config"], schema)


def save_model(folder: Path, system: System) -> None:
    """Write model.safetensors."""
    write_tensors(folder / MODEL, system.state_dict(), header_of(folder))


def header_of(folder: Path) -> dict[str, Any]:
    """What the files of a folder say about their run; nothing where no config.json describes one."""
    return {RUN: read_run(folder).identity} if (folder / CONFIG).exists() else {}


def check_same_run(run: Run, metadata: dict[str, Any], path: Path) -> None:
    """Refuse weights or a state of another run. Runs of the first schema did not say which they are of."""
    stated = metadata.get(RUN)
    if stated != run.identity and (run.schema >= WITH_DIGEST or stated is not None):
        raise SpeakError(f"{path}: belongs to another run than {run.folder / CONFIG}; restore the run's own file")


def start_from(system: System, folder: Path, alphabet: Alphabet) -> None:
    """Give a new run the weights of another run of the same system, model and alphabet."""
    run, config = read_run(folder), system.config
    if run.alphabet != alphabet:
        raise SpeakError(f"{folder}: has another alphabet than this run's text; start from a run on the same text")
    for section in ("neuron", "tokenizer", "model"):
        theirs, ours = to_dict(getattr(run.config, section)), to_dict(getattr(config, section))
        for name, value in theirs.items():
            if ours[name] != value and name not in ("reset_mode", "unpooling"):  # of which no weight knows
                raise SpeakError(
                    f"{folder}: its {section}.{name} is {value}, this run's {ours[name]}; start from its like"
                )
    tensors, _ = read_tensors(folder / MODEL)
    apply_tensors(system, tensors, folder / MODEL)


def load_system(run: Run, device: torch.device | str = "cpu") -> System:
    """The trained system of a run folder, in evaluation mode."""
    path = run.folder / MODEL
    check_sizes(run, path)
    tensors, metadata = read_tensors(path, checked=run.schema >= WITH_DIGEST)
    system = System(run.config, len(run.alphabet), run.alphabet)
    apply_tensors(system, tensors, path)
    check_same_run(run, metadata, path)
    return system.to(device).eval()


def check_sizes(run: Run, path: Path) -> None:
    """Refuse a description that does not fit the file `path`, before memory is taken for it."""
    stored = tensor_shapes(path)
    if not stored:
        return  # not to be read: the reader says why
    model, sides = run.config.model, {side for shape in stored.values() for side in shape}
    layers = model.pre_layers + model.shortened_layers + model.post_layers
    if layers > len(stored):
        raise SpeakError(f"{path}: holds {len(stored)} tensors, {CONFIG} says {layers} layers")
    for name in ("width", "inner") if layers else ():
        if getattr(model, name) not in sides:
            raise SpeakError(f"{path}: no tensor has a side of {getattr(model, name)}, {CONFIG} says model.{name}")
