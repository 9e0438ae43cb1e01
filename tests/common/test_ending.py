"""SIGTERM and SIGHUP: a command ends as after Ctrl-C, nothing stays half-done, and a training run is saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Forked
from scripts import EXPERIMENTS
from tiny import TINY_FLAGS, run_gtok

from speak_neuro.common.ending import ended_as_interrupted
from speak_neuro.training.metrics_log import read_metrics

BOTH = [signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def nobody_has_the_signals() -> Iterator[None]:
    """A library that another test loaded may have left handlers of its own."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in BOTH}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


WRITING = """
import argparse, sys, tempfile, time
from speak_neuro.common.command import run_command
from speak_neuro.common.files import atomic_write

def action(arguments):
    with tempfile.TemporaryDirectory() as folder, atomic_write("out.txt", "w") as stream:
        stream.write("half")
        print(folder, flush=True)
        time.sleep(60)

sys.exit(run_command(argparse.ArgumentParser(prog="speak-test"), action))
"""


@pytest.mark.parametrize("number", BOTH, ids=lambda s: s.name)
def test_nothing_stays_half_done(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", WRITING]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert errors == "speak-test: interrupted\n"
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "background"),
    [(signal.SIGHUP, False), (signal.SIGTERM, True)],
    ids=["SIGHUP", "SIGTERM, as a shell's background job"],
)
def test_a_training_run_is_saved(tmp_path: Path, excerpt: Path, number: signal.Signals, background: bool) -> None:
    """At the step at which it was told, not at its last evaluation; then it goes on."""
    out = tmp_path / "run"
    flags = ["--data", str(excerpt), "--out", str(out), "--evaluate-every", "100000", "--steps", "100000"]
    command = [sys.executable, str(EXPERIMENTS / "gtok.py"), *TINY_FLAGS, *flags]
    limit, told = time.monotonic() + 120, tmp_path / "told"
    process: Forked | subprocess.Popen[bytes]
    with told.open("wb") as stream:
        if background:  # a program; the other is forked
            ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment, preexec_fn=ignore)
        else:
            process = Forked(command, stream)
        while not (out / "metrics.jsonl").is_file() or len(read_metrics(out)) < 5:
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    step = read_metrics(out)[-1]["step"]
    assert f"interrupted: step {step} of 100000 is saved, --resume goes on from there" in told.read_text("utf-8")
    assert run_gtok(*flags, "--resume", "--stop-after", str(step + 2)) == 0
    trained = [record["step"] for record in read_metrics(out) if "loss_lm" in record]
    assert trained == list(range(1, step + 3))


def test_who_ignores_a_signal_goes_on_ignoring_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_as_interrupted() as ending:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert ending.exit_code == 130
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_child_ends_as_without_it() -> None:
    read, write = os.pipe()
    with ended_as_interrupted() as ending:
        child = os.fork()
        if not child:
            try:  # whatever happens, this process must not go on as a second run of the suite
                os.write(write, b"x")
                time.sleep(30)
            finally:
                os._exit(0)
        os.read(read, 1)  # signals that come while Python forks are lost
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert ending.exit_code == 130
