"""compare/step_times.py: every system takes its turn at its trained rate, and its times give the time axis."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scripts import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script() -> Any:
    return lambda name: load("compare/" + name)


def test_times_of_real_runs(
    script: Any,
    gtok: Callable[..., int],
    tiny_run: Path,
    excerpt: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = [tiny_run]
    for kind in ("fixed", "dtp-unigram", "magnet"):
        folders.append(tmp_path / kind)
        flags = ["--tokenizer", kind, "--data", str(excerpt), "--out", str(folders[-1]), "--steps", "20"]
        assert gtok(*flags) == 0
    out = tmp_path / "times.json"
    flags = ["--repeats", "2", "--device", "cpu", "--json", str(out)]
    weights = (tiny_run / "model.safetensors").read_bytes()
    assert script("step_times").main(["--run", *map(str, folders), *flags]) == 0
    assert (tiny_run / "model.safetensors").read_bytes() == weights
    found = json.loads(out.read_text(encoding="utf-8"))["metrics"]["step_times"]
    assert [one["system"] for one in found] == ["speak", "fixed", "dtp-unigram", "magnet"]
    assert all(one["step_ms"] > 0 and one["sf"] >= 1 for one in found)
    assert found[1]["sf"] == pytest.approx(4.0)

    # The time axis is now steps x the time of one, whatever the runs' clocks said; the finest common point is 20 steps.
    arguments = [*map(str, folders), "--step-times", str(out)]
    script("tables").main(arguments)
    assert "| validation BPC at |" in capsys.readouterr().out
    records = script("selection").timed(script("records").load(folders)[0], out)
    for record, one in zip(records, found, strict=True):
        assert record.curve["seconds"] == pytest.approx(
            [step * one["step_ms"] / 1e3 for step in record.curve["step"]], abs=1e-3
        )


def test_what_is_timed(
    script: Any,
    gtok: Callable[..., int],
    tiny_run: Path,
    excerpt: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps as they are once a start is over; a decision at every other step counts half; other shares, other times."""
    from speak_neuro.systems.run_folder import read_run
    from speak_neuro.training import fit
    from speak_neuro.training import trainer as train

    warm, half = tmp_path / "warm", tmp_path / "half"
    flags = ["--data", str(excerpt), "--steps", "4"]
    assert gtok(*flags, "--tokenizer", "magnet", "--exemplar-steps", "4", "--out", str(warm)) == 0
    assert gtok(*flags, "--acceptance-share", "0.5", "--out", str(half)) == 0
    bench = script("step_times")
    found = fit.train_step(bench.trainer(read_run(warm), excerpt.read_text(encoding="utf-8"), torch.device("cpu")))
    assert "target_f1" not in found

    steps: list[int] = []

    def step(trainer: train.Trainer) -> dict[str, float]:
        steps.append(trainer.step)
        return train_step(trainer)

    train_step = fit.train_step
    monkeypatch.setattr(fit, "train_step", step)
    out = tmp_path / "times.json"
    arguments = ["--repeats", "2", "--device", "cpu", "--json", str(out)]
    assert bench.main(["--run", str(half), *arguments]) == 0
    assert steps == [0, 1, 2, 3, 4, 5]
    record, other = script("records").load([half, tiny_run])[0]
    timed = script("selection").timed([record, other], out)
    assert timed[0].curve["seconds"][-1] is not None
    assert timed[1].curve["seconds"][-1] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"metrics": {}}, "no step times"),
        ({"metrics": {"step_times": [{"system": "speak", "config": {}, "step_ms": 1.0}]}}, "times none of these runs"),
    ],
)
def test_other_files(
    script: Any, tiny_run: Path, tmp_path: Path, content: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "times.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert script("tables").main([str(tiny_run), "--step-times", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_short_text(script: Any, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "short.txt"
    text.write_text("short", encoding="utf-8")
    assert script("step_times").main(["--run", str(tiny_run), "--text", str(text), "--device", "cpu"]) == 2
    assert "a batch needs 260 characters, the text has 5" in capsys.readouterr().err
