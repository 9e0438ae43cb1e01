"""Runs a Lava network to its end or to an exception, never to a hang. Part of the simulation's own interpreter.

Lava's `run` and `stop` wait for ever when a process raises, sends a wrong shape, exits or is killed. Here the runtime
is started without blocking and watched: every actor must live until the service reports the last step, and all of it
before a deadline. At the end, good or bad, the actors are ended and the shared memory is given back.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lava.magma.core.process.message_interface_enum import ActorType
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.magma.runtime.mgmt_token_enums import MGMT_RESPONSE, enum_equal
from lava.magma.runtime.runtime import Runtime

from speak_neuro.sim.job import steps_done

POLL_SECONDS = 0.002
LAST_WORDS_SECONDS = 1.0
ENDING_SECONDS = 2.0
HELPER_GONE = "a process that keeps the shared memory was killed (out of memory?)"


class SimulationFailure(Exception):
    """A simulation that did not reach its last step; `details` is the failing process's own traceback, if any."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class _Runtime(Runtime):
    """Lava's runtime, with the wait for its actors to be built made to notice death and deadline."""

    deadline: float
    names: list[str]
    helpers: Sequence[int] = ()
    """Children that are no actors: the tracker of the shared memory, and the manager of it."""
    exception_q: list[Any]

    def initialize(self, node_cfg_idx: int = 0) -> None:
        try:
            super().initialize(node_cfg_idx)
        except Exception as error:  # without a helper the building fails in ways of its own
            if self.helper_is_gone():
                raise SimulationFailure(HELPER_GONE) from error
            raise

    def _build_message_infrastructure(self) -> None:
        super()._build_message_infrastructure()
        self.helpers = _children()  # before the first actor; one that dies while they are built is missed too

    def _start_ports(self) -> None:
        super()._start_ports()
        for report in self.exception_q:
            while True:
                try:
                    failure = report.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    self.check()
                    continue
                if failure is not None:
                    raise SimulationFailure(_last_line(failure.trace), failure.trace)
                break
        self.exception_q = []  # read: the stock loop that follows would block on a dead actor

    def check(self) -> None:
        """Raise when an actor or a helper is gone or the time is up."""
        if self.helper_is_gone():  # first, since actors may die of it
            raise SimulationFailure(HELPER_GONE)
        for name, actor in zip(self.names, self._messaging_infrastructure.actors, strict=False):
            if not actor.is_alive():
                raise self.failure(name)
        if time.monotonic() > self.deadline:
            raise SimulationFailure("the time limit was reached")

    def helper_is_gone(self) -> bool:
        return any(_has_ended(pid) for pid in self.helpers)

    def failure(self, name: str = "") -> SimulationFailure:
        """Why a dead actor died: the first exception that any of them left behind, else how it ended."""
        if self.helper_is_gone():
            return SimulationFailure(HELPER_GONE)
        actors = self._messaging_infrastructure.actors
        limit = time.monotonic() + LAST_WORDS_SECONDS
        while time.monotonic() < limit:
            for actor in actors:
                with contextlib.suppress(EOFError, OSError):
                    if actor.exception:
                        return SimulationFailure(_last_line(actor.exception[1]), actor.exception[1])
            time.sleep(POLL_SECONDS)
        codes = [actor.exitcode for actor in actors if actor.exitcode is not None]
        how = f"ended with code {codes[0]}" if codes and codes[0] >= 0 else "was killed"
        if codes and codes[0] < 0:
            how += f" by signal {-codes[0]}" + (" (out of memory?)" if codes[0] == -9 else "")
        return SimulationFailure(f"process {name or 'of the simulation'} {how}")

    def finished(self) -> bool:
        """Whether the service reported the last step; raises when it reported anything else."""
        port = self.service_to_runtime[0]
        if not port.probe():
            return False
        if not enum_equal(port.recv(), MGMT_RESPONSE.DONE):
            raise self.failure()
        return True

    def end(self) -> None:
        """End every actor and give the shared memory back, in bounded time and without asking Lava."""
        self._is_started = self._is_running = False  # else Runtime.__del__ calls stop(), which waits for dead actors
        infrastructure = self._messaging_infrastructure
        if infrastructure is None:
            return
        for actor in infrastructure.actors:
            if actor.is_alive():
                actor.terminate()
        limit = time.monotonic() + ENDING_SECONDS
        for actor in infrastructure.actors:  # SystemProcess.join takes no timeout
            multiprocessing.Process.join(actor, max(0.0, limit - time.monotonic()))
            if actor.is_alive():
                actor.kill()
                multiprocessing.Process.join(actor, ENDING_SECONDS)
        if infrastructure.smm is not None:
            infrastructure.smm.shutdown()
        if self._watchdog_manager is not None:
            self._watchdog_manager.stop()


def run_guarded(
    entry: Any,
    models: Mapping[Any, type],
    steps: int,
    *,
    deadline: float,
    on_poll: Callable[[], None] = lambda: None,
) -> float:
    """Run the network that `entry` belongs to for `steps` time steps; returns the seconds that the steps took.

    `models` maps every process *instance* to its model: keyed by instance, Lava skips its search, which would execute
    every file beside each process. `deadline` is a `time.monotonic()` value. Raises SimulationFailure.
    """
    config = Loihi2SimCfg(select_tag="floating_pt", exception_proc_model_map=dict(models))
    # Few slots per channel: the default 64 fill a container's small /dev/shm when lanes are many.
    executable = entry.compile(config, {"pypy_channel_size": 4})
    runtime = _Runtime(executable, ActorType.MultiProcessing)
    runtime.deadline = deadline
    runtime.names = [builder.proc_model.__name__ for builder in executable.proc_builders.values()] + ["RuntimeService"]
    executable.assign_runtime_to_all_processes(runtime)
    try:
        runtime.initialize()
        started = time.perf_counter()
        runtime.start(RunSteps(num_steps=steps, blocking=False))
        while not runtime.finished():
            runtime.check()
            on_poll()
            time.sleep(POLL_SECONDS)
        return time.perf_counter() - started
    finally:
        runtime.end()


def run_part(built: Any, *, deadline: float, before: int, steps: int, on_step: Callable[[int], None]) -> dict[str, Any]:
    """What the recorders of a network saw that has a part of a job's sequences; progress as `steps_done` has it."""
    on_poll = functools.partial(steps_done, before, steps, built.counter, on_step)
    run_guarded(built.entry, built.models, built.steps, deadline=deadline, on_poll=on_poll)
    recordings: dict[str, Any] = built.recordings()
    return recordings


def _children() -> list[int]:
    """The living children of this process; none where /proc does not tell."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return [pid for pid in found if not _has_ended(pid)]


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _last_line(trace: str) -> str:
    lines = [line for line in trace.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "unknown error"
