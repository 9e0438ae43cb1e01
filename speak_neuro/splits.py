"""Where a text's train, validation and test parts come from.

a file, or a folder of .txt files        one text, cut 90 / 5 / 5 at text borders (`speak_neuro.corpus.split`)
a folder with train.txt, valid.txt       the parts as they are; validation.txt will do for valid.txt
(or validation.txt) and test.txt
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from speak_neuro.command import check_writable
from speak_neuro.corpus import Splits, embedded_text, read_text, split
from speak_neuro.errors import SpeakError

PARTS = ("train", "valid", "test")
FILES = {"train": ("train.txt",), "valid": ("valid.txt", "validation.txt"), "test": ("test.txt",)}


def part_files(path: str | os.PathLike[str]) -> dict[str, Path] | None:
    """The files of a folder that holds its parts as they are; None for any other file or folder.

    As one text, what looks like parts in another way would be trained on its own test part, so it is refused.
    """
    root = Path(path)
    if not (root / "train.txt").is_file():
        beside = [name for part in ("valid", "test") for name in FILES[part] if (root / name).is_file()]
        if beside:
            raise SpeakError(f"{root}: holds {beside[0]} and no train.txt; give all three parts, or one text's file")
        below = sorted({file.parent for file in root.rglob("train.txt") if file.with_name("test.txt").is_file()})
        if below:
            raise SpeakError(
                f"{root}: holds texts cut into parts in folders below; name one of them, such as {below[0]}"
            )
        return None
    found = {}
    for part, names in FILES.items():
        files = [root / name for name in names if (root / name).is_file()]
        if len(files) != 1:
            state = "both " + " and ".join(names) if files else f"train.txt and no {' or '.join(names)}"
            raise SpeakError(f"{root}: holds {state}; give all three parts, or one text without parts")
        found[part] = files[0]
    return found


def read_splits(path: str | os.PathLike[str] | None) -> Splits:
    """The three parts in memory; of the embedded English text when `path` is None."""
    files = None if path is None else part_files(path)
    if files is not None:
        return Splits(*(read_text(files[part]) for part in PARTS))
    return split(embedded_text() if path is None else read_text(path))


def digest(pieces: Iterable[str]) -> str:
    """SHA-256 of the UTF-8 of a text given in pieces."""
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece.encode())
    return found.hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time in a cache folder; others wait."""
    check_writable(folder / "lock")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as stream:
        with contextlib.suppress(
            ImportError
        ):  # where there are no such locks, one process at a time is the user's care
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
