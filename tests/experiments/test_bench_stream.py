"""experiments/bench/stream.py: what it measures, and one clear line for each kind of bad input."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType

import pytest
from scripts import load

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, on Linux")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("bench/stream")


def test_the_built_text(script: ModuleType, tmp_path: Path) -> None:
    source, target = tmp_path / "source.txt", tmp_path / "text.txt"
    source.write_text("a word of it\nzoë and more\n" * 20, encoding="utf-8")
    script.build(target, argparse.Namespace(text=source, bytes=10_000.0))
    text = target.read_text(encoding="utf-8")
    assert 9_900 < target.stat().st_size <= 10_000
    assert text.startswith("a word of it\nzoë and more\n")
    assert "b xpse pg ju\napë boe npsf\n" in text
    assert text.endswith("\n")


@pytest.mark.slow
def test_it_measures(script: ModuleType, tmp_path: Path) -> None:
    work, results = tmp_path / "work", tmp_path / "results.json"
    flags = ["--bytes", "140e6", "--work", str(work), "--steps", "2", "--json", str(results)]
    assert script.main(flags) == 0
    metrics = json.loads(results.read_text(encoding="utf-8"))["metrics"]
    assert metrics["bytes"] <= 140e6
    for name in ("first", "resumed"):
        assert 1e8 < metrics[name]["peak_anonymous_bytes"] < metrics[name]["peak_resident_bytes"] < 2e9
        assert 0 < metrics[name]["seconds_to_first_step"] < metrics[name]["seconds"]
    assert not work.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps is 0; allowed: at least 1"),
        (["--bytes", "10"], "--bytes is 10.0; allowed: at least 1000000.0"),
        (["--work", "."], ".: exists; name a new folder as --work"),
    ],
)
def test_bad_flags(script: ModuleType, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
