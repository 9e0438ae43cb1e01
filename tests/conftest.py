"""Fixtures shared by the suite: a tiny run trained once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from tiny import embedded_excerpt, run_gtok

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A suite started in the background by a shell inherits an ignored SIGINT, one started by nohup an ignored SIGHUP, and
# so would every program they start; the tests of endings need both signals.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


# How long an example takes says how busy the machine is.
settings.register_profile("any time", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any time")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a failed test at once: a suite that is cut off prints no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nFAILED {report.nodeid} ({report.when}): {report.longreprtext[-300:]}", flush=True)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Variables of the environment end with the test that set them; transformers' Trainer leaves LOCAL_WORLD_SIZE,
    and a later test of launchers would be one of a group of one."""
    before = dict(os.environ)
    yield
    for name in {**before, **os.environ}:
        if name != "PYTEST_CURRENT_TEST" and os.environ.get(name) != before.get(name):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


@pytest.fixture(scope="session")
def gtok() -> Callable[..., int]:
    return run_gtok


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`shared(name, make)`: a folder that `make` fills once, for all processes of pytest-xdist."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                folder.mkdir(exist_ok=True)
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def excerpt(shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    folder = shared("text", lambda folder: (folder / "excerpt.txt").write_text(embedded_excerpt(), encoding="utf-8"))
    return folder / "excerpt.txt"


@pytest.fixture(scope="session")
def tiny_run(shared: Callable[[str, Callable[[Path], object]], Path], excerpt: Path) -> Path:
    """A run folder after 40 steps with the window encoder. Tests read it; they change copies."""

    def train(folder: Path) -> None:
        flags = ("--data", str(excerpt), "--out", str(folder / "tiny"), "--steps", "40")
        assert run_gtok(*flags, curves=True) == 0

    return shared("runs", train) / "tiny"
