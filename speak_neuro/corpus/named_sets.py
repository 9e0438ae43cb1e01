"""The paper's data sets by name, through `datasets` from the hub or from local files of the same shape.

    text8          90 / 5 / 5 million characters in file order, as they are
    wiki40b:LANG   train, validation, test cut to 4e8 / 1e7 / 1e7 characters, then cleaned (`corpus.cleaning`)
    cc100:en       the first 4e8 characters, the next 1e7 and the next 1e7 of its one split, then cleaned

A set is streamed, never in memory as a whole, into a folder with train.txt, valid.txt and test.txt, which then serves
like any other text. Its dataset.json says how it was made; the same recipe finds it again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from speak_neuro.common.extras import extra
from speak_neuro.common.files import atomic_write, write_json
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import check_regular, read_whole
from speak_neuro.corpus.cleaning import LATIN, Cleaner, clean_articles
from speak_neuro.corpus.splits import PARTS, locked
from speak_neuro.corpus.wiki40b import article
from speak_neuro.errors import SpeakError

SCHEMA = 2
RECIPE_FILE = "dataset.json"
LIMITS = {"train": 400_000_000, "valid": 10_000_000, "test": 10_000_000}
TEXT8_SIZES = {"train": 90_000_000, "valid": 5_000_000, "test": 5_000_000}
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
"""The hub's name of each part."""
SUFFIXES = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}
_PIECE = 1 << 22


@dataclass(frozen=True)
class NamedSet:
    """Where a set lies on the hub. Only repositories that need no script: `datasets` runs none."""

    hub: str
    language: str
    config: str | None = None
    revision: str | None = None
    data_files: str | None = None
    markers: bool = False
    """Whether the structure of a text is in markers, as in wiki40b."""
    one_split: bool = False
    """Whether there is a train split only, whose rows serve the three parts one after the other."""


NAMED = {
    "text8": NamedSet("afmck/text8", "en"),
    # The repository itself is a script; its copy as Parquet, made by the hub, is not. Large sets are in partial-train.
    "cc100:en": NamedSet(
        "statmt/cc100", "en", revision="refs/convert/parquet", data_files="en/*train/*.parquet", one_split=True
    ),
    **{
        f"wiki40b:{language}": NamedSet("google/wiki40b", language, language, markers=True)
        for language in ("en", "fi", "he", "vi")
    },
}


def check_name(name: str) -> NamedSet:
    """The set called `name`."""
    if name not in NAMED:
        raise SpeakError(f"dataset is {name!r}; allowed: {', '.join(sorted(NAMED))}; any other text through --data")
    return NAMED[name]


def named_parts(
    name: str,
    cache: Path,
    files: Path | None = None,
    points_to_spaces: bool = False,
    limits: dict[str, int] | None = None,
) -> Path:
    """The folder below `cache` that holds the three parts of a set, made now unless it is there.

    `files`: a folder (or, for text8, a file) of the hub's shape instead of the hub. `limits` in characters; the set's
    own by default.
    """
    chosen = check_name(name)
    sizes = limits or (TEXT8_SIZES if name == "text8" else LIMITS)
    recipe = {
        "schema": SCHEMA,
        "dataset": name,
        "from": [chosen.hub, chosen.config, chosen.revision] if files is None else _describe(files),
        "characters_before_cleaning": sizes,
        "points_to_spaces": points_to_spaces,
    }
    variant = ("-points" if points_to_spaces else "") + ("" if files is None else "-local")
    folder = cache / (name.replace(":", "-") + variant)
    if points_to_spaces and chosen.language != "he":
        raise SpeakError(f"--dtp-hebrew-digits is for Hebrew, dataset is {name!r}; leave it away")
    with locked(folder):
        if _recipe_of(folder) == recipe:
            return folder
        (folder / RECIPE_FILE).unlink(missing_ok=True)
        parts = (
            _text8_parts(files, sizes) if name == "text8" else _cleaned_parts(chosen, files, sizes, points_to_spaces)
        )
        for part in PARTS:
            if _write(folder / f"{part}.txt", parts[part]) < 2:
                raise SpeakError(f"{files or chosen.hub}: the {part} part of {name} has no text; give all of the set")
        write_json(folder / RECIPE_FILE, recipe)
    return folder


def quiet_libraries() -> None:
    """No word of each retry and of errors that are raised too: what is wrong is said once, by who asked for data."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    logging.getLogger("datasets").setLevel(logging.CRITICAL)


def _cleaned_parts(
    chosen: NamedSet, files: Path | None, limits: dict[str, int], points_to_spaces: bool
) -> dict[str, Iterator[str]]:
    cleaner = Cleaner(chosen.language, points_to_spaces)
    local = None if files is None else local_files(files, chosen)
    if chosen.one_split:
        rows = _texts(chosen, "train", local)
        return {part: clean_articles(rows, cleaner, limits[part]) for part in PARTS}
    return {part: clean_articles(_texts(chosen, part, local), cleaner, limits[part]) for part in PARTS}


def _texts(chosen: NamedSet, part: str, local: dict[str, list[Path]] | None) -> Iterator[str]:
    """The text of each row of one part; what is none is refused by its row."""
    source = chosen.hub if local is None else local[part][0].parent
    for number, row in enumerate(_rows(chosen, part, local), start=1):
        where = f"{source}: row {number} of {SPLITS[part]}"
        if "text" not in row:
            raise SpeakError(f"{where} has columns {', '.join(row)}; a column text with strings is needed")
        if chosen.markers:
            yield article(row["text"], where)
        elif isinstance(row["text"], str):
            yield row["text"]
        else:
            raise SpeakError(f"{where}: text is {type(row['text']).__name__}; allowed: a string")


def _rows(chosen: NamedSet, part: str, local: dict[str, list[Path]] | None) -> Iterator[dict[str, Any]]:
    """One part, row by row."""
    datasets = extra("datasets", "speak-neuro[hf]")
    quiet_libraries()
    try:
        if local is not None:
            kind = SUFFIXES[local[part][0].suffix]
            names = {"train": [str(file) for file in local[part]]}
            found = datasets.load_dataset(kind, data_files=names, split="train", streaming=True)
        else:
            found = datasets.load_dataset(
                chosen.hub,
                chosen.config,
                revision=chosen.revision,
                data_files=chosen.data_files,
                split=SPLITS[part],
                streaming=True,
            )
        yield from found
    except SpeakError:
        raise
    except Exception as error:  # what the libraries raise is of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        if local is not None:
            raise SpeakError(
                f"{local[part][0]}: cannot be read ({reason}); give the hub's Parquet or JSON lines"
            ) from None
        raise SpeakError(
            f"{chosen.hub}: cannot be had from the hub ({reason}); without network give local files of its shape: "
            f"--dataset-files FOLDER with {_shape(chosen)}"
        ) from None


def _shape(chosen: NamedSet) -> str:
    if chosen.hub == NAMED["text8"].hub:
        return "text8 or text8.zip"
    names = "*.parquet" if chosen.one_split else "train*.parquet, validation*.parquet and test*.parquet"
    return f"{names} (or .jsonl), column text"


def local_files(folder: Path, chosen: NamedSet) -> dict[str, list[Path]]:
    """The Parquet or JSON-lines files of each part below `folder`, or below its folder named by the language.

    A file belongs to the part that its path names first: train-00000-of-00002.parquet, or train/0000.parquet.
    """
    if not folder.is_dir():
        raise SpeakError(f"{folder}: no such folder; --dataset-files needs a folder with {_shape(chosen)}")
    root = folder / chosen.language if (folder / chosen.language).is_dir() else folder
    found: dict[str, list[Path]] = {part: [] for part in PARTS}
    for file in sorted(file for file in root.rglob("*") if file.suffix in SUFFIXES and file.is_file()):
        path = file.relative_to(root).as_posix().lower()
        places = {part: path.find(part) for part in PARTS if part in path}
        if chosen.one_split or places:
            found["train" if chosen.one_split else min(places, key=lambda part: places[part])].append(file)
    for part in PARTS[:1] if chosen.one_split else PARTS:
        if not found[part]:
            raise SpeakError(f"{root}: holds no file of the {SPLITS[part]} split; it needs {_shape(chosen)}")
        if len({SUFFIXES[file.suffix] for file in found[part]}) > 1:
            raise SpeakError(f"{root}: holds Parquet and JSON of the {SPLITS[part]} split; leave one kind there")
    return found


def _text8_parts(files: Path | None, sizes: dict[str, int]) -> dict[str, Iterator[str]]:
    single = None
    if files is not None:
        single = next((f for f in (files, files / "text8", files / "text8.zip") if f.is_file()), None)
    if single is None:
        chosen = NAMED["text8"]
        local = None if files is None else local_files(files, chosen)
        return {part: _checked(_texts(chosen, part, local), sizes[part], files or chosen.hub) for part in PARTS}
    parts, start = {}, 0
    for part in PARTS:
        parts[part] = _checked(_text8_file(single, start, sizes), sizes[part], single)
        start += sizes[part]
    return parts


def _text8_file(file: Path, start: int, sizes: dict[str, int]) -> Iterator[str]:
    """The characters from `start` on of text8 or text8.zip, as many as the part that begins there has."""
    total = sum(sizes.values())
    end = next(end for end in np.cumsum([sizes[part] for part in PARTS]).tolist() if end > start)
    try:
        with contextlib.ExitStack() as stack:
            stream: IO[bytes]
            if zipfile.is_zipfile(file):
                archive = stack.enter_context(zipfile.ZipFile(file))
                stream, size = stack.enter_context(archive.open("text8")), archive.getinfo("text8").file_size
            else:
                stream, size = stack.enter_context(file.open("rb")), file.stat().st_size
            if size != total:
                raise SpeakError(f"{file}: has {size} bytes, text8 has {total}; give the original text8 or text8.zip")
            stream.seek(start)
            for at in range(start, end, _PIECE):
                yield stream.read(min(_PIECE, end - at)).decode("latin-1")
    except (KeyError, zipfile.BadZipFile) as error:
        raise SpeakError(f"{file}: not the archive of text8 ({error}); give the original text8.zip") from None


def _checked(pieces: Iterable[str], size: int, where: Any) -> Iterator[str]:
    """`pieces`, refused where they are not text8's: other characters than a to z and space, or another length."""
    allowed, count = set(LATIN + " "), 0
    for piece in pieces:
        if not set(piece) <= allowed:
            odd = min(set(piece) - allowed)
            raise SpeakError(f"{where}: holds {odd!r}, text8 has a to z and spaces only; give the original text8")
        count += len(piece)
        yield piece
    if count != size:
        raise SpeakError(f"{where}: a part has {count} characters, text8's has {size}; give the original text8")


def _write(path: Path, pieces: Iterable[str]) -> int:
    count = 0
    with atomic_write(path, "w") as stream:
        for piece in pieces:
            stream.write(piece)
            count += len(piece)
    return count


def _describe(files: Path) -> list[list[Any]]:
    """Name, size and time of local files."""
    if not files.exists():
        raise SpeakError(f"{files}: no such file or folder; --dataset-files names the set's local files")
    found = [files] if files.is_file() else sorted(file for file in files.rglob("*") if file.is_file())
    return [[os.path.relpath(f, files), f.stat().st_size, f.stat().st_mtime_ns] for f in found]


def _recipe_of(folder: Path) -> Any:
    path = folder / RECIPE_FILE
    if path.exists():
        check_regular(path, "remove it")
    with contextlib.suppress(OSError, SpeakError):
        return parse_json(read_whole(path, "it is made anew"), str(path), "it is made anew")
    return None
