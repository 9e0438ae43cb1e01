"""experiments/gtok.py under torchrun and accelerate: one run folder, another number of processes, failures, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from distributed_worker import torchrun
from forked import together

from speak_neuro.common.tensors import read_tensors
from speak_neuro.systems.run_folder import EXEMPLAR, MODEL
from speak_neuro.training.metrics_log import read_metrics

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "experiments" / "gtok.py")
STEPS = 16
Gtok = Callable[..., int]


def flags(excerpt: Path, out: Path, *more: str) -> list[str]:
    from tiny import TINY_FLAGS

    # The likelihood of spikes reads potentials after resets: at step 10 a rounding of the sums moves a spike, and with
    # it the loss by 2 %. L_mem stays together for these steps; test_train_distributed compares steps with both.
    loss = ["--neuron-loss", "membrane"]
    return [*TINY_FLAGS, "--data", str(excerpt), "--out", str(out), "--evaluate-every", "8", *loss, *more]


def agree(one: Path, other: Path) -> None:
    """The same log and the same weights, up to rounding; the same shortening factors at the start."""
    first, second = (read_metrics(folder) for folder in (one, other))
    assert [r["step"] for r in first] == [r["step"] for r in second]
    assert first[-1]["step"] == STEPS
    for mine, theirs in zip(first, second, strict=True):
        assert set(mine) == set(theirs)
        for name in ("loss_lm", "loss_mem", "loss_reset", "valid_bpc"):
            if name in mine:
                limit = 1e-4 if mine["step"] <= 5 else 0.02
                assert mine[name] == pytest.approx(theirs[name], rel=limit, abs=limit), (mine["step"], name)
        if mine["step"] <= 5:
            assert mine["sf"] == theirs["sf"]
    weights, others = (read_tensors(folder / MODEL)[0] for folder in (one, other))
    for name, value in weights.items():
        assert float((value - others[name]).abs().mean()) < 1e-2, name


@pytest.fixture(scope="module")
def whole(gtok: Gtok, excerpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process from start to end."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert gtok(*flags(excerpt, folder, "--steps", str(STEPS))) == 0
    return folder


def test_from_two_processes_to_one(gtok: Gtok, whole: Path, excerpt: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    exemplar = ["--exemplar", str(whole / EXEMPLAR)]
    first = flags(excerpt, out, "--steps", str(STEPS), "--stop-after", "8", *exemplar)
    told = together(lambda: gtok(*first), tmp_path)
    assert told.count("stopped at step 8") == 1
    assert gtok(*flags(excerpt, out, "--resume")) == 0
    agree(whole, out)


def test_from_one_process_to_two(gtok: Gtok, whole: Path, excerpt: Path, tmp_path: Path) -> None:
    """With text and proxy in files: the first process writes the run's proxy, the other has a copy."""
    out = tmp_path / "run"
    more = ["--stream", "--exemplar", str(whole / EXEMPLAR), "--stop-after", "8"]
    assert gtok(*flags(excerpt, out, "--steps", str(STEPS), *more)) == 0
    assert (out / "proxy.bits").exists()
    told = together(lambda: gtok(*flags(excerpt, out, "--resume")), tmp_path)
    assert told.count("test bpc") == 1
    agree(whole, out)


def test_a_failure_is_one_line(excerpt: Path, tmp_path: Path) -> None:
    """What follows it is the launcher's own report."""
    done = torchrun(SCRIPT, *flags(excerpt, tmp_path / "run", "--batch", "5"))
    assert done.returncode != 0
    ours = [line for line in done.stderr.splitlines() if line.startswith("gtok.py")]
    assert ours == [
        "gtok.py: error: --batch is 5, the windows of a step of all 2 processes; allowed: a multiple of 2, as 4 or 6"
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_lost_process_ends_the_others(excerpt: Path, tmp_path: Path) -> None:
    running = start(excerpt, tmp_path)
    workers = children(running.pid)
    os.kill(workers[-1], signal.SIGKILL)
    _, error = running.communicate(timeout=60)
    assert running.returncode != 0
    ours = [line for line in error.splitlines() if line.startswith("gtok.py")]
    assert len(ours) <= 1  # the launcher may be quicker to end it
    assert all("another process of this run has ended" in line for line in ours)


@pytest.mark.slow
def test_an_interrupt_saves_once(gtok: Gtok, excerpt: Path, tmp_path: Path) -> None:
    running = start(excerpt, tmp_path)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=60)
    ours = [line for line in error.splitlines() if line.startswith("gtok.py")]
    assert len(ours) == 1
    assert "is saved, --resume goes on from there" in ours[0]
    step = int(ours[0].split("step ")[1].split()[0])
    assert read_metrics(tmp_path / "run")[-1]["step"] == step
    assert gtok(*flags(excerpt, tmp_path / "run", "--resume", "--stop-after", str(step + 2))) == 0
    assert read_metrics(tmp_path / "run")[-1]["step"] == step + 2


@pytest.mark.slow
def test_accelerate_starts_it_too(whole: Path, excerpt: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed (extra hf)")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    out = tmp_path / "run"
    command = [SCRIPT, *flags(excerpt, out, "--steps", str(STEPS))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "--multi_gpu", *command], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    agree(whole, out)
    # With --cpu it starts a single process, which must not pass for two.
    done = subprocess.run([*launch, "--cpu", *command], env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode != 0
    assert "gtok.py: error: accelerate was asked for several processes and started one" in done.stderr


def start(excerpt: Path, folder: Path) -> subprocess.Popen[str]:
    """Two processes that train without end, once they have made their first steps."""
    command = flags(excerpt, folder / "run", "--steps", "100000", "--evaluate-every", "100000")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
    running = subprocess.Popen(
        [*launcher, *command], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    log = folder / "run" / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return running


def children(process: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=True)
    return sorted(map(int, found.stdout.split()))
