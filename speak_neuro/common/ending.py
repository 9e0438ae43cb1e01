"""SIGTERM and SIGHUP end a command as Ctrl-C does: files and folders are cleaned up, and a training run saves itself.

Left alone they end a process at once. A scheduler that takes the machine back sends the one, a terminal that closes the
other; half-written files, the folder of a simulation and the last steps of a run were lost to both.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

Handler = Callable[[int, Any], Any]
NUMBERS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_holders: list[Handler] = []


class Ending:
    """How a command was interrupted."""

    def __init__(self) -> None:
        self.number: int = signal.SIGINT

    @property
    def exit_code(self) -> int:
        """As a shell has it for a process that a signal ended."""
        return 128 + self.number


@contextlib.contextmanager
def ended_as_interrupted() -> Iterator[Ending]:
    """Within it both signals raise KeyboardInterrupt, or go to whoever holds interrupts back. Who ignores one, as
    `nohup` does, goes on ignoring it."""
    ending, owner = Ending(), os.getpid()

    def on_signal(number: int, frame: Any) -> None:
        if os.getpid() != owner:  # a forked child has the handler too, and nothing of the command to clean up
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        ending.number = number
        if _holders:
            _holders[-1](number, frame)
        else:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield ending
        return
    taken = [number for number in NUMBERS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, on_signal)
    try:
        yield ending
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def interrupts_held(handler: Handler) -> Iterator[None]:
    """Give interrupts to `handler` instead of raising them: Ctrl-C unless it is ignored, and the two signals above."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ctrl_c = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a shell's background jobs ignore it
    if ctrl_c:
        signal.signal(signal.SIGINT, handler)
    _holders.append(handler)
    try:
        yield
    finally:
        _holders.pop()
        if ctrl_c:
            signal.signal(signal.SIGINT, signal.default_int_handler)
