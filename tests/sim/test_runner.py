"""The Lava side: the network against the reference, its timing, and what every failure leaves behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import trace_fixtures as fixtures
from lava_fixtures import PARENT, TESTS, lava, task, traceless

from speak_neuro.errors import MissingExtra, SpeakError
from speak_neuro.neuron.reference import NeuronParameters, gated_lif_run
from speak_neuro.sim import runner
from speak_neuro.sim.job import steps_done
from speak_neuro.sim.parity import levels
from speak_neuro.sim.runner import SimulationError, run_job

__all__ = ["traceless"]

# --- the network


@lava
def test_neuron_equals_the_reference_bit_for_bit(traceless: str) -> None:
    """Random and tie-heavy currents, constants that round, a reset potential that decays."""
    rng = np.random.default_rng(1)
    shape = (60, 90)
    current = rng.normal(0.2, 0.5, shape)
    current[:20] = rng.integers(-8, 24, (20, 90)) / 16
    current[20:30] = 0.1
    current[30:40] = rng.choice([1.0, np.nextafter(np.float32(1), np.float32(0)), 0.0], (10, 90))
    current = current.astype(np.float32)
    gate = rng.normal(size=shape).astype(np.float32)
    gate[:, ::7] = 0
    for constants in ([1, 1, 1, 0, 0.8], [0.9, 0.7, 0.3, -0.45, 0.8]):
        parameters = NeuronParameters(*constants)  # type: ignore[arg-type]
        expected = gated_lif_run(current, gate, parameters)
        job = {
            "constants": np.array([*constants, 0], dtype=np.float32),
            "length": np.full(60, 90),
            "lanes": np.array(32),
            "current": current.T,
            "gate_logit": gate.T,
        }
        result = run_job(job, timeout=30).arrays
        np.testing.assert_array_equal(result["spikes"].T, expected.spikes)
        np.testing.assert_array_equal(result["membrane"].T.view(np.uint32), expected.membrane.view(np.uint32))
        if constants[0] == 1:
            assert (expected.membrane == 1).sum() > 20, "no membrane exactly on the threshold: the test is blunt"


@lava
def test_readout_waits_for_the_dense_whatever_the_constants(traceless: str) -> None:
    """A step without input would decay the initial potential, or fire when the threshold is below zero."""
    for constants in (
        {"decay": 0.5, "reset_potential": -2.0, "threshold": -1.5},
        {"decay": 0.75, "reset_potential": 0.5, "threshold": 0.625, "gain": 0.5},
    ):
        exported, trace = fixtures.make_trace(["Two sequences,", "of unequal length"], **constants)
        run = levels.run_level("readout", exported, trace, timeout=30)
        np.testing.assert_array_equal(run.current, trace.current)
        np.testing.assert_array_equal(run.gate_logit, trace.gate_logit)
        np.testing.assert_array_equal(run.spikes, trace.spikes)
        np.testing.assert_array_equal(run.membrane, trace.membrane)
        assert 0 < trace.spikes.sum() < trace.length.sum()


@lava
def test_jobs_groups_and_progress(traceless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small groups and jobs give what one network gives, each sequence in its own place."""
    exported, trace = fixtures.make_trace(["", "yz", *(f"text {'x' * (i % 5)}" for i in range(9))])
    monkeypatch.setattr(levels, "DENSE_WEIGHTS", 7 * 3**2)  # three lanes a network
    monkeypatch.setattr(levels, "JOB_BYTES", 4 * 7 * 9 * 6)  # two networks a job
    seen: list[tuple[int, int]] = []
    run = levels.run_level("readout", exported, trace, timeout=60, on_step=lambda *step: seen.append(step))
    np.testing.assert_array_equal(run.spikes, trace.spikes)
    np.testing.assert_array_equal(run.membrane, trace.membrane)
    assert seen[-1][0] == seen[-1][1] > 0
    assert len(levels._jobs(np.sort(trace.length[trace.length > 0])[::-1], 7, 3)) == 2
    assert seen == sorted(seen)


def test_progress_never_goes_back_at_the_border_of_two_groups() -> None:
    """A recorder counts the network's latency too: 12 steps where the group has 9."""
    seen: list[int] = []
    for before, steps in ((0, 9), (9, 6)):
        counter = np.zeros(1, dtype=np.int64)
        for counted in range(steps + 4):
            counter[0] = counted
            steps_done(before, steps, counter, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 15
    assert {0, 8, 9, 14} <= set(seen)


def test_jobs_cover_all_rows_in_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "JOB_BYTES", 4 * 3 * 100 * 5)
    lengths = np.arange(100, 60, -1)
    jobs = levels._jobs(lengths, 3, 2)
    assert [row for job in jobs for row in range(job.start, job.stop)] == list(range(40))
    assert all((job.stop - job.start) % 2 == 0 for job in jobs)
    assert len(jobs) > 3
    assert levels._jobs(lengths, 10**6, 2)[0] == slice(0, 2)


def test_nothing_to_simulate() -> None:
    for texts in ([], ["", ""]):
        exported, trace = fixtures.make_trace(texts)
        run = levels.run_level("neuron", exported, trace, python="/bin/false")
        assert run.spikes.shape == trace.spikes.shape


@lava
def test_latency_is_computed_and_misalignment_refused(traceless: str) -> None:
    result = task("latency").arrays
    assert result["measured"].tolist() == [0, 1, 2, 1, 2, 5]
    assert result["computed"].tolist() == result["measured"].tolist()
    misaligned, unconnected, unequal, delays = result["messages"].tolist()
    assert "g_in after 0, x_in after 1" in misaligned
    assert "g_in of NeuronLayer is connected to nothing" in unconnected
    assert "after different delays: [0, 1]" in unequal
    assert "several delays [0, 1]" in delays


@lava
def test_stock_lif_is_an_independent_oracle(traceless: str) -> None:
    current = (np.random.default_rng(2).integers(-1, 4, (200, 50)) / 4).astype(np.float32)
    result = task("oracle", current=current).arrays
    np.testing.assert_array_equal(result["ours"], result["shifted"])
    assert result["ours"].sum() > 1000
    assert (result["ours"] != result["unshifted"]).sum() > 100


# --- failures


@lava
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "ZeroDivisionError: on purpose at step 3"),
        ("raise-alone", "ZeroDivisionError: on purpose at step 3"),
        ("shape", "Mismatch"),
        ("build", "KeyError: 'the constants of the model'"),
        ("build-kill", "process FaultyModel was killed by signal 9 (out of memory?)"),
        ("exit", "process FaultyModel ended with code 7"),
        ("kill", "process FaultyModel was killed by signal 9 (out of memory?)"),
    ],
)
def test_a_failing_process_is_an_error(traceless: str, fault: str, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(SimulationError) as caught:
        task(fault)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    if fault.startswith("raise"):
        assert "in run_spk" in caught.value.details
    assert time.monotonic() - started < 15


@lava
def test_a_stall_ends_at_the_limit(traceless: str) -> None:
    started = time.monotonic()
    with pytest.raises(SimulationError, match=r"not done within 3 s; --timeout allows more"):
        task("stall", timeout=3)
    assert time.monotonic() - started < 12


@lava
def test_a_worker_that_does_not_listen_is_killed(traceless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "GRACE_SECONDS", 0.5)
    with pytest.raises(SimulationError, match="not done within 4 s"):
        task("deaf", timeout=4)


@lava
def test_files_beside_a_process_are_not_executed(
    traceless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lava's search for models would run them, `__main__` guard or not."""
    shutil.copy(Path(TESTS) / "faulty_worker.py", tmp_path / "faulty_worker.py")
    (tmp_path / "beside.py").write_text("open(__file__ + '.ran', 'w').close()\nraise SystemExit(5)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert task("none").arrays["done"] == 1
    assert not (tmp_path / "beside.py.ran").exists()


@lava
def test_prints_of_libraries_are_not_events(traceless: str) -> None:
    assert task("noise").arrays["done"] == 1


@lava
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda s: s.name)
def test_the_death_of_the_parent_ends_everything(traceless: str, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        while "step 2" not in parent.stdout.readline():
            assert parent.poll() is None
        assert len(fixtures.processes_with(traceless)) > 4
        parent.send_signal(number)
        assert parent.wait(10) == (130 if number == signal.SIGINT else -number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda s: s.name)
def test_a_parent_that_dies_before_the_worker_runs(traceless: str, number: signal.Signals) -> None:
    """The worker, still importing, cannot have asked for a signal at its death; it looks for the parent itself."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        folder = Path(tempfile.gettempdir())
        # Killed between the folder and the worker's start, the parent would leave nobody who could clean up.
        while not any(folder.glob("speak-sim-*/stderr.txt")) or len(fixtures.processes_with(traceless)) < 2:
            assert parent.poll() is None
            time.sleep(0.001)
        parent.send_signal(number)
        assert parent.wait(10) == -number
    assert fixtures.settles(lambda: not any(folder.glob("speak-sim-*")), 30), "a worker may take long to begin"


@lava
def test_the_death_of_the_worker_alone(traceless: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        while "step 2" not in parent.stdout.readline():
            assert parent.poll() is None
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        _, errors = parent.communicate(timeout=15)
        assert errors.strip().endswith("SimulationError: the simulation was killed by signal 9 (out of memory?)")


@lava
def test_a_used_multiprocessing_context_is_no_obstacle(traceless: str) -> None:
    """Importing Lava in such a process fails, and would make it fork from then on."""
    code = """
import multiprocessing, sys
multiprocessing.set_start_method("spawn")
multiprocessing.Queue()
import numpy as np
from speak_neuro.sim.runner import run_job
print(run_job({"task": np.array("none")}, timeout=20, worker="faulty_worker").arrays["done"])
assert multiprocessing.get_start_method() == "spawn"
assert not any(name.split(".")[0] == "lava" for name in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[1.]"


# --- interpreters


def test_lava_is_missing(traceless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lava").mkdir()
    (tmp_path / "lava" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'lava'\", name='lava')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    exported, trace = fixtures.make_trace()
    with pytest.raises(MissingExtra, match=r"pip install 'speak-neuro\[lava\]'") as caught:
        levels.run_level("neuron", exported, trace, timeout=20)
    assert caught.value.exit_code == 3
    assert ("needs Python 3.10" in str(caught.value)) == (sys.version_info[:2] != (3, 10))


def test_another_python_is_named_as_the_reason(tmp_path: Path) -> None:
    event = {"event": "error", "kind": "missing", "message": "", "versions": {"python": "3.12.1"}}
    error = runner._error(event, 1, "/usr/bin/python3.12", 10, tmp_path / "log")
    assert isinstance(error, MissingExtra)
    assert "lava-nc 0.10 needs Python 3.10 and /usr/bin/python3.12 is 3.12.1" in str(error)


def test_an_interpreter_with_the_package_and_without_lava(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Traceback\nModuleNotFoundError: No module named 'numpy'\n", encoding="utf-8")
    error = runner._error(None, 1, "lava/bin/python", 10, log)
    assert isinstance(error, MissingExtra)
    assert "lava/bin/python has no numpy, which Lava brings: run lava/bin/python -m pip install 'lava-nc" in str(error)


def test_another_interpreter(traceless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setenv("SPEAK_SIM_PYTHON", str(bare))
    assert runner.interpreter() == str(bare)
    assert runner.interpreter(sys.executable) == sys.executable
    with pytest.raises(MissingExtra, match=r"has no speak-neuro .*--no-deps /\S+, then ") as caught:
        run_job({}, timeout=20)
    named = re.findall(r"--no-deps (\S+), then ", str(caught.value))
    assert "speak-neuro" in (Path(named[0]) / "pyproject.toml").read_text(encoding="utf-8")
    with pytest.raises(SpeakError, match="no such program"):
        runner.interpreter("/no/such/python")
