"""experiments/reliability/kills.py: its kills are real, a lost bit is seen, and it goes on where it stopped."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from scripts import load

kills = load("reliability/kills")


def test_what_is_compared_sees_each_kind_of_loss(tiny_run: Path, tmp_path: Path) -> None:
    """A run is what it was but for times; a changed step, weight or score is not."""
    copy = Path(shutil.copytree(tiny_run, tmp_path / "copy"))
    whole = kills.content(tiny_run)
    assert kills.content(copy) == whole
    results = json.loads((copy / "results.json").read_text(encoding="utf-8"))
    results["metrics"]["training_seconds"] += 1
    (copy / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert kills.content(copy) == whole
    results["metrics"]["test_bpc"] += 1e-12
    (copy / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert [part for part, value in kills.content(copy).items() if value != whole[part]] == ["scores"]
    shutil.copy(copy / "state-20.safetensors", copy / "state.safetensors")
    assert kills.content(copy)["state"] != whole["state"]


def test_it_goes_on_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []

    def killed(place: Path, system: str, number: int, after: float) -> dict[str, Any]:
        made.append((system, number))
        return {"kill": number, "system": system, "signal": "SIGKILL", "lost": ["model"] if number == 4 else []}

    monkeypatch.setattr(kills, "whole", lambda place, system: 1.0)
    monkeypatch.setattr(kills, "killed", killed)
    out = tmp_path / "kills.json"
    assert kills.main(["--count", "3", "--json", str(out)]) == 0
    assert kills.main(["--count", "5", "--json", str(out)]) == 1
    assert made == [("speak", 0), ("dtp-gumbel", 1), ("dtp-unigram", 2), ("magnet", 3), ("speak", 4)]
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    assert (metrics["count"], metrics["lost"]) == (5, [4])
    assert kills.main(["--seed", "1", "--json", str(out)]) == 2


@pytest.mark.slow
def test_kills_lose_no_bit(tmp_path: Path) -> None:
    out = tmp_path / "kills.json"
    assert kills.main(["--count", "12", "--json", str(out)]) == 0
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    assert len(metrics["by"]) == 12  # each system with each signal
    assert sum(kill["came"] != "after the end" for kill in metrics["kills"]) > 9
