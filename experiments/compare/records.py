"""Results of GTok runs, read from wherever they lie: run folders, results of gtok.py or evaluate.py, collected files.

Everything that compares systems (`tables`, `plot_gtok`) starts from the list of `Record`s that `load` returns. A field
that a source does not have is None, never a guess. The same run found in two places is one record (`same_run`): two
sources that agree fill each other's gaps, two that contradict each other are an error, no run counts twice as a seed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from curve_log import read_curve
from pydantic import Field

from speak_neuro.common.files import legible
from speak_neuro.common.json_files import Strict, check_json
from speak_neuro.common.json_files import read_json as read_json_file
from speak_neuro.common.same_run import check_agreement, distinct
from speak_neuro.common.settings import from_dict, to_dict
from speak_neuro.config import RunConfig
from speak_neuro.errors import SpeakError

AGREEMENT = {"bpc": 1e-3, "sf": 1e-2}
"""Share by which two scores of one run may differ. Scored again, the committed runs agree to 4e-9 in BPC; on another
device rounding flips few boundaries (1e-4), and drawn boundaries vary a little more. Seeds differ by 6e-4 and more, so
that two runs with one seed, from two versions of the code, may pass for one when they are as near as that."""
MEASURES = {
    "bpc": "test_bpc",
    "sf": "test_shortening_factor",
    **{name: f"test_{name}" for name in ("characters", "tokens", "token_dependence", "gate_rate", "boundary_f1")},
    **{f"parameters_{part}": f"parameters_{part}" for part in ("language_model", "tokenizer")},
    **{f"training_{what}": f"training_{what}" for what in ("seconds", "characters")},
}
"""A record's numbers by their names in the metrics of gtok.py."""
SEED = "training.seed"
WATCHING = ("training.evaluate_every", "training.evaluate_characters")
"""Settings without influence on what is trained."""


@dataclass(frozen=True)
class Record:
    """One run: what it is, and what was measured on it."""

    name: str
    """The run folder's name, for people."""
    system: str
    """`--tokenizer`."""
    dataset: str
    seed: int
    config: dict[str, Any]
    """Every setting, flat: "training.steps" -> 1000."""
    text: str | None = None
    """SHA-256 of the whole text (training, validation and test part)."""
    bpc: float | None = None
    sf: float | None = None
    characters: int | None = None
    tokens: int | None = None
    token_dependence: float | None = None
    """Bits per character that the model loses without any boundary."""
    block_bpc: list[float] | None = None
    """Test BPC of consecutive parts of the text."""
    started_from: str | None = None
    """The mixture from whose weights it branched."""
    gate_rate: float | None = None
    boundary_f1: float | None = None
    parameters_language_model: int | None = None
    parameters_tokenizer: int | None = None
    vocabulary: int | None = None
    training_seconds: float | None = None
    training_characters: int | None = None
    device: str | None = None
    timing: dict[str, Any] | None = None
    """evaluate.py's times, with device, batch and length."""
    protocol: dict[str, Any] | None = None
    """Window and stride with which the test text was scored."""
    other: dict[str, Any] | None = None
    """The same weights with boundaries found the other way, where a system has two: {"boundaries": "sampled" or
    "likeliest", "bpc", "sf"}."""
    curve: dict[str, list[Any]] = field(default_factory=dict)
    """Validation over training: a list for each of CURVE."""

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings that decide what is trained, but for the seed."""
        return {name: value for name, value in self.config.items() if name not in (SEED, *WATCHING)}

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for the same run in two sources, scored the same way. Where the text is known, its name is a label."""
        protocol = json.dumps(self.protocol, sort_keys=True) if self.protocol else ""
        text = self.text or f"named {self.dataset}"
        return self.system, text, json.dumps(self.chosen, sort_keys=True), protocol, self.seed


def load(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[Record], list[str]]:
    """All finished runs of `paths`, and a line on each run that is not finished."""
    found: list[Record] = []
    unfinished: list[str] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            folders = run_folders(path)
            if not folders:
                raise SpeakError(f"{path}: holds no run folder; name run folders of gtok.py or JSON files of results")
            for folder in folders:
                if (folder / "results.json").is_file():
                    found.append(read_folder(folder, name_of(folder, path)))
                else:
                    unfinished.append(f"{name_of(folder, path)}: no results.json, the run is not finished")
        else:
            found += read_file(path)
    return merge(found), unfinished


def run_folders(path: Path) -> list[Path]:
    """`path` itself when it is a run folder, else the run folders anywhere below it."""
    if (path / "config.json").is_file():
        return [path]
    return sorted(file.parent for file in path.rglob("config.json"))


def name_of(folder: Path, root: Path) -> str:
    return legible(folder.relative_to(root) if folder != root else folder.name or folder.resolve().name)


def read_folder(folder: Path, name: str) -> Record:
    """A run folder with results.json; its curve from metrics.jsonl."""
    result = read_json(folder / "results.json")
    record = from_gtok(result, name, folder / "results.json")
    described = read_json(folder / "config.json")
    alphabet = described.get("alphabet")
    vocabulary = vocabulary_size(alphabet)
    return dataclasses.replace(
        record,
        vocabulary=vocabulary,
        started_from=described.get("started_from"),
        curve=read_curve(folder / "metrics.jsonl"),
    )


def vocabulary_size(alphabet: Any) -> int | None:
    """V of config.json's alphabet, the unknown character's id included."""
    from speak_neuro.text.alphabet import Alphabet

    try:
        return len(Alphabet.from_json(alphabet))
    except (ValueError, AttributeError, TypeError, KeyError):
        return None


Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Measured(Strict):
    """What a run of gtok.py measured; fields of the first versions may be absent."""

    test_bpc: Amount
    test_shortening_factor: Amount | None = None
    test_characters: Count | None = None
    test_tokens: Count | None = None
    test_gate_rate: Share | None = None
    test_block_bpc: list[Amount] | None = None
    test_boundary_f1: Share | None = None
    parameters_language_model: Count | None = None
    parameters_tokenizer: Count | None = None
    training_seconds: Amount | None = None
    training_characters: Count | None = None


def read_file(path: Path) -> list[Record]:
    """The runs of a JSON file: one of gtok.py, or several of collect.py or evaluate.py."""
    result = read_json(path)
    metrics = result.get("metrics")
    if not isinstance(metrics, dict):
        raise SpeakError(f"{path}: no results of a run; name a --json file of gtok.py, evaluate.py or collect.py")
    if "test_bpc" in metrics:
        return [from_gtok(result, path.stem, path)]
    runs = metrics.get("runs")
    if not isinstance(runs, list) or not all(isinstance(run, dict) and "system" in run for run in runs):
        raise SpeakError(f"{path}: no results of a run; name a --json file of gtok.py, evaluate.py or collect.py")
    return [from_collected(run, metrics.get("config", {}), path) for run in runs]


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = read_json_file(path, dict[str, Any], "make it again")
    except FileNotFoundError:
        raise SpeakError(f"{path}: no such file or folder; name run folders or JSON files of results") from None
    return value


def from_gtok(result: dict[str, Any], name: str, where: Path) -> Record:
    """A results record of gtok.py."""
    metrics = result.get("metrics", {})
    if not isinstance(metrics.get("config"), dict):
        raise SpeakError(f"{where}: no configuration in the results; make it again with this version's gtok.py")
    check_json(metrics, Measured, f"{where}: metrics", "make it again")
    check_json(metrics["config"], dict[str, dict[str, Any]], f"{where}: metrics.config", "make it again")
    config = flat_config(metrics["config"])
    for setting in ("training.seed", "training.window"):
        check_json(config.get(setting, 0), int, f"{where}: metrics.config.{setting}", "make it again")
    data = metrics.get("data") or {}
    if not isinstance(data, dict):  # the first results named their text and no more
        data = {"source": str(data)}
    return Record(
        name=name,
        system=str(config.get("tokenizer.kind", "speak")),
        dataset=dataset_name(data),
        seed=config.get("training.seed", 0),
        config=config,
        text=data.get("sha256"),
        block_bpc=metrics.get("test_block_bpc"),
        **{name: metrics.get(given) for name, given in MEASURES.items()},
        device=result.get("device"),
        protocol=default_protocol(config),
        other=other_boundaries(metrics),
    )


def other_boundaries(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """gtok.py's second evaluation of a system that samples its boundaries in training."""
    for kind in ("sampled", "likeliest"):
        found = metrics.get(f"test_{kind}_boundaries")
        if isinstance(found, dict):
            return {"boundaries": kind, "bpc": found.get("bpc"), "sf": found.get("shortening_factor")}
    return None


def default_protocol(config: dict[str, Any]) -> dict[str, Any] | None:
    """How gtok.py scores: the training window, sliding by half of itself."""
    window = config.get("training.window")
    return None if window is None else {"window": window, "stride": max(1, window // 2)}


def from_collected(run: dict[str, Any], base: dict[str, Any], where: Path) -> Record:
    """A run of `collect.py`, whose configuration is the file's with the run's knobs, or of `evaluate.py`."""
    values = dict(run)
    knobs = values.pop("knobs", {})
    config = values.get("config") or {key: value for key, value in {**base, **knobs}.items() if value is not None}
    values["config"] = flat_config(nested_config(config))
    known = {item.name for item in dataclasses.fields(Record)}
    values = {key: value for key, value in values.items() if key in known}
    try:
        return Record(**values)
    except TypeError as error:
        raise SpeakError(f"{where}: run {run.get('name')!r}: {error}; make the file again") from None


def flat_config(config: dict[str, Any]) -> dict[str, Any]:
    """Settings by section and name. Those that did not exist when the run was made get the default they had; those that
    exist no more go where they said what is done now, and stay where they said another thing."""
    today = {}
    for section, kind in vars(RunConfig()).items():
        given, retired = config.get(section, {}), getattr(kind, "RETIRED", {})
        gone = {name for name in given if name in retired and retired[name] in (None, given[name])}
        config = {**config, section: {name: value for name, value in given.items() if name not in gone}}
        today[section] = {item.name: given[item.name] for item in dataclasses.fields(kind) if item.name in given}
    with contextlib.suppress(SpeakError):  # written by another version: taken as it is
        filled = to_dict(from_dict(RunConfig, today))
        config = {section: {**part, **filled.get(section, {})} for section, part in {**filled, **config}.items()}
    return {f"{section}.{name}": value for section, part in config.items() for name, value in part.items()}


def nested_config(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The inverse of `flat_config`."""
    nested: dict[str, dict[str, Any]] = {}
    for key, value in config.items():
        section, _, name = key.partition(".")
        nested.setdefault(section, {})[name] = value
    return nested


def dataset_name(data: dict[str, Any]) -> str:
    """What the data are called: their name, or the file's without folder and ending."""
    for key in ("name", "dataset"):
        if isinstance(data.get(key), str):
            return str(data[key])
    source = str(data.get("source", "unknown"))
    return legible(source if " " in source else (Path(source).stem or source))


def merge(records: Iterable[Record]) -> list[Record]:
    """One record for each run, in the order in which they came."""
    return distinct(records, lambda record: record.identity, joined)


def joined(first: Record, second: Record) -> Record:
    """Two views of one run. Its scores must agree: an evaluation of the same weights on the same text repeats."""
    check_agreement((first.name, second.name), (scores(first), scores(second)), AGREEMENT)
    gaps = {
        item.name: getattr(second, item.name)
        for item in dataclasses.fields(Record)
        if getattr(first, item.name) in (None, {})
    }
    return dataclasses.replace(first, **gaps)


def scores(record: Record) -> dict[str, float | None]:
    return {"bpc": record.bpc, "sf": record.sf}
