"""An RTok tokenizer is one table and one neuron: folded, it spikes as in training, and Lava agrees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rtok_text_fixtures import SENTENCES, ahead_tokenizer, lively_tokenizer, thirds, word_batch

from speak_neuro.export.cli import main as export
from speak_neuro.export.files.folded_file import alphabet_path, read_alphabet, read_folded
from speak_neuro.export.files.neuron_file import read_neuron
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


@pytest.fixture(scope="module", params=["window", "convolution"])
def ahead(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that decides three characters late, exported from its features on."""
    folder = tmp_path_factory.mktemp("ahead") / request.param
    ahead_tokenizer(request.param, 5, 3).save(folder)
    text = folder / "units.txt"
    text.write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    assert export(["--to", "nir", "--run", str(folder), "--text", str(text)]) == 0
    return folder


def test_a_delay_is_stated(ahead: Path) -> None:
    """The trace's text has the signs that follow a unit; its spikes, so many steps earlier, are the tokenizer's."""
    tokenizer, trace = CharacterTokenizer.load(ahead), read_trace(ahead / "trace.npz")
    units = ["".join(units) for units in word_batch()]
    assert read_neuron(ahead / "boundary.nir").metadata["look_ahead"] == trace.meta["look_ahead"] == 3
    assert trace.meta["convention"] == "opens"
    count = 0
    for row, (unit, spikes) in enumerate(zip(units, tokenizer.spikes(units), strict=True)):
        assert trace.text(row) == unit + "▁▁▁"
        assert np.array_equal(trace.spikes[row, 3 : len(unit) + 3].astype(bool), spikes)
        count += int(spikes.sum())
    assert count > 20


def test_a_folded_convolution(ahead: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its Delay nodes hold the look-ahead; from characters on it spikes as the tokenizer, and a window is refused."""
    flags = ["--to", "nir", "--fold", "--run", str(ahead)]
    if ahead.name == "window":
        assert export(flags) == 2
        assert "no sum of tables over single characters" in capsys.readouterr().err
        return
    assert export(flags) == 0
    folded = read_folded(ahead / "folded.nir")
    assert (folded.context, folded.metadata["look_ahead"]) == (5, 3)
    tokenizer = CharacterTokenizer.load(ahead)
    for unit in [unit for units in word_batch() for unit in units]:
        found = folded.spikes(tokenizer.alphabet.encode(unit + "▁▁▁"))[3:, 0]
        assert np.array_equal(found, tokenizer.spikes([unit])[0])
    assert sim(["tokenize", str(ahead / "units.txt"), "--graph", str(ahead / "folded.nir")]) == 2
    assert "of an RTok tokenizer, whose text is normalised first" in capsys.readouterr().err


@pytest.mark.lava
def test_parity_of_a_delayed_tokenizer(ahead: Path) -> None:
    pytest.importorskip("lava", reason="lava-nc is not installed (it needs Python 3.10)")
    assert sim(["parity", "--graph", str(ahead / "boundary.nir"), "--trace", str(ahead / "trace.npz")]) == 0
    report = json.loads((ahead / "parity.json").read_text(encoding="utf-8"))
    for level in ("neuron", "readout"):
        assert report["levels"][level]["mismatches"] == 0
        assert report["levels"][level]["spikes"] > 20
