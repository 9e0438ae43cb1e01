"""A text of any size for training: ids memory-mapped, exemplar from a sample, its boundaries as packed bits in a file.

Everything is made once, in pieces, in a cache folder that runs share:

    text.json                   the sources with their sizes and times, characters and SHA-256 of the text, the cuts
    train/ valid/ test/         ids of each part (`corpus.character_store`); the alphabet is the train part's
    exemplar-V.json             the exemplar with V pieces at most, learned from a sample of the train part
    boundaries-DIGEST.bits      where the tokens of that exemplar end in the train part (`ProxyStore`)
    NAME.sha256                 of each of the last two files; one that has another is made anew

Up to SAMPLE characters the results are those of the text in memory. Of longer texts the exemplar sees SAMPLE characters
in SAMPLE_BLOCKS blocks at equal distances.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import BoolArray
from speak_neuro.common.digests import DIGEST, check_digest, digest_of, digest_of_file
from speak_neuro.common.files import atomic_write, write_json
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import check_regular, read_whole
from speak_neuro.corpus.character_store import CharacterStore, part_of, source_of
from speak_neuro.corpus.memory_map import release, trim
from speak_neuro.corpus.reader import iterate_text
from speak_neuro.corpus.splits import PARTS, locked, part_files, split_points
from speak_neuro.errors import SpeakError
from speak_neuro.supervision.exemplar import UnigramExemplar
from speak_neuro.supervision.exemplar_stream import stream_boundaries
from speak_neuro.supervision.proxy_file import write_bits
from speak_neuro.text.alphabet import Alphabet

Say = Callable[[str], None]

SCHEMA = 1
INDEX_FILE = "text.json"
SAMPLE = 10_000_000
SAMPLE_BLOCKS = 100


@dataclass(frozen=True)
class StreamedText:
    """The parts of a text in a cache folder."""

    folder: Path
    train: CharacterStore
    valid: CharacterStore
    test: CharacterStore
    sha256: str

    @classmethod
    def prepare(cls, path: Path, cache: Path, say: Say = print) -> StreamedText:
        """The text at `path`, its ids written to a folder below `cache` unless they are there.

        `say` is told what takes its time.
        """
        key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]
        folder = cache / f"{path.resolve().name}-{key}"
        files = part_files(path)
        with locked(folder):
            index = _index(path, files, folder, say)
            say(f"ids of {path} in {folder}")
            stores: list[CharacterStore] = []
            for part in PARTS:
                stores.append(
                    CharacterStore.from_path(
                        path if files is None else files[part],
                        cache=folder / part,
                        alphabet=stores[0].alphabet if stores else None,
                        span=tuple(index["spans"][part]),
                    )
                )
        trim()
        train, valid, test = stores
        return cls(folder, train, valid, test, index["sha256"])

    def exemplar(self, vocabulary: int, say: Say = print) -> UnigramExemplar:
        """An exemplar learned from a sample of the train part."""
        file = self.folder / f"exemplar-{vocabulary}.json"
        with locked(self.folder):
            wanted = (self.folder / INDEX_FILE).stat().st_mtime_ns
            if not is_sealed(file) or file.stat().st_mtime_ns < wanted:
                say("learning the exemplar's pieces")
                UnigramExemplar.train(sample(self.train), vocabulary).save(file)
                seal(file)
        return UnigramExemplar.load(file)

    def train_boundaries(self, exemplar: UnigramExemplar, say: Say = print) -> Path:
        """The file with the exemplar's boundaries in the train part."""
        content = f"{self.sha256} {len(self.train)} {exemplar.to_text()}"
        file = self.folder / f"boundaries-{hashlib.sha256(content.encode()).hexdigest()[:12]}.bits"
        with locked(self.folder):
            if not is_sealed(file):
                say(f"the exemplar's boundaries in {len(self.train):,} characters")
                blocks = stream_boundaries(exemplar, self.train.ids, self.train.alphabet)
                write_bits(file, len(self.train), blocks)
                seal(file)
        return file


def is_sealed(file: Path) -> bool:
    """Whether a file of the cache is there and whole."""
    with contextlib.suppress(OSError):
        return _seal_of(file).read_bytes() == digest_of_file(file).encode()
    return False


def seal(file: Path) -> None:
    """Write the digest of a file of the cache beside it."""
    with atomic_write(_seal_of(file)) as stream:
        stream.write(digest_of_file(file).encode())


def _seal_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def boundaries(exemplar: UnigramExemplar, ids: npt.NDArray[Any], alphabet: Alphabet) -> BoolArray:
    """Where the exemplar's tokens end in a part (n,), in memory."""
    found = list(stream_boundaries(exemplar, ids, alphabet))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.bool_)


def sample(store: CharacterStore, characters: int = SAMPLE, blocks: int = SAMPLE_BLOCKS) -> str:
    """All of a text, or blocks at equal distances with about `characters` characters together."""
    if len(store) <= characters:
        return store.text()
    size = characters // blocks
    starts = np.linspace(0, len(store) - size, blocks).astype(np.int64).tolist()
    found = "\n".join(store.text(start, start + size) for start in starts)
    release(store.ids)
    return found


def _index(path: Path, files: dict[str, Path] | None, folder: Path, say: Say) -> dict[str, Any]:
    """text.json: read, or written after one pass that counts and hashes the text."""
    sources = source_of(path) if files is None else [entry for part in PARTS for entry in source_of(files[part])]
    wanted = {"schema": SCHEMA, "source": sources, "parts": files is not None}
    file, advice = folder / INDEX_FILE, "it is made anew"
    if file.exists():
        check_regular(file, "remove it")  # a pipe would be waited for when it is made anew
    with contextlib.suppress(OSError, SpeakError, KeyError, TypeError, AttributeError):
        stored = parse_json(read_whole(file, advice), str(file), advice)
        check_digest(stored, None, file, advice)
        index = stored["index"]
        if index["made_from"] == wanted:
            return dict(index)
    say(f"counting the characters of {path}")
    for stale in folder.glob("*.bits*"):
        stale.unlink()
    digest, spans = hashlib.sha256(), {}
    for part, file in (files or {"text": path}).items():
        count = 0
        for piece in iterate_text(file):
            digest.update(piece.encode())
            count += len(piece)
        spans[part] = [0, count]
    if files is None:
        length = spans.pop("text")[1]

        def text_between(start: int, end: int) -> str:
            return "".join(part_of(iterate_text(path), start, end))

        first, second = split_points(length, 0.05, 0.05, text_between)
        spans = {"train": [0, first], "valid": [first, second], "test": [second, length]}
    index = {"made_from": wanted, "sha256": digest.hexdigest(), "spans": spans}
    write_json(folder / INDEX_FILE, {"index": index, DIGEST: digest_of({"index": index})})
    return index


def source_bytes(path: str | os.PathLike[str]) -> int:
    """Size of the text's files."""
    files = part_files(path)
    sources = source_of(path) if files is None else [entry for file in files.values() for entry in source_of(file)]
    return sum(size for _, size, _ in sources)
