"""The one door to HDF5 files: walked whole before anything is read. Nothing leaves the file, nothing outgrows it.

HDF5 lets a file name other files (external links, virtual datasets, raw external storage), hold references, share or
nest objects at will, and declare arrays of any size that take no room in it. None of that has a use in a NIR graph.

Texts lie in heaps, chains of `index, references, size, bytes` after the mark GCOL, and the library follows a chain
without looking whether it gets on: a size of zero, or one that wraps round at 2^64, keeps it in a loop that no signal
ends. So each chain is followed here first. Heaps lie one after another: marks inside heaps would let a small file name
as many chains as it has bytes. The library also makes room for as many bytes as a reference to a text states.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from speak_neuro.common.regular import check_regular
from speak_neuro.errors import SpeakError

LARGEST = 1 << 28
"""Bytes of all arrays together, unpacked."""
LARGEST_STRINGS = 1 << 20
"""Strings of all arrays together: each becomes an object."""
LARGEST_OBJECTS = 10_000
DEEPEST = 16
_KINDS = "fiub"
_HEAP = b"GCOL\x01"
_HEADER = struct.Struct("<HHIQ")
_REFERENCE = np.dtype([("bytes", "<u4"), ("heap", "<u8"), ("object", "<u4")])


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], remedy: str) -> Iterator[h5py.File]:
    """An HDF5 file for reading, after its walk; every departure is a SpeakError line naming the file."""
    try:
        check_regular(path, remedy, 2 * LARGEST)
    except FileNotFoundError:
        raise SpeakError(f"{path}: no such file; {remedy}") from None
    with h5py.File(path, "r") as stream:
        try:
            _check_heaps(path, stream)
            _Walk(path).group(stream, "", 0)
        except _Refusal as refusal:
            raise SpeakError(f"{path}: {refusal}; {remedy}") from None
        yield stream


class _Refusal(Exception):
    """Why a file is not read."""


def _check_heaps(path: str | os.PathLike[str], stream: h5py.File) -> None:
    """Refuse a chain of texts that leaves its heap or stands still, wherever the mark of a heap is found.

    No byte lies in two heaps, so the work grows with the file alone.
    """
    if stream.id.get_create_plist().get_sizes() != (8, 8):
        raise _Refusal(f"addresses and lengths of {stream.id.get_create_plist().get_sizes()} bytes; allowed: (8, 8)")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start, end = data.find(_HEAP), 0
        while start >= 0:
            if start < end:
                raise _Refusal(f"the heap of texts at byte {start} begins inside the one before it")
            first = start + _HEADER.size
            end = start + int.from_bytes(data[start + 8 : first], "little")
            if not first <= end <= len(data) or not _gets_on(data, first, end):
                raise _Refusal(f"the heap of texts at byte {start} is damaged")
            start = data.find(_HEAP, start + 1)


def _gets_on(data: mmap.mmap, at: int, end: int) -> bool:
    """Whether each object of a heap ends within it; object 0 is free space, and its size has the header in it."""
    while at + _HEADER.size <= end:
        index, _, _, size = _HEADER.unpack_from(data, at)
        needed = _HEADER.size + (size + 7) // 8 * 8 if index else size
        if not _HEADER.size <= needed <= end - at:
            return False
        at += needed
    return True


class _Walk:
    """What was seen so far."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.seen: set[Any] = set()
        self.bytes = self.strings = 0

    def group(self, group: h5py.Group, where: str, depth: int) -> None:
        if depth > DEEPEST:
            raise _Refusal(f"{where} is nested deeper than {DEEPEST} groups")
        for name in group:
            at = f"{where}/{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise _Refusal(f"{at} is a {type(link).__name__}; allowed: nothing that points elsewhere")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in self.seen:
                raise _Refusal(f"{at} is a second name of one object; allowed: one name each")
            self.seen.add(address)
            if len(self.seen) > LARGEST_OBJECTS:
                raise _Refusal(f"it holds more than {LARGEST_OBJECTS:,} objects")
            if isinstance(item, h5py.Group):
                self.group(item, at, depth + 1)
            elif isinstance(item, h5py.Dataset):
                self.dataset(item, at)
            else:
                raise _Refusal(f"{at} is a {type(item).__name__}; allowed: groups and arrays")

    def dataset(self, item: h5py.Dataset, at: str) -> None:
        if item.is_virtual or item.external or item.id.get_create_plist().get_external_count():
            raise _Refusal(f"{at} keeps its values in other files; allowed: arrays stored in this one")
        text = h5py.check_string_dtype(item.dtype) is not None
        if not text and item.dtype.kind not in _KINDS:
            raise _Refusal(f"{at} is of type {item.dtype}; allowed: numbers and text")
        if item.shape is None:
            raise _Refusal(f"{at} has no value")
        self.bytes += item.size * item.dtype.itemsize
        self.strings += item.size if text else 0
        if text and item.size <= LARGEST_STRINGS and h5py.check_string_dtype(item.dtype).length is None:
            self.bytes += self.texts(item, at)
        if self.bytes > LARGEST or self.strings > LARGEST_STRINGS:
            raise _Refusal(
                f"{at} declares {item.shape} of {item.dtype}; allowed: up to {LARGEST:,} bytes and {LARGEST_STRINGS:,} "
                "texts in all arrays together"
            )

    def texts(self, item: h5py.Dataset, at: str) -> int:
        """Bytes of texts as the references to them state: the library makes room for a text before it looks for it."""
        if item.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS:
            raise _Refusal(f"{at} keeps texts in pieces; allowed: in one, as nir.write does")
        place = item.id.get_offset()
        if place is None:
            return 0
        with open(self.path, "rb") as file:
            file.seek(place)
            raw = file.read(item.size * _REFERENCE.itemsize)
        if len(raw) < item.size * _REFERENCE.itemsize:
            raise _Refusal(f"{at} reaches beyond the file's end")
        stated = int(np.frombuffer(raw, _REFERENCE)["bytes"].sum())
        if stated > LARGEST:
            raise _Refusal(f"{at} declares texts of {stated:,} bytes; allowed: up to {LARGEST:,}")
        return stated
