"""experiments/ablate_context.py trains each variant once and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import load
from tiny import TINY_FLAGS

ROOT = Path(__file__).resolve().parents[2]


def test_the_script(
    tmp_path: Path, excerpt: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load("ablate_context")
    monkeypatch.setattr("speak_neuro.training.outcome.draw", lambda folder: None)
    rest = [flag for flag in TINY_FLAGS if flag not in ("--context", "3", "--encoder", "window")]
    out = tmp_path / "out.json"
    flags = ["--encoders", "linear", "convolution", "--contexts", "1", "2", "--out", str(tmp_path / "runs")]
    flags += ["--json", str(out), *rest, "--data", str(excerpt), "--steps", "6"]
    assert module.main(flags) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["metrics"]["runs"]
    assert [(row["encoder"], row["context"]) for row in rows] == [
        ("linear", None),
        ("convolution", 1),
        ("convolution", 2),
    ]
    assert all(1 < row["test_bpc"] < 9 for row in rows)
    made = (tmp_path / "runs" / "convolution-2" / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert module.main(flags) == 0
    assert capsys.readouterr().out.count("already there") == 3
    assert (tmp_path / "runs" / "convolution-2" / "model.safetensors").stat().st_mtime_ns == made
    assert module.main([*flags, "--json", str(tmp_path), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
    assert module.main([*flags, "--steps", "7", "--json", str(tmp_path)]) == 2
    found = capsys.readouterr()
    assert found.err == f"ablate_context.py: error: {tmp_path}: is a folder; name a file to write\n"
    assert found.out == ""
    with pytest.raises(SystemExit):
        module.main(["--no-such-flag"])
    assert capsys.readouterr().err.count("\n") == 1
