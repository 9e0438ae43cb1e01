"""Proxy spikes of a text too large to copy at every checkpoint: a memory-mapped file, and what changed since when.

    proxy.bits          the bits, changed in place (`ProxyStore`)
    proxy.bits.N        journal N: the bytes that were overwritten after snapshot N, in order

A snapshot is a number, and the CRC-32 of each BLOCK of the file at that moment, which the checkpoint so holds for it.
Going back to snapshot N undoes the journals N, N + 1, ... from the last record to the first, and the blocks have to be
what they were. A block is also checked before its first change since a snapshot, so a fault is found, not counted in.
Training begins with snapshot 0. The three latest journals are kept: when snapshot N + 1 is taken, the checkpoint that
holds it is not yet on disk, the newest there holds N, and the one before it, which is kept too, N - 1.

A journal's record is written to the system before its bytes change, so a killed run goes back exactly; after a power
failure the file may be older than its journal, and the run has to begin anew.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import BoolArray, ByteArray
from speak_neuro.common.files import atomic_write
from speak_neuro.corpus.memory_map import release
from speak_neuro.errors import SpeakError
from speak_neuro.supervision.proxy import HEADER, MAGIC, VERSION, ProxyStore

RECORD = struct.Struct("<BQI")
"""Plane, first byte, number of bytes; the bytes follow."""
BLOCK = 1 << 16
"""Bytes of a plane that have a checksum of their own."""


class FileProxy(ProxyStore):
    """A proxy store in a file with a journal; made by `begin` or `open`."""

    def __init__(self, planes: ByteArray, n_positions: int) -> None:
        super().__init__(planes, n_positions)
        if not isinstance(planes, np.memmap):
            raise ValueError("planes are in memory; allowed: a memory-mapped file")
        self._file = Path(str(planes.filename))
        self.flush = planes.flush
        """Writes the changes to the file."""
        self._journal: Path | None = None
        self.releases: list[npt.NDArray[Any]] = []
        """Other memory maps, whose pages a snapshot gives back with the store's own."""
        self._snapshot = 0
        self._sums = np.zeros((2, -(-planes.shape[1] // BLOCK)), dtype=np.int64)
        self._changed: set[tuple[int, int]] = set()
        """Blocks that changed since the sums were taken."""

    @classmethod
    def begin(cls, path: Path, initial: Path) -> FileProxy:
        """A run's own store, which starts as a copy of the file `initial`."""
        for old in _journals(path).values():
            old.unlink()
        with initial.open("rb") as source, atomic_write(path) as target:
            shutil.copyfileobj(source, target, 1 << 22)
        store = cls.open(path)
        store._sum_all()
        store._start(0)
        return store

    def snapshot(self) -> npt.NDArray[Any]:
        """The number and the sums of this state, (1 + blocks,), for a checkpoint; `restore` comes back to it."""
        self.flush()
        for plane, block in self._changed:
            self._sums[plane, block] = self._sum(plane, block)
        self._changed.clear()
        self._start(self._snapshot + 1)
        for number, journal in _journals(self._file).items():
            if number < self._snapshot - 2:
                journal.unlink()
        self.release()
        return np.concatenate([[self._snapshot], self._sums.ravel()]).astype(np.int64)

    def release(self) -> None:
        for array in [self._planes, *self.releases]:
            release(array)

    def restore(self, snapshot: npt.ArrayLike) -> None:
        """Go back to what `snapshot` returned."""
        wanted = np.asarray(snapshot)
        # Checkpoints of before there were sums hold the number alone.
        if wanted.shape not in ((1,), (1 + self._sums.size,)) or wanted.dtype != np.int64:
            raise SpeakError(
                f"{self._file}: the checkpoint holds proxy spikes of a text in memory; begin the run anew, --overwrite"
            )
        number = int(wanted[0])
        journals = _journals(self._file)
        if number not in journals:
            raise SpeakError(
                f"{self._file}.{number}: the journal since the checkpoint is missing; begin the run anew, --overwrite"
            )
        for later in sorted((n for n in journals if n >= number), reverse=True):
            for plane, start, old in reversed(_records(journals[later])):
                if plane > 1 or start + len(old) > self._planes.shape[1]:
                    raise SpeakError(
                        f"{journals[later]}: a record of plane {plane}, bytes {start} to {start + len(old)}; allowed: "
                        f"planes 0 and 1, bytes up to {self._planes.shape[1]}; begin the run anew, --overwrite"
                    )
                self._planes[plane, start : start + len(old)] = old
        self.flush()
        self._sum_all()
        stated = wanted[1:].reshape(-1, self._sums.shape[1])
        for plane, block in np.argwhere(stated != self._sums[: len(stated)]).tolist():
            raise self._damaged(plane, block)
        for later in sorted((n for n in journals if n > number), reverse=True):
            journals[later].unlink()
        self._start(number)

    def _sum(self, plane: int, block: int) -> int:
        return zlib.crc32(self._planes[plane, block * BLOCK : (block + 1) * BLOCK].data)

    def _sum_all(self) -> None:
        for plane, block in np.ndindex(self._sums.shape):
            self._sums[plane, block] = self._sum(plane, block)
        self._changed.clear()
        self.release()

    def _damaged(self, plane: int, block: int) -> SpeakError:
        return SpeakError(
            f"{self._file}: plane {plane}, bytes from {block * BLOCK}: the CRC-32 is not the checkpoint's: the file or "
            "a journal was damaged or changed since it was written; begin the run anew, --overwrite"
        )

    def _start(self, number: int) -> None:
        self._snapshot = number
        self._journal = Path(f"{self._file}.{number}")
        self._journal.write_bytes(b"")

    def _changing(self, plane: ByteArray, low: int, high: int) -> None:
        if self._journal is None:
            raise ValueError("the store is not begun; allowed: after begin or restore")
        number = 0 if plane is self._proxy else 1
        for block in range(low // BLOCK, (high - 1) // BLOCK + 1):
            if (number, block) not in self._changed:
                if self._sum(number, block) != self._sums[number, block]:
                    raise self._damaged(number, block)
                self._changed.add((number, block))
        with self._journal.open("ab", buffering=0) as stream:
            stream.write(RECORD.pack(number, low, high - low) + plane[low:high].tobytes())


class ProxyCopy(ProxyStore):
    """What another process of the run has: a copy that makes the same changes, and ends with the process.

    Of several processes the first alone writes the run's store and goes back to a checkpoint; the copy is made after
    that, in the folder for temporary files. A memory map of the first one's file would not do: between machines it
    does not show the other's changes.
    """

    def __init__(self, planes: ByteArray, n_positions: int) -> None:
        super().__init__(planes, n_positions)
        self.releases: list[npt.NDArray[Any]] = []

    @classmethod
    def of(cls, path: Path) -> ProxyCopy:
        """A copy of the store in the file `path`."""
        source = ProxyStore.open(path)
        with path.open("rb") as stream, tempfile.TemporaryFile() as target:
            shutil.copyfileobj(stream, target, 1 << 22)
            target.flush()
            shape = (2, (source.n_positions + 7) // 8)
            planes = np.memmap(target, dtype=np.uint8, mode="r+", offset=HEADER.size, shape=shape)
        return cls(planes, source.n_positions)

    def release(self) -> None:
        for array in [self._planes, *self.releases]:
            release(array)

    def restore(self, snapshot: npt.ArrayLike) -> None:
        """Nothing: it was copied from what the first process restored."""


def write_bits(path: str | os.PathLike[str], n_positions: int, blocks: Iterable[BoolArray]) -> None:
    """A store's file with the spikes of `blocks`, arrays of together (n_positions,), none visited, as they come."""
    held, count = np.zeros(0, dtype=np.bool_), 0
    with atomic_write(path) as stream:
        stream.write(HEADER.pack(MAGIC, VERSION, 0, n_positions))
        for block in blocks:
            held = np.concatenate([held, block]) if len(held) else block
            whole = len(held) // 8 * 8
            stream.write(np.packbits(held[:whole]).tobytes())
            held, count = held[whole:], count + len(block)
        if count != n_positions:
            raise ValueError(f"blocks hold {count} positions; allowed: {n_positions}")
        stream.write(np.packbits(held).tobytes())
        stream.truncate(HEADER.size + 2 * ((n_positions + 7) // 8))


def _journals(path: Path) -> dict[int, Path]:
    """The journals beside a store, by number."""
    found = {}
    for file in path.parent.glob(f"{path.name}.*"):
        number = file.name.removeprefix(f"{path.name}.")
        if number.isdigit():
            found[int(number)] = file
    return found


def _records(journal: Path) -> list[tuple[int, int, ByteArray]]:
    """The records of a journal; the last one may be cut off, then its bytes had not changed yet."""
    data, at, found = journal.read_bytes(), 0, []
    while at + RECORD.size <= len(data):
        plane, start, size = RECORD.unpack_from(data, at)
        at += RECORD.size
        if at + size > len(data):
            break
        found.append((plane, start, np.frombuffer(data, dtype=np.uint8, count=size, offset=at)))
        at += size
    return found
