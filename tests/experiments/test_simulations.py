"""experiments/reliability/simulations.py: real runs and a real fault, with nothing left; what is left is counted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lava_fixtures import lava
from scripts import load

simulations = load("reliability/simulations")


def test_what_is_left_is_counted(tmp_path: Path) -> None:
    watch = simulations.Watch(tmp_path)
    assert watch.left(0) == {"processes": 0, "shared memory": 0, "temporary files": 0}
    (watch.place / "file").touch()
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=watch.environment)
    try:
        assert watch.left(0) == {"processes": 1, "shared memory": 0, "temporary files": 1}
    finally:
        sleeper.communicate(b"\n")
    assert watch.processes() == []


def test_errors_without_the_bar() -> None:
    assert simulations.said(" 10%|#  |\nspeak-sim: error: the reason\n") == "the reason"
    assert "\n" in simulations.said("Traceback (most recent call last):\nspeak-sim: error: the reason\n")


@lava
@pytest.mark.slow
def test_runs_and_faults(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert simulations.main(["--runs", "2", "--each", "1", "--json", str(out)]) == 0
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    assert metrics["runs"]["two at once"]["spikes"] == {"neuron": [44, 0], "readout": [44, 0]}
    assert set(metrics["faults"]) >= set(simulations.FAULTS)
