"""What a first run leaves, with no encoder named: a table, ids, a folded graph, and the same tokens from Lava."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from scripts import load
from tiny import TINY_FLAGS, embedded_excerpt

from speak_neuro.cli import main as tokenize
from speak_neuro.export.cli import main as export
from speak_neuro.sim.cli import main as simulate
from speak_neuro.table.load_vocabulary import load_vocabulary

NO_LAVA = "lava-nc is not installed"


@pytest.mark.lava
@pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason=NO_LAVA)
def test_one_run_four_ways_to_its_tokens(excerpt: Path, tmp_path: Path) -> None:
    run, text = tmp_path / "run", tmp_path / "some.txt"
    text.write_text(embedded_excerpt(3000), encoding="utf-8")
    flags = TINY_FLAGS[2:]  # all but the encoder
    assert load("gtok").main([*flags, "--data", str(excerpt), "--out", str(run), "--steps", "20"]) == 0
    assert export(["--to", "table", "--run", str(run)]) == 0
    assert export(["--to", "nir", "--fold", "--no-trace", "--run", str(run), "--quiet"]) == 0

    found = {}
    for name, command, source in (
        ("network", tokenize, ["--run", str(run)]),
        ("table", tokenize, ["--table", str(run / "table.safetensors")]),
        ("Lava", simulate, ["tokenize", "--graph", str(run / "folded.nir")]),
    ):
        out = tmp_path / name
        assert command([*source, str(text), "--format", "spans", "--out", str(out)]) == 0
        found[name] = out.read_bytes()
    assert found["table"] == found["network"] == found["Lava"]
    assert found["table"].count(b"], [") > 100  # it cuts

    path = tmp_path / "vocabulary"
    table = ["--table", str(run / "table.safetensors"), str(text), "--format", "ids", "--out", str(tmp_path / "ids")]
    assert tokenize([*table[:3], "--build-vocabulary", str(path), "--vocabulary-size", "400"]) == 0
    assert tokenize([*table, "--vocabulary", str(path)]) == 0
    vocabulary = load_vocabulary(path)
    rows = [json.loads(line) for line in (tmp_path / "ids").read_text(encoding="utf-8").splitlines()]
    assert [vocabulary.decode(row) for row in rows] == text.read_text(encoding="utf-8").split("\n")
    assert sum(map(len, rows)) < len(text.read_bytes()) / 1.5  # pieces, not bytes
