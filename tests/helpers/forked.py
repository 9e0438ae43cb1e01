"""Programs in forked children: processes of their own, without the five seconds that a fresh one takes to load torch.

Loaded here, before the first fork: torch with what every optimiser loads, and training.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
import torch._dynamo
from scripts import EXPERIMENTS, load

from speak_neuro.training import run as training

__all__ = ["Forked", "run_forked", "together", "training"]


def run_forked(command: Sequence[str], folder: Path) -> int:
    """Exit code of `command`, an interpreter, a script of experiments/ and its arguments; output to the log beside
    `folder`."""
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    return _exit_code(_fork(_main(command), log))


class Forked:
    """What is needed of subprocess.Popen, for a command as `run_forked` takes it; all output goes to one file."""

    def __init__(self, command: Sequence[str], stdout: BinaryIO, **_: object) -> None:
        self.child = _fork(_main(command), Path(str(stdout.name)))
        self.code: int | None = None

    def poll(self) -> int | None:
        if self.code is None and (status := os.waitpid(self.child, os.WNOHANG))[0]:
            self.code = os.waitstatus_to_exitcode(status[1])
        return self.code

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.child, number)

    def wait(self, timeout: float) -> int:
        limit = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < limit
            time.sleep(0.02)
        return code


def together(main: Callable[[], int | None], folder: Path, processes: int = 2) -> str:
    """`main` in processes that find each other as torchrun's do; what they printed. All have to end well."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    logs = [folder / f"process-{rank}.log" for rank in range(processes)]
    children = []
    for rank, log in enumerate(logs):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        children.append(_fork(main, log, meeting | {name: str(value) for name, value in names.items()}))
    codes = [_exit_code(child) for child in children]
    told = "".join(log.read_text(encoding="utf-8") for log in logs)
    assert codes == [0] * processes, told
    return told


def _main(command: Sequence[str]) -> Callable[[], int]:
    script = str(Path(command[1]).relative_to(EXPERIMENTS).with_suffix(""))
    return lambda: int(load(script).main(list(command[2:])))


def _fork(main: Callable[[], int | None], log: Path, environment: dict[str, str] | None = None) -> int:
    """The child's number; the child runs `main` and ends."""
    with warnings.catch_warnings(), log.open("ab") as stream:
        warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
        child = os.fork()
        if not child:
            _become(main, stream.fileno(), environment or {})
    return child


def _exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _become(main: Callable[[], int | None], output: int, environment: dict[str, str]) -> None:
    """Never returns: what follows in the parent is the rest of the suite."""
    code = 1
    try:
        os.environ.update(environment)
        for number in (1, 2):
            os.dup2(output, number)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
        torch.set_num_threads(1)  # OpenMP's threads are the parent's
        code = main() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
