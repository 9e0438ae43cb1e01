"""Windows of a text: which ones a step reads, as a function of seed and step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import Int64Array
from speak_neuro.corpus.reader import Scalar
from speak_neuro.errors import SpeakError

LARGE_EPOCH = 1 << 22
"""Windows of an epoch whose order is still a list in memory."""


def circular_positions(starts: npt.ArrayLike, length: int, n_positions: int) -> Int64Array:
    """Positions (B, length) of the windows at `starts` (B,), wrapping round the circle 0..n_positions-1."""
    begin = np.asarray(starts, dtype=np.int64)
    if begin.ndim != 1:
        raise ValueError(f"starts have shape {begin.shape}; allowed: (B,)")
    if begin.size and not (begin.min() >= 0 and begin.max() < n_positions):
        raise ValueError(f"starts run from {begin.min()} to {begin.max()}; allowed: 0 to {n_positions - 1}")
    if not 1 <= length <= n_positions:
        raise ValueError(f"length is {length}; allowed: 1 to {n_positions}")
    return (begin[:, None] + np.arange(length)) % n_positions


def windows(ids: npt.NDArray[Scalar], starts: npt.ArrayLike, length: int) -> npt.NDArray[Scalar]:
    """The windows (B, length) of `ids` (n,), in memory or memory-mapped, that begin at `starts` (B,) and wrap round."""
    return np.asarray(ids[circular_positions(starts, length, len(ids))])


class WindowSampler:
    """Which windows each training step reads: a pure function of (seed, epoch, step), so that a resume is exact.

    The text is a circle of `n_positions` characters. Each epoch turns it by a random offset, cuts it into
    floor(n_positions / length) windows that do not overlap, and shuffles them; the fewer than `length` characters left
    over are others in each epoch. Steps take `batch` windows each; the fewer than `batch` windows at the end of the
    shuffled order wait for another epoch. Up to LARGE_EPOCH windows are shuffled as a list; the order of more is a
    keyed permutation, computed batch by batch.
    """

    def __init__(self, n_positions: int, length: int, batch: int, seed: int = 0) -> None:
        for name, value, least in (("length", length, 1), ("batch", batch, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"{name} is {value}; allowed: at least {least}")
        if n_positions < length:
            raise SpeakError(
                f"text has {n_positions} characters, a window needs {length}: "
                f"give more text{_hint('--window', 64, n_positions)}"
            )
        self.n_positions, self.length, self.batch, self.seed = n_positions, length, batch, seed
        self.n_windows = n_positions // length
        if self.n_windows < batch:
            raise SpeakError(
                f"text has {self.n_windows} windows of {length} characters, a batch needs {batch}: "
                f"give more text{_hint('--batch', self.n_windows, self.n_windows)}"
            )
        self._epoch: tuple[int, Int64Array] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return self.n_windows // self.batch

    def epoch_starts(self, epoch: int) -> Int64Array:
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
            self._epoch = epoch, (offset + order * self.length) % self.n_positions
        return self._epoch[1]

    def starts(self, epoch: int, step: int) -> Int64Array:
        """The start positions (batch,) of one step of an epoch."""
        if not 0 <= step < self.steps_per_epoch:
            raise ValueError(f"step is {step}; allowed: 0 to {self.steps_per_epoch - 1}")
        first, last = step * self.batch, (step + 1) * self.batch
        if self.n_windows > LARGE_EPOCH:
            return self._some_starts(epoch, np.arange(first, last))
        return self.epoch_starts(epoch)[first:last].copy()

    def _some_starts(self, epoch: int, places: Int64Array) -> Int64Array:
        """The start positions of the windows at some places of an epoch's order."""
        source = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
        offset = int(source.random_raw() % self.n_positions)
        order = permuted(places, self.n_windows, source.random_raw(4))
        return np.asarray((offset + order * self.length) % self.n_positions)

    def starts_at(self, step: int) -> Int64Array:
        """The start positions of the step-th step since the start of training, epochs counted through."""
        return self.starts(*divmod(step, self.steps_per_epoch))


def permuted(places: Int64Array, count: int, keys: npt.NDArray[np.uint64]) -> Int64Array:
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
