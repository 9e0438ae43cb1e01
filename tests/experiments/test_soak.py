"""experiments/reliability/soak.py: growth is seen, and a run is made in pieces."""

import json
from pathlib import Path

import pytest
from scripts import load

soak = load("reliability/soak")


def test_growth_is_that_of_the_second_half() -> None:
    memory = soak.Memory()
    memory.samples = [100.0, 150.0, *[200.0] * 18]
    assert memory.measured()["grown_mib"] == 0
    memory.samples = [100.0 + number for number in range(20)]
    assert memory.measured()["grown_mib"] == 10
    memory.samples = [100.0, 110.0] * 5 + [100.0] * 5 + [110.0] * 5  # a buffer that comes and goes is no growth
    assert memory.measured()["grown_mib"] == 0
    memory.take()
    assert memory.samples[-1] > 50


def test_pieces_go_on_where_the_file_has_come_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "CALLS_A_SAMPLE", 500)
    monkeypatch.setattr(soak, "LIMIT_MIB", 1000)
    out = tmp_path / "soak.json"
    flags = ["--calls", "5000", "--minutes", "0.15", "--work", str(tmp_path / "run"), "--json", str(out)]
    for _ in range(3):
        assert soak.main([*flags, "--piece", "0.05"]) == 0
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    assert sum(piece["calls"] for piece in metrics["calls"]) >= 5000
    assert len(metrics["training"]) == 3
    seconds, steps = (sum(piece[name] for piece in metrics["training"]) for name in ("seconds", "steps"))
    assert seconds > 5
    last = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    lost = steps + 3 - json.loads(last)["step"]  # the clock of each of three begins after its first step
    # The second and the third began where the one before saved: a piece that ends at a step whose checkpoint is due
    # has not written it yet, and loses all of the twenty.
    assert 0 <= lost <= 2 * 20
    monkeypatch.setattr(soak, "LIMIT_MIB", -1000)
    assert soak.main([*flags, "--minutes", "0.05"]) == 1


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--work", str(tmp_path / "run"), "--json", str(tmp_path / "soak.json")]
    assert soak.main([*flags, "--minutes", "0"]) == 2
    (tmp_path / "soak.json").write_text("{}", encoding="utf-8")
    assert soak.main(flags) == 2
    assert "metrics is missing" in capsys.readouterr().err
    (tmp_path / "soak.json").write_text('{"metrics": {"calls": []}}', encoding="utf-8")
    assert soak.main(flags) == 2
    assert "metrics.training is missing; name a file of this command" in capsys.readouterr().err
