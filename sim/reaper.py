"""Ends a simulation's processes and what they leave, whatever state they are in. Standard library alone.

Run as a script it waits for its parent's death, which closes its standard input, and then does the same: a parent that
is killed runs no clean-up of its own, and a stopped child hears no signal but SIGCONT and SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

GRACE_SECONDS = 3.0
SHARED = "/dev/shm/"
SCRIPT = os.path.abspath(__file__)
DONE = b"."
"""What the parent writes when everything has ended."""


def members(group: int) -> Iterator[Path]:
    """The /proc folders of a group's running processes; a zombie that init has yet to collect is none."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, _, member = stat.read_text().rpartition(")")[2].split()[:3]
            if int(member) == group and state not in "ZX":
                yield stat.parent


def alive(group: int) -> bool:
    """Whether any process of the group still runs."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return not Path("/proc/self/stat").exists() or any(members(group))


def shared_memory(group: int) -> set[str]:
    """Files in shared memory that the group's processes have in their address space."""
    found: set[str] = set()
    for process in members(group):
        with contextlib.suppress(OSError):
            for line in (process / "maps").read_text().splitlines():
                path = line.split(maxsplit=5)[5:]
                if path and path[0].startswith(SHARED) and not path[0].endswith("(deleted)"):
                    found.add(path[0])
    return found


def send(group: int, *numbers: int) -> None:
    """Signals to all of a group."""
    for number in numbers:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def wait_for_end(group: int, seconds: float) -> bool:
    """Whether the group ends within so many seconds."""
    limit = time.monotonic() + seconds
    while alive(group):
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


def end(group: int) -> None:
    """Leave nothing of a group, in bounded time.

    SIGTERM first: the worker cleans up, and its resource tracker, which ignores the signal, unlinks the shared memory.
    Stopped processes are woken for it. What has not ended then is killed, and its shared memory unlinked here.
    """
    left = shared_memory(group)
    send(group, signal.SIGTERM, signal.SIGCONT)
    if not wait_for_end(group, GRACE_SECONDS):
        left |= shared_memory(group)
        send(group, signal.SIGKILL)
        wait_for_end(group, GRACE_SECONDS)
    for path in left:
        with contextlib.suppress(OSError):
            os.unlink(path)


def main() -> None:
    """`reaper.py GROUP FOLDER`: wait for the parent, then clean up after it unless it did so itself."""
    group, folder = int(sys.argv[1]), sys.argv[2]
    if os.read(0, 1) == DONE:
        return
    end(group)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
