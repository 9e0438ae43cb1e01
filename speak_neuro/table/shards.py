"""A corpus cut into shards, each tokenized by itself: the same plan and the same bytes whoever does the work.

A document is a line of a text file or a row of a Parquet file. A shard is the lines that begin in a range of bytes, or
some row groups, so the plan needs no look at the text. Each becomes one Parquet file with a row per document:

    row         int64           the line's first byte in its file, or the number of the row
    characters  int64           length of the document
    tokens      int64           number of tokens
    ends        list<int32>     end of each token in characters or bytes, counted from the document's beginning; or
    ids         list<int32>     the ids of the tokens, see `speak_neuro.table.vocabulary`

A missing text (null) has no ends or ids (null). Needs pyarrow, the extra `scale`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speak_neuro.common.extras import extra
from speak_neuro.common.files import atomic_write, utf8_path
from speak_neuro.common.regular import check_regular
from speak_neuro.errors import SpeakError
from speak_neuro.table.tokenizer import TableTokenizer, load
from speak_neuro.text.lines import invalid_utf8

SCHEMA_VERSION = 1
COLUMNS = ("ends", "ids")
BATCH_CHARACTERS = 1 << 22
"""Text tokenized at a time."""
BATCH_ROWS = 4096
METADATA = "speak_neuro"


@dataclass(frozen=True)
class Settings:
    """What every shard has in common."""

    table: str
    vocabulary: str | None
    column: str
    output: str
    """`ends` or `ids`."""
    unit: str
    """Of `ends`: character or byte."""


@dataclass(frozen=True)
class Shard:
    """A part of a file: bytes first..last of a text, or row groups first..last of a Parquet file."""

    source: str
    parquet: bool
    first: int
    last: int
    row: int
    """Number of the first row of a Parquet file's part."""
    out: str


@dataclass(frozen=True)
class Totals:
    """What a shard holds."""

    documents: int = 0
    characters: int = 0
    tokens: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(self)))


def arrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet."""
    return extra("pyarrow", "speak-neuro[scale]"), extra("pyarrow.parquet", "speak-neuro[scale]")


def corpus_files(paths: Sequence[Path]) -> list[Path]:
    """The files, and of folders all .txt and .parquet files below, by their path."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = [p for p in path.rglob("*") if p.suffix in (".txt", ".parquet") and p.is_file()]
            if not found:
                raise SpeakError(
                    f"{path}: the folder holds no .txt and no .parquet file; give files, or another folder"
                )
            files += sorted(found, key=lambda p: p.relative_to(path).parts)
        elif path.is_file():
            files.append(path)
        else:
            raise SpeakError(f"{path}: no such file or folder; give UTF-8 text or Parquet files")
    return files


def plan(files: Sequence[Path], out: Path, column: str, shard_bytes: int, shard_rows: int) -> list[Shard]:
    """The shards of all files, in order. Parquet files are opened, to check them and for the sizes of row groups."""
    parts: list[tuple[str, bool, int, int, int]] = []
    for file in files:
        if file.suffix == ".parquet":
            parts += [(str(file), True, *groups) for groups in _row_groups(file, column, shard_rows)]
        else:
            size = file.stat().st_size
            for first in range(0, size, shard_bytes):
                parts.append((str(file), False, first, min(first + shard_bytes, size), 0))
    return [Shard(*part, str(out / f"shard-{k:06d}.parquet")) for k, part in enumerate(parts)]


def _row_groups(file: Path, column: str, shard_rows: int) -> Iterator[tuple[int, int, int]]:
    pyarrow, parquet = arrow()
    check_regular(file, "give a Parquet file")
    try:
        with utf8_path(file) as name, parquet.ParquetFile(name) as opened:
            schema, metadata = opened.schema_arrow, opened.metadata
            rows = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise SpeakError(
            f"{file}: not a whole Parquet file ({reason}); text files must not be named .parquet"
        ) from None
    if column not in schema.names:
        raise SpeakError(f"{file}: no column {column!r}; --column one of: {', '.join(schema.names)}")
    kind = schema.field(column).type
    if not holds_text(kind):
        raise SpeakError(f"{file}: column {column!r} is {kind}; allowed: string")
    first = row = held = 0
    for k, count in enumerate(rows):
        held += count
        if held >= shard_rows or k == len(rows) - 1:
            yield first, k + 1, row
            first, row, held = k + 1, row + held, 0


def description(settings: Settings, files: Sequence[Path], shards: Sequence[Shard]) -> dict[str, Any]:
    """What decides the bytes of the output: kept beside the shards, so that another run does not mix with them."""
    used = {"table": settings.table, "vocabulary": settings.vocabulary}
    digests = {
        name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in used.items() if path is not None
    }
    return {
        "schema": SCHEMA_VERSION,
        "files": [{"file": str(file), "bytes": file.stat().st_size} for file in files],
        "column": settings.column,
        "output": settings.output,
        "unit": settings.unit,
        "sha256": digests,
        "shards": [[s.source, s.first, s.last] for s in shards],
    }


@functools.lru_cache(maxsize=2)
def _tokenizer(table: str, vocabulary: str | None) -> TableTokenizer:
    """One for each process: loading it once serves all its shards."""
    return load(table, vocabulary, backend="numba")


def finished(shard: Shard) -> Totals | None:
    """The totals of a shard that has been written; files appear only when they are whole."""
    if not Path(shard.out).exists():
        return None
    _, parquet = arrow()
    with utf8_path(shard.out) as name:
        return Totals(**json.loads(parquet.read_metadata(name).metadata[METADATA.encode()])["totals"])


def write_shard(shard: Shard, settings: Settings) -> Totals:
    """Tokenize one shard and write its file, atomically."""
    _, parquet = arrow()
    tokenizer = _tokenizer(settings.table, settings.vocabulary)
    totals = Totals()
    schema = _tokenized(tokenizer, [], [], settings)[0].schema
    with atomic_write(shard.out) as stream, parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        for rows, texts in _batches(shard, settings.column):
            table, counted = _tokenized(tokenizer, rows, texts, settings)
            writer.write_table(table)
            totals += counted
        described = {"source": Path(shard.source).name, "unit": settings.unit, "totals": dataclasses.asdict(totals)}
        writer.add_key_value_metadata({METADATA: json.dumps(described, sort_keys=True)})
    return totals


def write_row(row: dict[str, Any]) -> dict[str, Any]:
    """`write_shard` as a Ray Data map, from what `as_row` gives. Bad input comes back as text: Ray would wrap an
    exception in pages of its own."""
    import ray

    try:
        done, error = write_shard(Shard(**json.loads(row["shard"])), Settings(**json.loads(row["settings"]))), ""
    except SpeakError as caught:
        done, error = Totals(), str(caught)
    return {**dataclasses.asdict(done), "error": error, "node": ray.get_runtime_context().get_node_id()}


def as_row(shard: Shard, settings: Settings) -> dict[str, str]:
    """A row of plain values."""
    return {name: json.dumps(dataclasses.asdict(value)) for name, value in (("shard", shard), ("settings", settings))}


def _tokenized(
    tokenizer: TableTokenizer, rows: list[int], texts: list[str | None], settings: Settings
) -> tuple[Any, Totals]:
    """A table of these documents, and its totals."""
    pyarrow, _ = arrow()
    given = ["" if text is None else text for text in texts]
    spans = tokenizer.spans_batch(given, settings.unit)
    tokens = np.array([len(found) for found in spans], dtype=np.int64)
    characters = np.array([len(text) for text in given], dtype=np.int64)
    if settings.output == "ids":
        values = tokenizer.encode_batch(given)
    else:
        values = [found[:, 1].astype(np.int32) for found in spans]
    offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int32)
    lists = pyarrow.ListArray.from_arrays(
        pyarrow.array(offsets),
        pyarrow.array(np.concatenate(values) if values else np.zeros(0, np.int32)),
        mask=pyarrow.array([text is None for text in texts]) if None in texts else None,
    )
    table = pyarrow.table(
        {
            "row": pyarrow.array(rows, pyarrow.int64()),
            "characters": pyarrow.array(characters),
            "tokens": pyarrow.array(tokens),
            settings.output: lists,
        }
    )
    return table, Totals(len(texts), int(characters.sum()), int(tokens.sum()))


def holds_text(kind: Any) -> bool:
    """Whether an Arrow type is text, in whatever layout that Parquet keeps: long, views, or codes."""
    types = arrow()[0].types
    if types.is_dictionary(kind):
        return holds_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _batches(shard: Shard, column: str) -> Iterator[tuple[list[int], list[str | None]]]:
    """Documents with their row numbers, some at a time."""
    rows: list[int] = []
    texts: list[str | None] = []
    size = 0
    for row, text in _rows(shard, column) if shard.parquet else _lines(shard):
        rows.append(row)
        texts.append(text)
        size += len(text or "")
        if size >= BATCH_CHARACTERS or len(rows) >= BATCH_ROWS:
            yield rows, texts
            rows, texts, size = [], [], 0
    if rows:
        yield rows, texts


def _rows(shard: Shard, column: str) -> Iterator[tuple[int, str | None]]:
    _, parquet = arrow()
    row = shard.row
    with utf8_path(shard.source) as name, parquet.ParquetFile(name) as opened:
        groups = list(range(shard.first, shard.last))
        for batch in opened.iter_batches(BATCH_ROWS, row_groups=groups, columns=[column]):
            try:
                texts = batch.column(0).to_pylist()
            except UnicodeDecodeError:
                raise SpeakError(
                    f"{shard.source}: column {column!r}, rows {row} to {row + len(batch) - 1}: a text is not UTF-8; "
                    "write the file anew"
                ) from None
            yield from enumerate(texts, row)
            row += len(texts)


def _lines(shard: Shard) -> Iterator[tuple[int, str]]:
    """The lines that begin in the shard's bytes; the last one is read to its end."""
    with Path(shard.source).open("rb") as stream:
        at = shard.first
        if at > 0:
            stream.seek(at - 1, io.SEEK_SET)
            at += len(stream.readline()) - 1
        while at < shard.last:
            raw = stream.readline()
            if not raw:
                raise SpeakError(f"{shard.source}: ends at byte {at}, had {shard.last} when the work began; start anew")
            try:
                yield at, raw.removesuffix(b"\n").decode("utf-8")
            except UnicodeDecodeError as error:
                raise invalid_utf8(shard.source, at + error.start, raw[error.start]) from None
            at += len(raw)


def remove_leftovers(out: Path) -> None:
    """Delete what a killed run left half-written."""
    for path in out.glob(".shard-*.tmp"):
        os.unlink(path)
