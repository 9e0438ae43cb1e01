"""One process trains in a run folder: a lock for the run's life, which the system frees when its holder dies."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from speak_neuro.common.files import TEMPORARY
from speak_neuro.errors import SpeakError

LOCK = ".lock"


def contents(folder: Path) -> list[Path]:
    """What is in a folder, without a lock and what a killed process left half-written."""
    return [path for path in folder.iterdir() if path.name != LOCK and not is_leftover(path)]


def is_leftover(path: Path) -> bool:
    """Whether a file is the temporary one of a write that was killed."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY)


def empty(folder: Path) -> None:
    """Remove everything but the lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; refused where another process has it. A folder that stays empty is removed."""
    there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SpeakError(f"{folder}: another process trains in it; wait for its end, or choose another --out") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()
        if not there:
            with contextlib.suppress(OSError):
                folder.rmdir()
