"""Proxy spikes: for every character of the corpus one bit that says whether the neuron should fire there (Eq. 13).

Training reads windows that differ from epoch to epoch, so the bits belong to positions of the corpus, not to windows;
the corpus is a circle, as for `corpus.windows.WindowSampler`. A second bit says whether a position was visited:
acceptance applies to a window only once all its positions were. 100 million characters take 25 MB.

In a file the store is memory-mapped and changed in place, so after a crash it may be ahead of the last checkpoint:
a checkpoint keeps `snapshot()`, and resuming calls `restore()`. Where a copy of all bits is too much for a checkpoint,
`speak_neuro.supervision.proxy_file` keeps what changed since.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from speak_neuro.common.files import atomic_write
from speak_neuro.corpus.windows import circular_positions
from speak_neuro.errors import SpeakError

BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]

# magic, version, padding, first position, number of positions; then the proxy bits, then the visited bits
HEADER = struct.Struct("<8sI4xQQ")
MAGIC = b"SPKPROXY"
VERSION = 1
Store = TypeVar("Store", bound="ProxyStore")

_CHUNK = 1 << 24
_BITS_SET = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)


class ProxyStore:
    """Two bits for each of the positions first..first+n_positions-1; made by `create`, `zeros` or `open`.

    Positions are those of the whole corpus. A rank that owns a part of it has a store of that part, and windows wrap
    round within the part.
    """

    def __init__(self, planes: ByteArray, n_positions: int, first: int = 0) -> None:
        if planes.shape != (2, _bytes(n_positions)) or planes.dtype != np.uint8:
            raise ValueError(
                f"planes have shape {planes.shape} and type {planes.dtype}; allowed: (2, {_bytes(n_positions)}) uint8"
            )
        self.n_positions, self.first = n_positions, first
        self._planes = planes
        self._proxy, self._seen = planes[0], planes[1]

    @classmethod
    def zeros(cls, path: str | os.PathLike[str] | None, n_positions: int, first: int = 0) -> ProxyStore:
        """A store without spikes or visits, in memory when `path` is None; fill it piece by piece with `assign`."""
        if n_positions < 1 or first < 0:
            raise ValueError(f"n_positions is {n_positions}, first {first}; allowed: at least 1 and at least 0")
        if path is None:
            return cls(np.zeros((2, _bytes(n_positions)), dtype=np.uint8), n_positions, first)
        with atomic_write(path) as stream:
            stream.write(HEADER.pack(MAGIC, VERSION, first, n_positions))
            stream.truncate(HEADER.size + 2 * _bytes(n_positions))
        return cls.open(path)

    @classmethod
    def create(cls, path: str | os.PathLike[str] | None, bits: npt.ArrayLike, first: int = 0) -> ProxyStore:
        """A store that holds the spikes `bits` (n,), none visited, in memory when `path` is None."""
        spikes = np.asarray(bits)
        if spikes.ndim != 1:
            raise ValueError(f"bits have shape {spikes.shape}; allowed: (n,)")
        store = cls.zeros(path, len(spikes), first)
        store.assign(first, spikes)
        return store

    @classmethod
    def open(cls: type[Store], path: str | os.PathLike[str]) -> Store:
        """The store in the file `path`, memory-mapped for reading and writing."""
        file = Path(path)
        try:
            with file.open("rb") as stream:
                head = stream.read(HEADER.size)
            size = file.stat().st_size
        except OSError as error:
            raise SpeakError(f"{file}: cannot be read ({error.strerror}); give a proxy store") from None
        magic, version, first, count = HEADER.unpack(head) if len(head) == HEADER.size else (b"", 0, 0, 0)
        if magic != MAGIC:
            raise SpeakError(f"{file}: not a proxy store; give the file that ProxyStore.create wrote")
        if version != VERSION:
            raise SpeakError(f"{file}: proxy store version {version}, this version reads {VERSION}; update speak-neuro")
        if count < 1 or size != HEADER.size + 2 * _bytes(count):
            raise SpeakError(f"{file}: {size} bytes do not fit {count} positions; the file is damaged, make it again")
        planes = np.memmap(file, dtype=np.uint8, mode="r+", offset=HEADER.size, shape=(2, _bytes(count)))
        return cls(planes, count, first)

    def read(self, starts: npt.ArrayLike, length: int) -> BoolArray:
        """The proxy spikes (B, length) of the windows at `starts` (B,)."""
        return self._gather(self._proxy, starts, length)

    def visited(self, starts: npt.ArrayLike, length: int) -> BoolArray:
        """For each window at `starts` (B,) whether all its positions were visited: the first visit only looks."""
        return np.asarray(self._gather(self._seen, starts, length).all(axis=1))

    def write(self, starts: npt.ArrayLike, bits: npt.ArrayLike, accepted: npt.ArrayLike | None = None) -> None:
        """Put the spikes `bits` (B, L) into the windows at `starts` (B,), rows where `accepted` (B,) is False left out.

        Where windows overlap the later row stays.
        """
        spikes = np.asarray(bits)
        rows = np.asarray(starts, dtype=np.int64)
        if spikes.ndim != 2 or rows.shape != spikes.shape[:1]:
            raise ValueError(f"starts have shape {rows.shape}, bits {spikes.shape}; allowed: (B,) and (B, L)")
        chosen = np.ones(len(rows), dtype=np.bool_) if accepted is None else np.asarray(accepted, dtype=np.bool_)
        if chosen.shape != rows.shape:
            raise ValueError(f"accepted has shape {chosen.shape}; allowed: {rows.shape}")
        circular_positions(rows, spikes.shape[1], self.n_positions, self.first)  # checks starts and length
        for start, row in zip((rows[chosen] - self.first).tolist(), spikes[chosen], strict=True):
            self._put(self._proxy, start, row)

    def mark_visited(self, starts: npt.ArrayLike, length: int) -> None:
        """Count the windows at `starts` (B,) as visited."""
        circular_positions(starts, length, self.n_positions, self.first)
        ones = np.ones(length, dtype=np.bool_)
        for start in (np.asarray(starts, dtype=np.int64) - self.first).tolist():
            self._put(self._seen, start, ones)

    def assign(self, start: int, bits: npt.ArrayLike) -> None:
        """Put the spikes `bits` (n,) at the positions from `start` on, without wrapping round."""
        spikes = np.asarray(bits)
        begin = start - self.first
        if spikes.ndim != 1 or begin < 0 or begin + len(spikes) > self.n_positions:
            raise ValueError(
                f"bits have shape {spikes.shape}, start is {start}; allowed: (n,) within positions "
                f"{self.first} to {self.first + self.n_positions - 1}"
            )
        for at in range(0, len(spikes), _CHUNK):
            self._put(self._proxy, begin + at, spikes[at : at + _CHUNK])

    def rate(self) -> float:
        """Share of the positions that hold a spike; 1 / rate is the proxy's shortening factor."""
        chunks = range(0, len(self._proxy), _CHUNK)
        return sum(int(_BITS_SET[self._proxy[at : at + _CHUNK]].sum()) for at in chunks) / self.n_positions

    def snapshot(self) -> ByteArray:
        """A copy of all bits, (2, ceil(n / 8)) uint8: proxy and visited, first position in the highest bit."""
        return np.array(self._planes)

    def restore(self, snapshot: npt.ArrayLike) -> None:
        """Put back what `snapshot` returned."""
        planes = np.asarray(snapshot)
        if planes.shape != self._planes.shape or planes.dtype != np.uint8:
            raise SpeakError(
                f"proxy snapshot has shape {planes.shape} and type {planes.dtype}, this corpus of {self.n_positions} "
                f"characters needs {self._planes.shape} uint8; resume with the text the run began with"
            )
        self._planes[...] = planes

    def release(self) -> None:
        """Give back the memory of a memory-mapped store's pages; nothing to do in memory."""

    def flush(self) -> None:
        """Write a memory-mapped store's changes to its file; nothing to do in memory."""
        if isinstance(self._planes, np.memmap):
            self._planes.flush()

    def _gather(self, plane: ByteArray, starts: npt.ArrayLike, length: int) -> BoolArray:
        at = circular_positions(starts, length, self.n_positions, self.first) - self.first
        return np.asarray((plane[at >> 3] >> (7 - (at & 7)).astype(np.uint8)) & 1, dtype=np.bool_)

    def _put(self, plane: ByteArray, start: int, bits: npt.NDArray[np.generic]) -> None:
        """Bits at the local positions from `start` on, wrapping round; the rest of the outer bytes is kept."""
        until_end = self.n_positions - start
        for begin, piece in ((start, bits[:until_end]), (0, bits[until_end:])):
            if len(piece):
                low, high = begin >> 3, _bytes(begin + len(piece))
                self._changing(plane, low, high)
                block = np.unpackbits(plane[low:high])
                block[begin - 8 * low : begin - 8 * low + len(piece)] = piece != 0
                plane[low:high] = np.packbits(block)

    def _changing(self, plane: ByteArray, low: int, high: int) -> None:
        """Called before the bytes low..high-1 of a plane change."""


def _bytes(n_bits: int) -> int:
    return (n_bits + 7) // 8
