"""experiments/bench/ids.py and pieces.py: every kind of vocabulary at every size, and a run where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from forked import run_forked
from scripts import load
from tiny import TINY_FLAGS


def test_ids(
    tmp_path: Path, excerpt: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load("bench/ids")

    def run(command: list[str]) -> SimpleNamespace:
        return SimpleNamespace(returncode=run_forked(command, tmp_path / "training"))

    monkeypatch.setattr(script, "subprocess", SimpleNamespace(run=run))
    text = excerpt.read_text(encoding="utf-8")
    for name, part in (("train", text[:16000]), ("valid", text[16000:17000]), ("test", text[17000:])):
        (tmp_path / "texts" / "en").mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / "en" / f"{name}.txt").write_text(part, encoding="utf-8")
    flags = " ".join([*TINY_FLAGS[:-1], "--steps 4 --encoder convolution"])
    given = [str(tmp_path / "texts"), "--runs", str(tmp_path / "runs"), "--flags", flags, "--sizes", "300,400"]
    assert script.main([*given, "--repeats", "1", "--json", str(tmp_path / "ids.json")]) == 0
    found = json.loads((tmp_path / "ids.json").read_text(encoding="utf-8"))["metrics"]["en"]
    assert found["steps"] == 4
    assert list(found["sizes"]) == ["300", "400"]
    for size, row in found["sizes"].items():
        assert list(row) == ["ranges", "tokens", "BPE", "Unigram", "BPE without borders"]
        for value in row.values():
            assert value["ids"] == row["BPE"]["ids"] == int(size)
            assert value["characters_per_id"] >= 1
            assert value["million_characters_per_second"] > 0
    assert "en 400 (400 ids): ranges " in capsys.readouterr().out
    # What is there is not measured again. Where BPE ends, the others end too.
    more = [*given[:-1], "400,300,9000", "--repeats", "1", "--json", str(tmp_path / "ids.json")]
    assert script.main(more) == 0
    sizes = json.loads((tmp_path / "ids.json").read_text(encoding="utf-8"))["metrics"]["en"]["sizes"]
    assert sizes.pop("9000")["ranges"]["ids"] < 5000
    assert sizes == found["sizes"]
    compare_ways(given[:3], tmp_path)
    assert script.main([*given, "--languages", "en,xx"]) == 2
    assert "xx: has no train.txt and test.txt; languages there: ['en']" in capsys.readouterr().err


def compare_ways(given: list[str], tmp_path: Path) -> None:
    """experiments/bench/pieces.py on the same run."""
    script = load("bench/pieces")
    out = tmp_path / "pieces.json"
    assert script.main([*given, "--sizes", "400", "--json", str(out)]) == 0
    row = json.loads(out.read_text(encoding="utf-8"))["metrics"]["en"]["400"]
    assert list(row) == ["ids", "BPE", *script.KINDS]
    for kind in script.KINDS:
        assert 256 < row[kind]["ids"] <= 400
        assert 1 < row[kind]["characters_per_id"] < row[kind]["characters_per_id_learned"] * 1.1
    assert row["ranges"]["ids"] == row["joins"]["ids"] == 400
