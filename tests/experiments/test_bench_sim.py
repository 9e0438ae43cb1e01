"""experiments/bench/sim.py: its gate, and that it measures what it says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from scripts import load

from speak_neuro.errors import ParityError

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load("bench/sim")


def test_nothing_is_timed_when_the_neurons_differ(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(kind: str, *_: object) -> SimpleNamespace:
        return SimpleNamespace(seconds=1.0, spikes=np.eye(3) if kind == "stock" else np.ones((3, 3)))

    monkeypatch.setattr(bench, "measured", measured)
    assert bench.main(["--populations", "4"]) == 1
    captured = capsys.readouterr()
    assert "6 spikes of the gated neuron and the stock LIF differ; nothing was timed" in captured.err
    assert captured.out == ""
    monkeypatch.setattr(bench, "measured", lambda *_: SimpleNamespace(spikes=np.zeros((3, 3))))
    with pytest.raises(ParityError):  # silence is no agreement
        bench.check_oracle()


def test_bad_sizes(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--steps", "1"]) == 2
    assert "--steps is 1; allowed: at least 100" in capsys.readouterr().err
    assert bench.main(["--populations", "0"]) == 2
    assert "--populations is [0]" in capsys.readouterr().err


@pytest.mark.lava
@pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason="lava-nc is not installed (Python 3.10 only)")
def test_it_measures(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(bench, "ARITHMETICS", ("float",))
    record = tmp_path / "bench.json"
    flags = ["--populations", "3", "--steps", "100", "--repeats", "1", "--characters", "900", "--row-length", "50"]
    assert bench.main([*flags, "--features", "3", "--json", str(record)]) == 0
    metrics = json.loads(record.read_text(encoding="utf-8"))["metrics"]
    speeds = metrics["steps_per_second"]["3"]
    assert set(speeds) == {f"{kind} {place}, float" for kind in ("stock", "gated") for place in ("process", "network")}
    assert all(value > 0 for value in speeds.values())
    assert metrics["through_parity"]["characters"] == 900
    assert metrics["through_parity"]["spikes"] > 0
    assert "0 mismatches" in capsys.readouterr().out
