"""numpy's files, .npz and .npy, read within limits: what a header declares is checked before memory is taken for it.

numpy trusts the header: it makes room for the declared shape, and its errors are those of zipfile and of three
decompressors.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.regular import check_regular
from speak_neuro.errors import SpeakError

LARGEST = 1 << 27
"""Bytes that an archive may always unpack to."""
LARGEST_RATIO = 200
"""How many times its own size a larger archive may unpack to; a trace has seldom more than ten."""
AnyPath = str | os.PathLike[str]


def read_archive(
    path: AnyPath, what: str, advice: str, names: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz file: all, or those of `names`, and of `optional` where they are there.

    `what` the file should be names it in errors.
    """
    try:
        size = check_regular(path, advice)
    except FileNotFoundError:
        raise SpeakError(f"{path}: no such file; {advice}") from None
    if not zipfile.is_zipfile(path):
        raise SpeakError(f"{path} is not {what} (an .npz file is a zip archive; this one is not, or is cut off)")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            members = {entry.filename: entry for entry in entries}
            held = [name.removesuffix(".npy") for name in members]
            wanted = held if names is None else [*names, *(name for name in optional if name in held)]
            _check_members(path, what, advice, members, [f"{name}.npy" for name in wanted], len(entries), size)
            return {name: _member(archive, members[f"{name}.npy"]) for name in wanted}
    except SpeakError:
        raise
    except Exception as error:  # a damaged archive fails in zipfile, numpy and three decompressors, each in its way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SpeakError(f"{path} is not {what} that can be read ({reason}); {advice}") from error


def read_array(path: AnyPath, what: str, advice: str) -> npt.NDArray[Any]:
    """The array of an .npy file."""
    try:
        size = check_regular(path, advice)
        with Path(path).open("rb") as stream:
            return _array(stream, size, os.fspath(path))
    except FileNotFoundError:
        raise SpeakError(f"{path}: no such file; {advice}") from None
    except SpeakError:
        raise
    except Exception as error:  # numpy's parser of headers fails in ways of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SpeakError(f"{path} is not {what} ({reason}); {advice}") from None


def _check_members(
    path: AnyPath,
    what: str,
    advice: str,
    members: Mapping[str, zipfile.ZipInfo],
    wanted: Sequence[str],
    count: int,
    size: int,
) -> None:
    """Refuse an archive by its table of contents, before anything is unpacked."""
    if odd := [name for name in members if not name.isprintable()]:
        raise SpeakError(f"{path} is not {what} (an entry is called {odd[0]!a}); {advice}")
    missing = [name.removesuffix(".npy") for name in wanted if name not in members]
    if missing:
        raise SpeakError(f"{path} is not {what} (it lacks {', '.join(missing)})")
    if count != len(members):
        raise SpeakError(f"{path} is not {what} (an entry occurs twice); {advice}")
    for entry in members.values():
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise SpeakError(f"{path}: {entry.filename} is encrypted or packed otherwise than by deflate; {advice}")
    unpacked, allowed = sum(entry.file_size for entry in members.values()), max(LARGEST, LARGEST_RATIO * size)
    if unpacked > allowed:
        raise SpeakError(f"{path}: unpacks to {unpacked:,} bytes; allowed: up to {allowed:,} for its size; {advice}")


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(entry) as stream:
        return _array(stream, entry.file_size, entry.filename)


def _array(stream: IO[bytes], size: int, name: str) -> npt.NDArray[Any]:
    """One array of so many bytes, whose header has to agree with them before room is made for it."""
    formats: Any = np.lib.format
    version = formats.read_magic(stream)
    read = {(1, 0): formats.read_array_header_1_0, (2, 0): formats.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"{name} has format {version}; allowed: 1.0 and 2.0")
    shape, fortran, dtype = read(stream)
    items = math.prod(shape)
    if dtype.hasobject or stream.tell() + items * dtype.itemsize != size or max(shape, default=0) > 2**40:
        raise ValueError(f"{name} declares {shape} of {dtype}, which are not its {size} bytes")
    if items == 0 and max(shape) > 10**6:
        raise ValueError(f"{name} is empty with shape {shape}")
    return np.frombuffer(bytearray(stream.read()), dtype=dtype).reshape(shape, order="F" if fortran else "C")
