"""compare_rtok/mimicry.py: words of a text and of UNER, small rows, what is kept, scores by hand, one-line errors."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from rtok_fixtures import tokenizer_json
from scripts import load

from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer
from speak_neuro.rtok.training.proxies import join_signs

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "uner"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("compare_rtok/mimicry")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    (folder / "a.txt").write_text("The cat sat by the river.\nA heron of London waited there.\n" * 4, encoding="utf-8")
    tokenizer_json(folder)
    return folder


def flags(data: Path, *more: str) -> list[str]:
    own = ["--uner", str(GOLDEN), "--uner-words", "en_ewt:train", "--held-out", "en_ewt:dev", "de_pud:test"]
    return [*own, "--pieces", str(data), "--steps", "3", "--words", "20", "--quiet", *more]


def test_rows_and_what_is_kept(
    script: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cells.json"
    monkeypatch.setitem(script.ROWS, "window-4-joined", script.Row(width=8, reset_mode="gated", join_signs=True))
    chosen = flags(data, "--text", str(data / "a.txt"), "--rows", "paper", "convolution-2", "--json", str(path))
    assert script.main(chosen) == 0
    cells = json.loads(path.read_text(encoding="utf-8"))["metrics"]["cells"]
    assert list(cells) == ["paper/1", "convolution-2/1"]
    assert all(0 <= cell["f1"] <= 100 and cell["length"] > 0 for cell in cells.values())
    more = [*chosen, "--rows", "paper", "window-4-joined", "--save", str(tmp_path / "runs")]
    assert script.main(more) == 0
    kept = json.loads(path.read_text(encoding="utf-8"))["metrics"]["cells"]
    assert list(kept) == ["paper/1", "convolution-2/1", "window-4-joined/1"]
    assert kept.items() >= cells.items()
    assert CharacterTokenizer.load(tmp_path / "runs" / "window-4-joined-1").look_ahead == 4
    text = capsys.readouterr().out
    assert "F1 en_ewt | F1 de_pud" in text
    assert path.with_suffix(".md").read_text(encoding="utf-8").strip() in text
    assert script.main([*chosen, "--steps", "4"]) == 2
    assert "name another --json" in capsys.readouterr().err


def test_scores_by_hand(script: ModuleType) -> None:
    """Cuts of the tokenizer a|bc, ab|c, d and of XLM-R a|b|c, ab|c, d, so often each."""
    held = {"xx": Counter({"▁abc": 2, "▁abd": 3, "▁d": 5})}
    pieces = {"▁abc": ["▁a", "b", "c"], "▁abd": ["▁ab", "d"], "▁d": ["▁", "d"]}
    spikes = {"▁abc": [1, 0, 1, 0], "▁abd": [0, 0, 0, 1], "▁d": [1, 0]}
    made = SimpleNamespace(
        held=held, known={"▁abd"}, model=SimpleNamespace(segment_batch=lambda units: [pieces[u] for u in units])
    )
    tokenizer = SimpleNamespace(
        spikes=lambda units: [np.array(spikes[unit], dtype=bool) for unit in units],
        boundary=SimpleNamespace(parameters=list),
    )
    found = script.cut_scores(made, tokenizer, list)
    assert found["recall"] == pytest.approx(100 * 5 / 12)  # 2 * 1 and 3 * 1 of 2 * 2, 3 and 5
    assert found["precision"] == 100
    assert found["f1"] == found["xx_f1"] == pytest.approx(200 * 5 / 17)
    assert found["unseen_f1"] == pytest.approx(200 * 2 / (2 + 9))
    assert found["length"] == pytest.approx(100 * (2 * 2 + 3 * 2 + 5) / (2 * 3 + 3 * 2 + 5 * 2))
    joined = script.cut_scores(made, tokenizer, join_signs)
    assert joined["recall"] == pytest.approx(100 * 5 / 7)
    assert joined["length"] == found["length"]


def test_lone_signs() -> None:
    assert join_signs(["▁", ",", "▁", "das", "▁a", "b"]) == ["▁,", "▁das", "▁a", "b"]
    assert join_signs(["▁"]) == ["▁"]
    assert join_signs([]) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps", "0"], "--steps is 0; allowed: at least 1"),
        (["--learning-rate", "0"], "--learning-rate is 0.0; allowed: above 0"),
        (["--uner-words"], "leaves nothing to learn from; give --text"),
        (["--uner-words", "en_ewt"], "part of UNER is 'en_ewt'; allowed: SET:SPLIT or SET:SPLIT:FIRST:LAST"),
        (["--uner-words", "en_ewt:dev:5"], "allowed: SET:SPLIT or SET:SPLIT:FIRST:LAST"),
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
