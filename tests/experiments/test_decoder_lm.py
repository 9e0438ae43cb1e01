"""experiments/decoder_lm.py: every id scored once, equal budgets, a call that goes on, a model that learns."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import load

SMALL = {"vocabulary": 300, "width": 16, "layers": 1, "heads": 2, "inner": 32, "window": 16, "batch": 4, "steps": 4}


@pytest.mark.parametrize("length", [1, 2, 9, 16, 17, 18, 24, 25, 33, 70])
def test_every_id_is_scored_once(length: int) -> None:
    """A model without weights gives each id the same chance."""
    script = load("decoder_lm")
    size = script.Size(**SMALL)
    model = script.build(size, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert script.bits(model, np.arange(length) % 300, size) == pytest.approx(length * math.log2(300), rel=1e-5)


def test_scores_are_those_of_one_pass_where_a_window_holds_all() -> None:
    script = load("decoder_lm")
    size = script.Size(**SMALL)
    model, ids = script.build(size, 2).eval(), np.random.default_rng(0).integers(0, 300, 17)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.from_numpy(ids[None, :-1])).logits[0].double().numpy()
    likely = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = math.log2(300) - likely[np.arange(16), ids[1:]].sum() / math.log(2)
    assert script.bits(model, ids, size) == pytest.approx(expected, rel=1e-4)


def test_a_model_learns() -> None:
    script = load("decoder_lm")
    ids = np.arange(3000) % 7
    few, many = (script.score(script.Size(**SMALL), steps, ids, ids[:200], 1, 200) for steps in (1, 60))
    assert many["bits_per_character"] < 0.7 * few["bits_per_character"]
    assert many["flops"] == 60 * few["flops"]


def test_table_and_a_second_call(
    tmp_path: Path,
    tiny_run: Path,
    excerpt: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = load("decoder_lm")
    text = excerpt.read_text(encoding="utf-8")
    for name, part in (("train", text[:16000]), ("test", text[17000:19000])):
        (tmp_path / f"{name}.txt").write_text(part, encoding="utf-8")
    flags = [word for name, value in (SMALL | {"steps": 24}).items() for word in (f"--{name}", str(value))]
    given = [str(tmp_path), "--run", str(tiny_run), "--out", str(tmp_path / "cells"), "--seeds", "1,2", *flags]
    assert script.main([*given, "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["metrics"]
    cells = found["cells"]
    assert len(cells) == 12
    same = [(cell["ids_read"], cell["flops"], cell["parameters"]) for cell in cells.values() if cell["budget"] == "ids"]
    assert len(set(same)) == 1
    text = [cell for cell in cells.values() if cell["budget"] == "text"]
    assert len({cell["steps"] for cell in text}) > 1
    for cell in text:
        read = 24 * cells["BPE, text, 1"]["characters_per_id"]
        assert abs(cell["steps"] * cell["characters_per_id"] - read) <= cell["characters_per_id"] / 2
        assert cell["ids_read"] == cell["steps"] * 4 * 16
    assert [line["tokenizer"] for line in found["table"]] == ["SPEAK", "BPE", "Unigram"] * 2
    monkeypatch.setattr(script, "score", lambda *given: pytest.fail("computed again"))
    assert script.main([*given, "--json", str(tmp_path / "again.json")]) == 0
    assert json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))["metrics"] == found
    assert script.main([*given, "--learn-characters", "9000"]) == 2
    assert "is of other settings; give another --out, or remove the file" in capsys.readouterr().err
