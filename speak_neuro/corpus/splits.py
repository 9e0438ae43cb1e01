"""Where a text's train, validation and test parts come from.

a file, or a folder of .txt files        one text, cut 90 / 5 / 5 at text borders (`speak_neuro.corpus.splits.split`)
a folder with train.txt, valid.txt       the parts as they are; validation.txt will do for valid.txt
(or validation.txt) and test.txt
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock

from speak_neuro.common.files import check_writable
from speak_neuro.corpus.reader import DOCUMENT_BREAK, embedded_text, read_text
from speak_neuro.errors import SpeakError

LONGEST_PART = 10_000_000
"""Characters of a validation or test part that `split` cuts off, at most."""
SEARCH = 1 << 20
"""Characters before and after a cut in which `split` looks for a border, at most."""

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
    with FileLock(folder / "lock"):
        yield


class Splits(NamedTuple):
    """Three consecutive parts of one text."""

    train: str
    valid: str
    test: str


def split(text: str, valid: float = 0.05, test: float = 0.05) -> Splits:
    """Cut `text` in three, in order: train, then a `valid` and a `test` share of the characters, 10 million at most.

    Each cut moves to the nearest paragraph border, or else line border, or else word border, that lies within a tenth
    of the smaller share. The same text is always cut the same way; joining the parts gives it back.
    """
    first, second = split_points(len(text), valid, test, lambda start, end: text[start:end])
    return Splits(text[:first], text[first:second], text[second:])


def split_points(length: int, valid: float, test: float, text_between: Callable[[int, int], str]) -> tuple[int, int]:
    """The two cuts of `split` for `length` characters; `text_between(start, end)` gives the text around a cut."""
    for name, share in (("valid", valid), ("test", test)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}; allowed: 0 to below 1")
    if valid + test >= 1:
        raise ValueError(f"valid + test is {valid + test}; allowed: below 1")
    sizes = {"valid": min(round(length * valid), LONGEST_PART), "test": min(round(length * test), LONGEST_PART)}
    sizes["train"] = length - sum(sizes.values())
    wanted = {"train": 1.0 - valid - test, "valid": valid, "test": test}
    if any(sizes[name] < 1 for name, share in wanted.items() if share > 0):
        needed = int(np.ceil(1 / min(share for share in wanted.values() if share > 0)))
        parts = ", ".join(f"{name} {sizes[name]}" for name in ("train", "valid", "test"))
        raise SpeakError(f"text has {length} characters, too few to split ({parts}); give at least {needed}")
    radius = min(int(min((share for share in (valid, test) if share > 0), default=0.0) * length / 10), SEARCH)
    cuts = []
    for target in (sizes["train"], sizes["train"] + sizes["valid"]):
        movable = 0 < target < length
        low, high = (max(0, target - radius), min(length, target + radius)) if movable else (target, target)
        cuts.append(low + _nearest_border(text_between(low, high), target - low) if movable else target)
    return cuts[0], cuts[1]


def _nearest_border(text: str, target: int) -> int:
    """The offset in `text` nearest to `target` after a blank line, or else a line's end, or a space; else `target`."""
    for border in ("\r\n\r\n", DOCUMENT_BREAK, "\n", " "):
        before = text.rfind(border, 0, target)
        after = text.find(border, max(0, target - len(border)))
        places = [at + len(border) for at in (before, after) if at >= 0]
        if places:
            return min(places, key=lambda place: (abs(place - target), place))
    return target
