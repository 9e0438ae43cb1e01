"""compare_rtok/tune_tokenizer.py: a small sweep with a small vocabulary, resumed, and its one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from rtok_fixtures import tokenizer_json
from scripts import load

from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "tune_tokenizer.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("compare_rtok/tune_tokenizer")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uner")
    lines = [
        f"The {animal} of {place} sat near the {thing}." for animal in ANIMALS for place in PLACES for thing in THINGS
    ]
    (folder / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    block = "# sent_id = 1\n# text = В городе стоит дом.\n1\tВ\tO\t-\tx\n\n"
    (folder / "b.iob2").write_text(block, encoding="utf-8")
    (folder / "LICENSE-a.txt").write_text("not a sentence\n", encoding="utf-8")
    tokenizer_json(folder)
    return folder


ANIMALS = ("cat", "dog", "heron", "otter")
PLACES = ("Lisbon", "Reykjavík", "Tartu", "London", "Graz")
THINGS = ("river", "station", "old wall", "market")


def flags(data: Path, *more: str) -> list[str]:
    return ["--data", str(data), "--pieces", str(data), "--held-out", "20", "--epochs", "1", "--quiet", *more]


def test_sweep_and_resume(
    script: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.json"
    chosen = ["--rows", "paper", "layers-2", "no-tanh", "dim-64", "--json", str(path)]
    assert script.main(flags(data, *chosen, "--modes", "hard")) == 0
    record = json.loads(path.read_text(encoding="utf-8"))
    cells = record["metrics"]["cells"]
    assert list(cells) == [f"{name}/hard/1" for name in ("paper", "layers-2", "no-tanh", "dim-64")]
    assert record["metrics"]["data"]["sentences"] == 81
    assert all(0 <= cell["spike_accuracy"] <= 100 and cell["shortening_factor"] >= 1 for cell in cells.values())
    assert cells["layers-2/hard/1"]["parameters"] > cells["paper/hard/1"]["parameters"]

    trained: list[str] = []
    score = script.score
    monkeypatch.setattr(script, "score", lambda *a: trained.append(f"{a[2]}/{a[3]}") or score(*a))
    more = ["--modes", "hard", "gated", "--seeds", "1", "2", "--save", str(tmp_path / "runs")]
    assert script.main(flags(data, *chosen, *more)) == 0
    assert CharacterTokenizer.load(tmp_path / "runs" / "dim-64-gated-2").config.tokenizer.encoder_width == 64
    assert trained == ["gated/1"] * 4 + ["hard/2", "gated/2"] * 4
    assert json.loads(path.read_text(encoding="utf-8"))["metrics"]["cells"].items() >= cells.items()
    text = capsys.readouterr().out
    assert "| gated | 1 | no | 1.2 | 0.6 | 128 |" in text
    assert path.with_suffix(".md").read_text(encoding="utf-8").strip() in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--held-out", "60"], "the data has 81 sentences, --held-out takes 60; allowed: at most half"),
        (["--epochs", "0"], "--epochs is 0; allowed: at least 1"),
        (["--learning-rate", "0"], "must be above 0"),
        (["--pieces", "nowhere"], "nowhere"),
    ],
)
def test_bad_input(
    script: ModuleType, data: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(flags(data, *more)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_other_results_are_not_continued(
    script: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}", encoding="utf-8")
    assert script.main(flags(data, "--json", str(path))) == 2
    assert "not a results file of this script" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert script.main(["--data", str(tmp_path / "empty")]) == 2
    assert "holds no .iob2 and no .txt file" in capsys.readouterr().err
    record = {"metrics": {"cells": {}, "data": {}, "settings": {"epochs": 3}}}
    path.write_text(json.dumps(record), encoding="utf-8")
    assert script.main(flags(data, "--json", str(path))) == 2
    assert "name another --json" in capsys.readouterr().err
