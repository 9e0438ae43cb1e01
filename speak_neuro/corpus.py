"""Text for training and measuring: read it, split it, cut it into windows.

Characters are taken as they are: no newline translation, no stripped byte order mark, no normalisation. Texts larger
than memory go through `speak_neuro.character_store`, which uses the same reader and the same windows.
"""

from __future__ import annotations

import codecs
import lzma
import os
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError

IndexArray = npt.NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)

DOCUMENT_BREAK = "\n\n"
CHUNK_BYTES = 1 << 22
LONGEST_PART = 10_000_000
"""Characters of a validation or test part that `split` cuts off, at most."""
SEARCH = 1 << 20
"""Characters before and after a cut in which `split` looks for a border, at most."""
LARGE_EPOCH = 1 << 22
"""Windows of an epoch whose order is still a list in memory."""


class Splits(NamedTuple):
    """Three consecutive parts of one text."""

    train: str
    valid: str
    test: str


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


def circular_positions(starts: npt.ArrayLike, length: int, n_positions: int, first: int = 0) -> IndexArray:
    """Positions (B, length) of the windows at `starts` (B,), wrapping round the circle first..first+n_positions-1."""
    begin = np.asarray(starts, dtype=np.int64)
    if begin.ndim != 1:
        raise ValueError(f"starts have shape {begin.shape}; allowed: (B,)")
    if begin.size and not (begin.min() >= first and begin.max() < first + n_positions):
        raise ValueError(
            f"starts run from {begin.min()} to {begin.max()}; allowed: {first} to {first + n_positions - 1}"
        )
    if not 1 <= length <= n_positions:
        raise ValueError(f"length is {length}; allowed: 1 to {n_positions}")
    return first + (begin[:, None] - first + np.arange(length)) % n_positions


def windows(ids: npt.NDArray[Scalar], starts: npt.ArrayLike, length: int) -> npt.NDArray[Scalar]:
    """The windows (B, length) of `ids` (n,), in memory or memory-mapped, that begin at `starts` (B,) and wrap round."""
    return np.asarray(ids[circular_positions(starts, length, len(ids))])


class WindowSampler:
    """Which windows each training step reads: a pure function of (seed, epoch, step), so that a resume is exact.

    The text is a circle of `n_positions` characters. Each epoch turns it by a random offset, cuts it into
    floor(n_positions / length) windows that do not overlap, and shuffles them; the fewer than `length` characters left
    over are others in each epoch. Steps take `batch` windows each. With `drop_last` every batch is full, and the fewer
    than `batch` windows at the end of the shuffled order wait for another epoch; without, the last batch is smaller.
    Up to LARGE_EPOCH windows are shuffled as a list; the order of more is a keyed permutation, computed batch by batch.
    `first` is the position the circle begins at, for a rank that owns a part of a longer text.
    """

    def __init__(
        self, n_positions: int, length: int, batch: int, seed: int = 0, drop_last: bool = True, first: int = 0
    ) -> None:
        for name, value, least in (("length", length, 1), ("batch", batch, 1), ("seed", seed, 0), ("first", first, 0)):
            if value < least:
                raise ValueError(f"{name} is {value}; allowed: at least {least}")
        if n_positions < length:
            raise SpeakError(
                f"text has {n_positions} characters, a window needs {length}: "
                f"give more text{_hint('--window', 64, n_positions)}"
            )
        self.n_positions, self.length, self.batch = n_positions, length, batch
        self.seed, self.drop_last, self.first = seed, drop_last, first
        self.n_windows = n_positions // length
        if drop_last and self.n_windows < batch:
            raise SpeakError(
                f"text has {self.n_windows} windows of {length} characters, a batch needs {batch}: "
                f"give more text{_hint('--batch', self.n_windows, self.n_windows)}"
            )
        self._epoch: tuple[int, IndexArray] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return self.n_windows // self.batch if self.drop_last else -(-self.n_windows // self.batch)

    def epoch_starts(self, epoch: int) -> IndexArray:
        """The start positions (n_windows,) of an epoch's windows, in the order in which they are read."""
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}; allowed: at least 0")
        if self.n_windows > LARGE_EPOCH:
            return self._some_starts(epoch, np.arange(self.n_windows))
        if self._epoch is None or self._epoch[0] != epoch:
            # Raw bits and a stable sort, not Generator.permutation: only bit generators promise the same stream in
            # every version of numpy.
            source = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
            offset = int(source.random_raw() % self.n_positions)
            order = np.argsort(source.random_raw(self.n_windows), kind="stable")
            self._epoch = epoch, self.first + (offset + order * self.length) % self.n_positions
        return self._epoch[1]

    def starts(self, epoch: int, step: int) -> IndexArray:
        """The start positions (batch,) of one step of an epoch."""
        if not 0 <= step < self.steps_per_epoch:
            raise ValueError(f"step is {step}; allowed: 0 to {self.steps_per_epoch - 1}")
        first, last = step * self.batch, min((step + 1) * self.batch, self.n_windows)
        if self.n_windows > LARGE_EPOCH:
            return self._some_starts(epoch, np.arange(first, last))
        return self.epoch_starts(epoch)[first:last].copy()

    def _some_starts(self, epoch: int, places: IndexArray) -> IndexArray:
        """The start positions of the windows at some places of an epoch's order."""
        source = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
        offset = int(source.random_raw() % self.n_positions)
        order = permuted(places, self.n_windows, source.random_raw(4))
        return np.asarray(self.first + (offset + order * self.length) % self.n_positions)

    def starts_at(self, step: int) -> IndexArray:
        """The start positions of the step-th step since the start of training, epochs counted through."""
        return self.starts(*divmod(step, self.steps_per_epoch))


def permuted(places: IndexArray, count: int, keys: npt.NDArray[np.uint64]) -> IndexArray:
    """Where a permutation of 0..count-1 takes `places`, without a list of it.

    A Feistel network permutes the smallest 4^k >= count numbers, left, right -> right, left + f(right, key); what falls
    outside is sent through again until it falls inside.
    """
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    found = places.astype(np.uint64)
    outside = np.arange(len(found))
    while len(outside):
        left, right = found[outside] >> half, found[outside] & mask
        for key in keys:
            mixed = (right ^ key) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            left, right = right, (left + (mixed ^ (mixed >> np.uint64(31)))) & mask
        found[outside] = (left << half) | right
        outside = outside[found[outside] >= count]
    return found.astype(np.int64)


def _hint(flag: str, usual: int, possible: int) -> str:
    value = min(usual, possible)
    return f" or {flag} {value}" if value >= 1 else ""
