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

from speak_neuro.common.array_types import BoolArray, ByteArray
from speak_neuro.common.regular import check_regular
from speak_neuro.corpus.windows import circular_positions
from speak_neuro.errors import SpeakError

# magic, version, padding, 0, number of positions; then the proxy bits, then the visited bits
HEADER = struct.Struct("<8sI4xQQ")
MAGIC = b"SPKPROXY"
VERSION = 1
Store = TypeVar("Store", bound="ProxyStore")


class ProxyStore:
    """Two bits for each of n_positions positions; made by `create` or `open`."""

    def __init__(self, planes: ByteArray, n_positions: int) -> None:
        if planes.shape != (2, _bytes(n_positions)) or planes.dtype != np.uint8:
            raise ValueError(
                f"planes have shape {planes.shape} and type {planes.dtype}; allowed: (2, {_bytes(n_positions)}) uint8"
            )
        self.n_positions = n_positions
        self._planes = planes
        self._proxy, self._seen = planes[0], planes[1]

    @classmethod
    def create(cls, bits: npt.ArrayLike) -> ProxyStore:
        """A store in memory that holds the spikes `bits` (n,), none visited."""
        spikes = np.asarray(bits)
        if spikes.ndim != 1 or not spikes.size:
            raise ValueError(f"bits have shape {spikes.shape}; allowed: (n,), n at least 1")
        planes = np.zeros((2, _bytes(spikes.size)), dtype=np.uint8)
        planes[0] = np.packbits(spikes != 0)
        return cls(planes, spikes.size)

    @classmethod
    def open(cls: type[Store], path: str | os.PathLike[str]) -> Store:
        """The store in the file `path`, memory-mapped for reading and writing."""
        file = Path(path)
        try:
            size = check_regular(file, "give a proxy store")
            with file.open("rb") as stream:
                head = stream.read(HEADER.size)
        except OSError as error:
            raise SpeakError(f"{file}: cannot be read ({error.strerror}); give a proxy store") from None
        magic, version, _, count = HEADER.unpack(head) if len(head) == HEADER.size else (b"", 0, 0, 0)
        if magic != MAGIC:
            raise SpeakError(f"{file}: not a proxy store; give the file that write_bits wrote")
        if version != VERSION:
            raise SpeakError(f"{file}: proxy store version {version}, this version reads {VERSION}; update speak-neuro")
        if count < 1 or size != HEADER.size + 2 * _bytes(count):
            raise SpeakError(f"{file}: {size} bytes do not fit {count} positions; the file is damaged, make it again")
        planes = np.memmap(file, dtype=np.uint8, mode="r+", offset=HEADER.size, shape=(2, _bytes(count)))
        return cls(planes, count)

    def check_length(self, characters: int) -> None:
        """Refuse a store of another text: the bytes of a file tell its length to within seven positions alone."""
        if self.n_positions != characters:
            raise SpeakError(
                f"the proxy store has {self.n_positions:,} positions, the text {characters:,} characters; it is of "
                "another text, or damaged: begin the run anew, --overwrite"
            )

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
        circular_positions(rows, spikes.shape[1], self.n_positions)  # checks starts and length
        for start, row in zip(rows[chosen].tolist(), spikes[chosen], strict=True):
            self._put(self._proxy, start, row)

    def mark_visited(self, starts: npt.ArrayLike, length: int) -> None:
        """Count the windows at `starts` (B,) as visited."""
        circular_positions(starts, length, self.n_positions)
        ones = np.ones(length, dtype=np.bool_)
        for start in np.asarray(starts, dtype=np.int64).tolist():
            self._put(self._seen, start, ones)

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

    def _gather(self, plane: ByteArray, starts: npt.ArrayLike, length: int) -> BoolArray:
        at = circular_positions(starts, length, self.n_positions)
        return np.asarray((plane[at >> 3] >> (7 - (at & 7)).astype(np.uint8)) & 1, dtype=np.bool_)

    def _put(self, plane: ByteArray, start: int, bits: npt.NDArray[np.generic]) -> None:
        """Bits at the positions from `start` on, wrapping round; the rest of the outer bytes is kept."""
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
