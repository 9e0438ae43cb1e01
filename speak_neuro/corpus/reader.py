"""Text for training and measuring: read it, split it, cut it into windows.

Characters are taken as they are: no newline translation, no stripped byte order mark, no normalisation. Texts larger
than memory go through `speak_neuro.corpus.character_store`, which uses the same reader and the same windows.
"""

from __future__ import annotations

import codecs
import lzma
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TypeVar

import numpy as np

from speak_neuro.errors import SpeakError

Scalar = TypeVar("Scalar", bound=np.generic)

DOCUMENT_BREAK = "\n\n"
CHUNK_BYTES = 1 << 22


def text_files(path: str | os.PathLike[str]) -> list[Path]:
    """The file `path`, or the .txt files below the folder `path`, sorted by their path."""
    root = Path(path)
    if root.is_dir():
        files = sorted((p for p in root.rglob("*.txt") if p.is_file()), key=lambda p: p.relative_to(root).parts)
        if not files:
            raise SpeakError(f"{root}: the folder holds no .txt file; give a UTF-8 text file or a folder of .txt files")
        return files
    if not root.exists():
        raise SpeakError(f"{root}: no such file or folder; give a UTF-8 text file or a folder of .txt files")
    return [root]


def iterate_text(path: str | os.PathLike[str], chunk_bytes: int = CHUNK_BYTES) -> Iterator[str]:
    """The text of a UTF-8 file, or of a folder's .txt files with a blank line between them, in pieces.

    Characters that a piece's end would cut in two arrive whole. Empty files of a folder are passed over.
    """
    found_any = False
    for file in text_files(path):
        first = True
        for piece in _decode_file(file, chunk_bytes):
            if first and found_any:
                yield DOCUMENT_BREAK
            first, found_any = False, True
            yield piece
    if not found_any:
        raise SpeakError(f"{os.fspath(path)}: the text is empty; give at least one character")


def read_text(path: str | os.PathLike[str]) -> str:
    """All of `iterate_text` as one string."""
    return "".join(iterate_text(path))


def _decode_file(file: Path, chunk_bytes: int) -> Iterator[str]:
    """The non-empty pieces of one UTF-8 file; a bad byte is named by its offset in the file."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    consumed = 0
    try:
        with file.open("rb") as stream:
            while True:
                block = stream.read(chunk_bytes)
                held = len(decoder.getstate()[0])  # bytes of a character that the last block began
                try:
                    piece = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    at = consumed - held + error.start
                    raise SpeakError(
                        f"{file}: byte {at} is not UTF-8 (0x{error.object[error.start]:02x}, {error.reason}); "
                        "convert the file to UTF-8"
                    ) from None
                consumed += len(block)
                if piece:
                    yield piece
                if not block:
                    return
    except OSError as error:
        raise SpeakError(f"{file}: cannot be read ({error.strerror or error}); give a readable UTF-8 file") from None


def embedded_names() -> list[str]:
    """Names of the texts that come with the package; their sources and licences are in `data/SOURCES.md`."""
    files = (entry.name for entry in resources.files("speak_neuro.data").iterdir())
    return sorted(name.removesuffix(".txt.xz") for name in files if name.endswith(".txt.xz"))


def embedded_text(name: str = "en") -> str:
    """A text that comes with the package: "en" is about 1 MB of English, the others are samples for tests."""
    if name not in embedded_names():
        raise SpeakError(f"no embedded text is called {name!r}; there are: {', '.join(embedded_names())}")
    packed = resources.files("speak_neuro.data").joinpath(f"{name}.txt.xz").read_bytes()
    return lzma.decompress(packed).decode("utf-8")
