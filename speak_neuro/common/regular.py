"""Files that are read: regular ones within a stated size, and nothing that a reader could hang on."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from speak_neuro.errors import SpeakError

LARGEST_TEXT = 1 << 28
"""Bytes of a file that is read whole."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_regular(path: str | os.PathLike[str], remedy: str, largest: int | None = None) -> int:
    """The size of the regular file `path`; anything else, or a larger file, is refused before it is opened.

    A file that is not there is a FileNotFoundError, which the caller's reader words.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
        raise SpeakError(f"{os.fspath(path)}: is {kind}; allowed: a regular file; {remedy}")
    if largest is not None and status.st_size > largest:
        raise SpeakError(f"{os.fspath(path)}: holds {status.st_size:,} bytes; allowed: up to {largest:,}; {remedy}")
    return status.st_size


def read_whole(path: str | os.PathLike[str], remedy: str, largest: int = LARGEST_TEXT) -> bytes:
    """The bytes of a regular file of up to `largest` bytes."""
    check_regular(path, remedy, largest)
    return Path(path).read_bytes()
