"""Runs simulation jobs, each in a fresh child interpreter that cannot outlive or block this one. Never imports Lava."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import MissingExtra, SpeakError
from speak_neuro.sim.reaper import DONE, SCRIPT, end, send, wait_for_end

PYTHON_VARIABLE = "SPEAK_SIM_PYTHON"
WORKER = "speak_neuro.sim.child.worker"
INSTALL = "pip install 'speak-neuro[lava]'"
TIME_IS_UP = "the time limit was reached"
"""As the guard in the child says it too."""
GRACE_SECONDS = 3.0
"""How much later than its limit a child is ended that has not said a word."""
NO_ROOM = "is /dev/shm full? Free some of it, give a container more (--shm-size), or simulate fewer or shorter texts"


class SimulationError(SpeakError):
    """A simulation failed; the message carries the cause, `details` the child's traceback."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True)
class JobResult:
    """Arrays by name, and the versions of the interpreter that made them."""

    arrays: dict[str, npt.NDArray[Any]]
    versions: dict[str, str]


def interpreter(python: str | None = None) -> str:
    """The Python that runs Lava: `python`, else $SPEAK_SIM_PYTHON, else this one."""
    chosen = python or os.environ.get(PYTHON_VARIABLE) or sys.executable
    found = shutil.which(chosen)
    if found is None:
        raise SpeakError(f"{chosen}: no such program; --python and ${PYTHON_VARIABLE} name a Python that has Lava")
    return os.path.abspath(found)


def source() -> str:
    """Where another interpreter can install this package from: the checkout that runs, if it is one."""
    checkout = Path(__file__).resolve().parents[1]
    return str(checkout) if (checkout / "pyproject.toml").is_file() else "CHECKOUT_OF_SPEAK_NEURO"


def run_job(
    arrays: Mapping[str, npt.NDArray[Any]],
    *,
    timeout: float,
    python: str | None = None,
    on_step: Callable[[int], None] = lambda step: None,
    worker: str = WORKER,
) -> JobResult:
    """Run one job (see `worker.simulate`) within `timeout` seconds.

    Whatever happens, an error, the time limit, Ctrl-C here or the death of this process, no child process, shared
    memory or temporary file is left.
    """
    if os.name != "posix":
        raise SpeakError("simulations need Linux or macOS: Lava forks its processes")
    program = interpreter(python)
    with tempfile.TemporaryDirectory(prefix="speak-sim-", dir=_short_folder(), ignore_cleanup_errors=True) as folder:
        job, result, log = (Path(folder) / name for name in ("job.npz", "result.npz", "stderr.txt"))
        np.savez(job, **arrays)
        command = [program, "-m", worker, str(job), str(result), "--timeout", str(timeout), "--folder", folder]
        command += ["--parent", str(os.getpid())]
        with log.open("wb") as stderr:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                # A module is looked for in the present folder first: in this one there is none to be found.
                cwd=folder,
                # Many small processes share the cores; what multiprocessing leaves in TMPDIR goes with the folder.
                env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": folder, "PYTHONSAFEPATH": "1"},
            )
        try:
            with _reaper(child.pid, folder):
                try:
                    last = _follow(child, time.monotonic() + timeout + GRACE_SECONDS, on_step)
                finally:
                    _end(child)
        finally:
            if child.poll() is None:  # interrupted before or while the lines above ended it
                _end(child)
        if last is None or last["event"] != "done":
            details = last["details"] if last else ""
            # Chained, so that --debug shows the child's own traceback.
            raise _error(last, child.returncode, program, timeout, log) from RuntimeError("\n" + details)
        with np.load(result, allow_pickle=False) as archive:
            return JobResult({name: archive[name] for name in archive.files}, last["versions"])


def _short_folder() -> str | None:
    """Where temporary files go: the usual place, unless the sockets in it would have too long a name (107 bytes)."""
    return None if len(os.fsencode(tempfile.gettempdir())) <= 50 else "/tmp"


def _follow(child: subprocess.Popen[bytes], deadline: float, on_step: Callable[[int], None]) -> dict[str, Any] | None:
    """Read events until the child closes its pipe or the deadline passes.

    Returns the closing event: the child's, one that says that the time is up, or None when the child just ended.
    """
    assert child.stdout is not None
    buffer, last = b"", None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while (remaining := deadline - time.monotonic()) > 0:
            if not selector.select(min(remaining, 1.0)):
                continue
            chunk = os.read(child.stdout.fileno(), 65536)
            if not chunk:
                return last
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event["event"] == "progress":
                    on_step(event["step"])
                else:
                    last = event
    return last or {"event": "error", "kind": "failure", "message": TIME_IS_UP, "details": "", "versions": {}}


@contextlib.contextmanager
def _reaper(group: int, folder: str) -> Iterator[None]:
    """A small process in a session of its own that cleans up when this one is killed."""
    command = [sys.executable, "-I", SCRIPT, str(group), folder]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdin is not None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                process.stdin.write(DONE)
                process.stdin.close()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the child's group, in bounded time, even when interrupted meanwhile."""
    try:
        if child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.5)
        # A worker that has ended leaves its children a moment to follow it, and the tracker the last word.
        if child.poll() is None or not wait_for_end(child.pid, 2.0):
            end(child.pid)
    finally:
        send(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _error(last: dict[str, Any] | None, code: int, program: str, timeout: float, log: Path) -> SpeakError:
    if last is None:
        tail = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        lava = f"{program} -m pip install 'lava-nc>=0.10,<0.11'"
        if any("No module named" in line and "speak_neuro" in line for line in tail[-1:]):
            return MissingExtra(
                f"{program} has no speak-neuro ({tail[-1]}): run {program} -m pip install --no-deps {source()}, "
                f"then {lava}"
            )
        if any("No module named 'numpy'" in line for line in tail[-1:]):
            return MissingExtra(f"{program} has no numpy, which Lava brings: run {lava}")
        if code < 0:
            hints = {signal.SIGKILL: " (out of memory?)", signal.SIGBUS: f" ({NO_ROOM})"}
            hint = hints.get(signal.Signals(-code), "")
            return SimulationError(f"the simulation was killed by signal {-code}{hint}")
        return SimulationError(f"the simulation ended with code {code}: {tail[-1] if tail else 'no message'}")
    if last["kind"] == "missing":
        python = last["versions"]["python"]
        reason = ""
        if not python.startswith("3.10."):
            reason = (
                f"; lava-nc 0.10 needs Python 3.10 and {program} is {python}: "
                f"make an environment with Python 3.10 and name its python with --python or ${PYTHON_VARIABLE}"
            )
        return MissingExtra(f"Lava is not installed for {program}: {INSTALL}{reason}")
    if last["kind"] == "input":
        return SpeakError(last["message"])
    message = last["message"]
    if message == TIME_IS_UP:
        message = f"not done within {round(timeout, 1):g} s; --timeout allows more"
    elif "No space left on device" in message or f"signal {signal.SIGBUS.value}" in message:
        message = f"{message}: {NO_ROOM}"
    return SimulationError(f"the simulation failed: {message}", last["details"])
