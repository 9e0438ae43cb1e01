"""Lava under fault: whatever is stopped or killed, an error comes in bounded time and nothing is left."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trace_fixtures as fixtures
from lava_fixtures import PARENT, lava, task, traceless

from speak_neuro.sim import reaper, runner
from speak_neuro.sim.runner import SimulationError

__all__ = ["traceless"]


def children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def worker_of(process: int) -> int:
    """The child that leads the simulation's group: the one with children of its own, or the first."""
    return next((pid for pid in children(process) if children(pid)), children(process)[0])


def faulted(act: Callable[[int], None], timeout: float) -> str:
    """What a stalled simulation ends with after `act` on its worker; within bounded time."""
    acted = []

    def on_step(step: int) -> None:
        if not acted:
            acted.append(step)
            act(worker_of(os.getpid()))

    started = time.monotonic()
    with pytest.raises(SimulationError) as caught:
        task("stall", timeout=timeout, on_step=on_step)
    assert acted
    assert time.monotonic() - started < timeout + 3 * reaper.GRACE_SECONDS + runner.GRACE_SECONDS
    assert "\n" not in str(caught.value)
    return str(caught.value)


@lava
def test_a_stopped_group_is_woken_and_ended(traceless: str) -> None:
    assert "not done within 8 s" in faulted(lambda worker: os.killpg(worker, signal.SIGSTOP), 8)


def kill(worker: int, which: str) -> None:
    """Kill the resource tracker, or the first or last of the other children."""
    found = children(worker)
    tracker = [pid for pid in found if b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    others = [pid for pid in found if pid not in tracker]
    os.kill({"tracker": tracker, "first": others, "last": others[::-1]}[which][0], signal.SIGKILL)


@lava
@pytest.mark.parametrize("which", ["tracker", "first", "last"])
def test_a_killed_grandchild_is_noticed(traceless: str, which: str) -> None:
    message = faulted(lambda worker: kill(worker, which), 60)
    assert "killed" in message
    assert "not done" not in message


@lava
@pytest.mark.parametrize("which", ["tracker", "first"])
@pytest.mark.parametrize("there", [3, 5])
def test_a_helper_that_is_killed_while_the_network_is_built(traceless: str, which: str, there: int) -> None:
    """The tracker and the manager of the shared memory are known before the first process of the network is."""

    def act() -> None:
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            for worker in children(os.getpid()):
                with contextlib.suppress(OSError):
                    if len(children(worker)) >= there:
                        kill(worker, which)
                        return
            time.sleep(0.001)

    killer = threading.Thread(target=act)
    killer.start()
    try:
        with pytest.raises(SimulationError, match="a process that keeps the shared memory was killed"):
            task("stall", timeout=60)
    finally:
        killer.join()


@lava
def test_a_stopped_worker_ends_with_its_killed_parent(traceless: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        while "step 2" not in parent.stdout.readline():
            assert parent.poll() is None
        os.kill(worker_of(parent.pid), signal.SIGSTOP)
        parent.kill()
    limit = time.monotonic() + 20
    while fixtures.processes_with(traceless):
        assert time.monotonic() < limit
        time.sleep(0.1)


@lava
def test_modules_of_the_present_folder_are_not_run(
    traceless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name in ("lava", "numpy", "multiprocessing", "json", "speak_neuro"):
        (place / f"{name}.py").write_text(f"open({str(tmp_path / (name + '.ran'))!r}, 'w').close()\n")
    monkeypatch.chdir(place)
    assert task("none").arrays["done"] == 1
    assert not list(tmp_path.glob("*.ran"))


@lava
def test_a_relative_program_is_found_from_where_it_was_named(traceless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(sys.executable).parent
    monkeypatch.chdir(folder)
    monkeypatch.setenv(runner.PYTHON_VARIABLE, f"./{Path(sys.executable).name}")
    assert task("none").arrays["done"] == 1


def test_full_shared_memory_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("")
    event = {"event": "error", "kind": "failure", "details": "", "versions": {}}
    for message in ("OSError: [Errno 28] No space left on device: '/psm_1'", "process X was killed by signal 7"):
        error = runner._error({**event, "message": message}, 1, "python", 10, log)
        assert "is /dev/shm full? Free some" in str(error)
    assert "is /dev/shm full?" in str(runner._error(None, -signal.SIGBUS, "python", 10, log))


@lava
@pytest.mark.slow
def test_fifty_runs_and_two_at_once(traceless: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        assert all(result.arrays["done"] == 1 for result in pool.map(lambda _: task("none", timeout=120), range(50)))
