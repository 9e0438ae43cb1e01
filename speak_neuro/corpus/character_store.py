"""A text's character ids, memory-mapped, for texts too large for memory: 10 GB train in under 2 GB.

The text is read twice in pieces: once to learn the alphabet, once to write the ids. On disk a store is a folder:

    ids.bin        n ids, little-endian, of the smallest of uint8, uint16 and uint32 that holds the alphabet
    store.json     schema, number of characters, type, alphabet, and the source files with their sizes and times
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.digests import DIGEST, check_digest, digest_of, digest_of_file
from speak_neuro.common.files import atomic_write, write_json
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import read_whole
from speak_neuro.corpus.reader import iterate_text, text_files
from speak_neuro.errors import SpeakError
from speak_neuro.text.alphabet import Alphabet

Ids = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

SCHEMA = 2
IDS_FILE, INDEX_FILE = "ids.bin", "store.json"


@dataclass(frozen=True)
class CharacterStore:
    """The ids (n,) of a text and the alphabet they belong to. `ids` may be a read-only memory map."""

    ids: Ids
    alphabet: Alphabet

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_path(
        cls,
        path: str | os.PathLike[str],
        cache: str | os.PathLike[str],
        alphabet: Alphabet | None = None,
        span: tuple[int, int | None] = (0, None),
    ) -> CharacterStore:
        """The ids of a file or a folder of .txt files, or of its characters `span` alone.

        They are written once to the folder `cache`, which is used again as long as the sources and a given alphabet are
        the same.
        """
        folder = Path(cache)
        wanted = {"source": source_of(path), "span": list(span), "alphabet": alphabet and alphabet.to_json()}
        if _is_current(folder, wanted):
            return cls.open(folder)
        known = alphabet or Alphabet.learn(part_of(iterate_text(path), *span))
        kind = _id_type(known)
        (folder / INDEX_FILE).unlink(missing_ok=True)  # a failure below must not leave a stale pair
        count, digest = 0, hashlib.sha256()
        with atomic_write(folder / IDS_FILE) as stream:
            for piece in part_of(iterate_text(path), *span):
                written = known.encode(piece).astype(kind).tobytes()
                stream.write(written)
                digest.update(written)
                count += len(piece)
        index = {"schema": SCHEMA, "characters": count, "type": kind.name, "alphabet": known.to_json()}
        index |= {"ids_sha256": digest.hexdigest(), "made_from": wanted}
        write_json(folder / INDEX_FILE, {**index, DIGEST: digest_of(index)})
        return cls.open(folder, verify=False)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], verify: bool = True) -> CharacterStore:
        """The store that `from_path` wrote, memory-mapped read-only; `verify` reads it once to check its digest."""
        index = _read_index(Path(folder))
        try:
            count, kind = index["characters"], np.dtype(index["type"]).newbyteorder("<")
            if type(count) is not int or count < 0 or kind.kind != "u":
                raise ValueError(f"{count!r} characters of type {index['type']!r}")
            alphabet = Alphabet.from_json(index["alphabet"])
            size = (Path(folder) / IDS_FILE).stat().st_size
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise SpeakError(f"{os.fspath(folder)}: not a complete character store ({error}); delete it") from None
        if size != count * kind.itemsize:
            raise SpeakError(
                f"{Path(folder) / IDS_FILE}: {size} bytes where {count * kind.itemsize} belong; delete the folder"
            )
        if verify and digest_of_file(Path(folder) / IDS_FILE) != index["ids_sha256"]:
            raise SpeakError(f"{Path(folder) / IDS_FILE}: was damaged since it was written; delete the folder")
        if count == 0:
            return cls(np.zeros(0, dtype=kind), alphabet)
        return cls(np.memmap(Path(folder) / IDS_FILE, dtype=kind, mode="r", shape=(count,)), alphabet)

    def text(self, start: int = 0, end: int | None = None) -> str:
        """The characters start..end, unknown ones as U+FFFD."""
        return self.alphabet.decode_lossy(np.asarray(self.ids[start:end]))


def part_of(pieces: Iterable[str], start: int = 0, end: int | None = None) -> Iterator[str]:
    """The characters start..end of a text given in pieces, in pieces."""
    at, last = 0, sys.maxsize if end is None else end
    for piece in pieces:
        chosen = piece[max(start - at, 0) : max(last - at, 0)]
        at += len(piece)
        if chosen:
            yield chosen
        if at >= last:
            return


def _id_type(alphabet: Alphabet) -> np.dtype[Any]:
    kind = next(kind for bits, kind in ((8, np.uint8), (16, np.uint16), (32, np.uint32)) if len(alphabet) <= 1 << bits)
    return np.dtype(kind).newbyteorder("<")


def source_of(path: str | os.PathLike[str]) -> list[list[Any]]:
    """Path, size and modification time of each source file: what decides whether a cache is current."""
    found = []
    for file in text_files(path):
        status = file.stat()
        found.append([str(file.resolve()), status.st_size, status.st_mtime_ns])
    return found


def _read_index(folder: Path) -> dict[str, Any]:
    file, advice = folder / INDEX_FILE, "delete the folder to have it remade"
    try:
        index = parse_json(read_whole(file, advice), str(file), advice)
    except (OSError, SpeakError) as error:
        raise SpeakError(f"{file}: not the index of a character store ({type(error).__name__}); delete it") from None
    if not isinstance(index, dict) or index.get("schema") != SCHEMA:
        found = index.get("schema") if isinstance(index, dict) else None
        raise SpeakError(f"{file}: schema {found!r}, this version reads {SCHEMA}; delete the folder to have it remade")
    check_digest(index, None, file, advice)
    return index


def _is_current(folder: Path, wanted: dict[str, Any]) -> bool:
    try:
        return (
            bool(_read_index(folder).get("made_from") == wanted) and len(CharacterStore.open(folder, verify=False)) > 0
        )
    except SpeakError:
        return False
