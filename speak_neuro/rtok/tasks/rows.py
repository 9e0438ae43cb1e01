"""Rows of a data set in the hub's shape: from a hub id through `datasets`, or from local Parquet and JSON-lines files.

A source is a hub id (`owner/name`) or a folder. In a folder a configuration and split are looked for as

    FOLDER/CONFIG/SPLIT*.parquet|jsonl      the layout of a hub repository, any number of shards
    FOLDER/CONFIG-SPLIT.parquet|jsonl       one file

A label is a name or an integer. Integers are read with the names that the file or the hub gives (a copy may order them
in its own way), and where none are given, in the task's order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speak_neuro.common.extras import extra
from speak_neuro.common.files import utf8_path
from speak_neuro.common.json_lines import read_json_lines
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import check_regular
from speak_neuro.corpus.named_sets import quiet_libraries
from speak_neuro.errors import MissingExtra, SpeakError, first_line

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SPLIT_ALIASES = {"dev": ("dev", "validation"), "validation": ("validation", "dev")}
"""Names that one split goes by."""


@dataclass(frozen=True)
class Rows:
    """The rows of one split, with where they come from, for messages."""

    values: list[dict[str, Any]]
    where: str
    label_names: tuple[str, ...] | None
    """Names of integer labels in the order the source gives, None when it gives none."""

    def at(self, index: int) -> str:
        """How a message names row `index`."""
        return f"{self.where}: row {index + 1}"


def read_rows(source: str | Path, configuration: str, split: str, columns: Sequence[str], label_column: str) -> Rows:
    """All rows of a configuration's split, each with at least `columns`."""
    folder = Path(source)
    if folder.is_dir():
        return _local_rows(folder, configuration, split, columns, label_column)
    if HUB_ID.fullmatch(str(source)) and not folder.exists():
        return _hub_rows(str(source), configuration, split, columns, label_column)
    raise SpeakError(f"{source}: no such folder, and not a hub id owner/name; {wanted(configuration, split)}")


def wanted(configuration: str, split: str) -> str:
    """The local files that would do."""
    return f"give a folder that holds {configuration}/{split}*.parquet, or .jsonl, or {configuration}-{split}.jsonl"


def split_names(split: str) -> tuple[str, ...]:
    """The split's name and its alias."""
    return SPLIT_ALIASES.get(split, (split,))


def _local_rows(folder: Path, configuration: str, split: str, columns: Sequence[str], label_column: str) -> Rows:
    files = _files(folder, configuration, split)
    values: list[dict[str, Any]] = []
    names: tuple[str, ...] | None = None
    for file in files:
        if file.suffix == ".parquet":
            rows, found = _parquet(file, columns, label_column)
            if values and found != names:
                raise SpeakError(f"{file}: its labels are {found}, those of {files[0]} {names}; give them one order")
            names = found
        else:
            rows = _json_lines(file, columns)
        values += rows
    where = str(files[0]) if len(files) == 1 else f"{files[0].parent} ({split})"
    return Rows(values, where, names)


def _files(folder: Path, configuration: str, split: str) -> list[Path]:
    """The files of a split: of one name, one kind and one layout, so that no row is read twice."""
    found = []
    for name in split_names(split):
        for suffix in ("parquet", "jsonl"):
            inside = sorted((folder / configuration).glob(f"{name}[-.]*{suffix}"))
            for files in (inside, sorted(folder.glob(f"{configuration}-{name}.{suffix}"))):
                kept = [file for file in files if file.suffix == f".{suffix}"]
                if kept:
                    found.append(kept)
    if not found:
        raise SpeakError(f"{folder}: holds no split {split!r} of {configuration!r}; {wanted(configuration, split)}")
    if len(found) > 1:
        raise SpeakError(
            f"{folder}: holds split {split!r} of {configuration!r} as {found[0][0].relative_to(folder)} and as "
            f"{found[1][0].relative_to(folder)}; leave one of them there"
        )
    return found[0]


def _json_lines(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for number, row in read_json_lines(file, "give one object a line"):
        check_columns(row, columns, f"{file}: line {number}")
        rows.append(row)
    return rows


def _parquet(
    file: Path, columns: Sequence[str], label_column: str
) -> tuple[list[dict[str, Any]], tuple[str, ...] | None]:
    pyarrow, parquet = (extra(name, "speak-neuro[hf]") for name in ("pyarrow", "pyarrow.parquet"))
    check_regular(file, "give .parquet or .jsonl")
    try:
        with utf8_path(file) as name:
            table = parquet.ParquetFile(name).read()
            rows = table.to_pylist()
    except UnicodeDecodeError as error:
        raise SpeakError(f"{file}: a text is not UTF-8 ({error.reason}); write the file anew") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise SpeakError(f"{file}: not a Parquet file ({first_line(error)}); give .parquet or .jsonl") from None
    check_columns(dict.fromkeys(table.column_names), columns, str(file))
    return rows, _stored_names(table.schema.metadata or {}, label_column)


def _stored_names(metadata: dict[bytes, bytes], label_column: str) -> tuple[str, ...] | None:
    """Names of a ClassLabel that `datasets` left in the file's schema."""
    try:
        described = parse_json(metadata[b"huggingface"], "huggingface", "")
        feature = described["info"]["features"][label_column]
    except (KeyError, ValueError, TypeError, SpeakError):
        return None
    while isinstance(feature, dict) and "names" not in feature and "feature" in feature:
        feature = feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(names) if names else None


def _hub_rows(source: str, configuration: str, split: str, columns: Sequence[str], label_column: str) -> Rows:
    try:
        datasets = extra("datasets", "speak-neuro[hf]")
    except MissingExtra as missing:
        raise MissingExtra(f"{missing}, or {wanted(configuration, split)}") from None
    quiet_libraries()
    failure: Exception | None = None
    for name in split_names(split):
        try:
            found = datasets.load_dataset(source, configuration, split=name)
        except (OSError, RuntimeError) as error:  # no network, no such id, or a data set that is a script
            raise SpeakError(
                f"{source}: cannot be fetched ({first_line(error)}); {wanted(configuration, split)}"
            ) from None
        except ValueError as error:  # no such configuration or split
            failure = error
            continue
        where = f"{source} {configuration} {name}"
        check_columns(dict.fromkeys(found.column_names), columns, where)
        feature = found.features[label_column]
        while not hasattr(feature, "names") and hasattr(feature, "feature"):
            feature = feature.feature
        names = getattr(feature, "names", None)
        return Rows(list(found), where, tuple(names) if names else None)
    raise SpeakError(f"{source}: {first_line(failure)}; {wanted(configuration, split)}") from None


def check_columns(row: dict[str, Any], columns: Sequence[str], where: str) -> None:
    """Refuse rows without the columns that the task needs."""
    missing = [name for name in columns if name not in row]
    if missing:
        raise SpeakError(
            f"{where}: column {missing[0]!r} is missing, found {', '.join(sorted(row)) or 'none'}; needed: "
            f"{', '.join(columns)}"
        )


def label_index(value: Any, names: Sequence[str], given: Sequence[str] | None, where: str) -> int:
    """The index in `names` of a label that is a name, or a number in the order `given` (default: `names`)."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise SpeakError(f"{where}: label {value!r} is no name and no number; allowed: {', '.join(names)}")
    name = value
    if isinstance(value, int):
        order = given or names
        if not 0 <= value < len(order):
            raise SpeakError(f"{where}: label {value} is outside the set; allowed: 0 to {len(order) - 1}")
        name = order[value]
    if name not in names:
        raise SpeakError(f"{where}: label {name!r} is outside the set; allowed: {', '.join(names)}")
    return names.index(str(name))
