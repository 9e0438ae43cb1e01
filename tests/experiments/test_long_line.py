"""experiments/reliability/long_line.py: a line is read whole by either tokenizer, and growth is seen."""

import json
from pathlib import Path

import pytest
from scripts import load


def test_lines_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long_line, out = load("reliability/long_line"), tmp_path / "out.json"
    monkeypatch.setattr(long_line, "LIMIT", 100)  # so short lines are held whole
    flags = ["--run-bytes", "40000", "--table-bytes", "200000", "--json", str(out)]
    assert long_line.main(flags) == 0
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    for name, size in (("run", 40_000), ("table", 200_000)):
        small, large = metrics[name]
        assert (small["lines"], large["lines"]) == (1, 1)
        assert 0.99 * size < large["bytes"] <= size
        assert large["bytes"] == large["characters"]
        assert large["tokens"] > 9 * small["tokens"]
        assert large["peak_mib"] > 30


def test_growth_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was measured, in the place of runs and processes."""
    long_line, out = load("reliability/long_line"), tmp_path / "out.json"
    monkeypatch.setattr(long_line, "short_run", lambda place, name, *more: place)
    monkeypatch.setattr(long_line, "export", lambda flags: 0)
    for growth, code in ((1.1, 0), (1.3, 1)):

        def measured(tokenizer: list[str], line: Path, counts: Path, growth: float = growth) -> dict[str, float]:
            large = "--table" in tokenizer and line.stat().st_size > 100_000
            return {"bytes": line.stat().st_size, "peak_mib": 50.0 * (growth if large else 1)}

        monkeypatch.setattr(long_line, "measured", measured)
        assert long_line.main(["--run-bytes", "40000", "--table-bytes", "200000", "--json", str(out)]) == code
        peaks = json.loads(out.read_text(encoding="utf-8"))["metrics"]["table"]
        assert [peak["peak_mib"] for peak in peaks] == [50, 50 * growth]
