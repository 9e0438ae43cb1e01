"""Two runs side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from scripts import load

from speak_neuro.systems.run_folder import METRICS
from speak_neuro.training.metrics_log import read_metrics

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("compare/diff_runs")


def test_a_run_equals_itself(script: ModuleType, tiny_run: Path, tmp_path: Path) -> None:
    assert script.main([str(tiny_run), str(tiny_run), "--json", str(tmp_path / "found.json")]) == 0
    metrics = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["metrics"]
    assert {entry["largest"] for entry in metrics["log"].values()} == {0.0}
    assert metrics["state"] == {"weights": 0.0, "proxy_share": 0.0}


def test_the_first_step_that_differs(script: ModuleType, tiny_run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_run, tmp_path / "other")
    records = read_metrics(other)
    for record in records:
        if record["step"] >= 7 and "bpc" in record:
            record["bpc"] += 0.5
        record["seconds"] = 1.0
    (other / METRICS).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    assert script.main([str(tiny_run), str(other), "--json", str(tmp_path / "found.json")]) == 0
    log = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["metrics"]["log"]
    assert log["bpc"]["first_step"] == 7
    assert log["bpc"]["largest"] == pytest.approx(0.5)
    assert log["loss_lm"] == {"largest": 0.0, "first_step": None, "steps": 40}
    assert "seconds" not in log


def test_no_run(script: ModuleType, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([str(tiny_run), str(tmp_path / "none")]) == 2
    assert "no such run folder" in capsys.readouterr().err
