"""An RTok tokenizer is one table and one neuron: folded, it spikes as in training, and Lava agrees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rtok_text_fixtures import SENTENCES, lively_tokenizer, thirds, word_batch

from speak_neuro.export.cli import main as export
from speak_neuro.export.files.folded_file import alphabet_path, read_alphabet, read_folded
from speak_neuro.export.files.trace_file import read_trace
from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer
from speak_neuro.rtok.training.mimic import information, mimic, piece_targets
from speak_neuro.sim.cli import main as sim


@pytest.fixture(scope="module", params=["gated", "hard"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rtok") / "run"
    units = ["".join(units) for units in word_batch()]
    tokenizer = lively_tokenizer(request.param, reset_positive_weight=4.0)
    values = [information(unit, thirds, len) for unit in units]
    mimic(tokenizer, units, piece_targets(units, thirds), values, epochs=20, learning_rate=3e-3, positions=128)
    tokenizer.save(folder)
    text = folder / "units.txt"
    text.write_text("\n".join(units) + "\n", encoding="utf-8")
    assert export(["--to", "nir", "--fold", "--run", str(folder), "--text", str(text)]) == 0
    return folder


def test_the_graph_spikes_as_the_tokenizer_does(exported: Path) -> None:
    tokenizer = CharacterTokenizer.load(exported)
    folded = read_folded(exported / "folded.nir")
    alphabet = read_alphabet(alphabet_path(exported / "folded.nir"), folded.characters)
    current, gate = tokenizer.table().detach().numpy().T
    assert np.array_equal(folded.taps[0, 0], current)
    if tokenizer.config.neuron.reset_mode == "gated":
        assert np.array_equal(folded.taps[0, 1], gate)
    trace = read_trace(exported / "folded-trace.npz")
    units = ["".join(units) for units in word_batch()]
    count = 0
    for row, (unit, spikes) in enumerate(zip(units, tokenizer.spikes(units), strict=True)):
        assert trace.text(row) == unit
        assert np.array_equal(folded.spikes(alphabet.encode(unit))[:, 0], spikes)
        assert np.array_equal(trace.spikes[row, : len(unit)], spikes)
        count += int(spikes.sum())
    assert count > 20


def test_raw_text_is_normalised(exported: Path, tmp_path: Path) -> None:
    text = tmp_path / "raw.txt"
    text.write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    flags = ["--to", "nir", "--fold", "--run", str(exported), "--text", str(text), "--out", str(tmp_path)]
    assert export(flags) == 0
    trace, units = read_trace(tmp_path / "folded-trace.npz"), read_trace(exported / "folded-trace.npz")
    assert [trace.text(row) for row in range(5)] == [units.text(row) for row in range(5)]
    assert np.array_equal(trace.spikes, units.spikes)


def test_no_table(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(["--to", "table", "--run", str(exported)]) == 2
    assert "whose spikes open tokens" in capsys.readouterr().err


@pytest.mark.lava
def test_parity(exported: Path) -> None:
    pytest.importorskip("lava", reason="lava-nc is not installed (it needs Python 3.10)")
    graph, trace = exported / "folded.nir", exported / "folded-trace.npz"
    assert sim(["parity", "--graph", str(graph), "--trace", str(trace)]) == 0
    report = json.loads((exported / "parity.json").read_text(encoding="utf-8"))
    for level in ("neuron", "readout"):
        assert report["levels"][level]["mismatches"] == 0
        assert report["levels"][level]["spikes"] > 20
