"""What tests of Lava share: a fixture that finds whatever a run left behind, and jobs with faults on purpose."""

import importlib.util
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import trace_fixtures as fixtures

from speak_neuro.sim.runner import JobResult, run_job

TESTS = str(Path(__file__).parent)
needs_lava = [
    pytest.mark.lava,
    pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason="lava-nc is not installed (Python 3.10 only)"),
]


def lava(function: Callable[..., None]) -> Callable[..., None]:
    for mark in needs_lava:
        function = mark(function)
    return function


@pytest.fixture
def traceless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Checks afterwards that the test left no process, no shared memory and no temporary file."""
    marker = f"speak-test-{uuid.uuid4().hex}"
    # tmp_path is too long for a socket's name, and pytest must have settled on it before TMPDIR changes.
    folder = Path(tempfile.mkdtemp(prefix="speak-test-", dir="/tmp"))
    memory = {path.name for path in Path("/dev/shm").iterdir()}
    monkeypatch.setenv("SPEAK_TEST_MARKER", marker)
    monkeypatch.setenv("PYTHONPATH", TESTS)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield marker
    left = fixtures.settles(lambda: not list(folder.iterdir())), sorted(folder.iterdir())
    shutil.rmtree(folder)
    assert fixtures.settles(lambda: not fixtures.processes_with(marker)), fixtures.processes_with(marker)
    assert fixtures.settles(lambda: not fixtures.orphaned_memory(memory)), fixtures.orphaned_memory(memory)
    assert left == (True, [])


def task(
    name: str, timeout: float = 20, on_step: Callable[[int], None] = lambda step: None, **arrays: np.ndarray
) -> JobResult:
    return run_job({"task": np.array(name), **arrays}, timeout=timeout, worker="faulty_worker", on_step=on_step)


PARENT = """
import multiprocessing, sys
import numpy as np
from speak_neuro.sim.runner import run_job
try:
    run_job({"task": np.array("stall")}, timeout=60, worker="faulty_worker",
            on_step=lambda step: print("step", step, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""
