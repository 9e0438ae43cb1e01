"""The folded tokenizer: the same boundaries as inference on every text, as a graph of stock nodes and one neuron."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest
import torch
from folded_fixtures import config_of, lively_system, run_folder, scripts

from speak_neuro.errors import SpeakError, UnsupportedExport
from speak_neuro.export.cli import main
from speak_neuro.export.files.folded_file import Folded, one_hot, read_alphabet, read_folded, write_folded
from speak_neuro.export.files.neuron_file import read_neuron
from speak_neuro.export.files.trace_file import read_trace
from speak_neuro.export.fold import fold, fold_refusals
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.inference.speak import Speak
from speak_neuro.neuron.resets import RESETS
from speak_neuro.text import segments
from speak_neuro.text.alphabet import Alphabet

ENCODERS = [("linear", 1), ("convolution", 1), ("convolution", 2), ("convolution", 5)]


def engine_of(encoder: str, context: int, vocabulary: int, **neuron: object) -> BoundaryEngine:
    tanh = bool(neuron.pop("tanh", False))
    return BoundaryEngine(
        lively_system(encoder, vocabulary, context, tanh, **neuron), config_of(encoder, context, tanh, **neuron)
    )


@pytest.mark.parametrize(("encoder", "context"), ENCODERS)
def test_every_text_has_the_same_boundaries(encoder: str, context: int, tmp_path: Path) -> None:
    texts = [*scripts().values(), "", "x", "\x00\n\t", "👩\u200d👧 unknown"]
    alphabet = Alphabet(Alphabet.learn("".join(texts[:-1])).characters[:700])
    speak = Speak(engine_of(encoder, context, len(alphabet), decay=0.95), alphabet)
    write_folded(tmp_path / "a.nir", fold(speak.engine))
    folded = read_folded(tmp_path / "a.nir")
    spikes = 0
    for text in texts:
        trace = speak.trace(text)
        current, gate = folded.inputs(alphabet.encode(text))
        assert current[:, 0].tobytes() == (trace.current + np.float32(0)).tobytes()
        assert gate[:, 0].tobytes() == (trace.gate_logit + np.float32(0)).tobytes()
        found = folded.spikes(alphabet.encode(text))[:, 0]
        assert np.array_equal(segments.spans(found), speak.spans(text))
        spikes += int(found.sum())
    assert spikes > 2000


@pytest.mark.parametrize("mode", RESETS)
@pytest.mark.parametrize(("encoder", "context"), [("linear", 1), ("convolution", 3)])
def test_every_reset_mode(mode: str, encoder: str, context: int) -> None:
    engine = engine_of(encoder, context, 30, reset_mode=mode, reset_potential=-0.25, threshold=1.25)
    ids = np.random.default_rng(0).integers(0, 30, 700)
    found = fold(engine).spikes(ids)[:, 0]
    assert np.array_equal(found, engine.run(ids).spikes)
    assert 50 < found.sum() < 700


def test_one_hot_products_are_the_table() -> None:
    """What any reader of the graph computes: the spikes times the weights."""
    folded = fold(engine_of("linear", 1, 40))
    ids = np.arange(40)
    lanes = one_hot(ids, 40) @ folded.neuron.weight.T + folded.neuron.bias
    current, gate = folded.inputs(ids)
    assert np.array_equal(lanes, np.concatenate([current, gate], axis=1))


def test_tanh_folds_with_one_table_only() -> None:
    engine = engine_of("linear", 1, 30, tanh=True)
    assert np.abs(fold(engine).taps[0, 0]).max() < 1
    reasons = fold_refusals(engine_of("convolution", 2, 30, tanh=True))
    assert len(reasons) == 1
    assert reasons[0].startswith("tanh stands between")


@pytest.mark.parametrize(
    ("encoder", "context", "reason"),
    [
        ("window", 3, "the window encoder is no sum .*LayerNorm and GELU over a window"),
        ("hourglass", 1, "the hourglass encoder is no sum .*it reads a transformer"),
        ("convolution", 65, "a synapse delays by at most 63"),
    ],
)
def test_what_does_not_fold(encoder: str, context: int, reason: str) -> None:
    with pytest.raises(UnsupportedExport, match=reason):
        fold(engine_of(encoder, context, 30))


def test_an_alphabet_beyond_one_core() -> None:
    engine = engine_of("convolution", 2, 50)
    with pytest.raises(UnsupportedExport, match="alphabet has 50 characters, one core takes 49 input axons"):
        fold(engine, axon_limit=49)
    assert fold(engine, axon_limit=50).characters == 50


def test_numbers_that_are_not_finite() -> None:
    engine = engine_of("convolution", 2, 20)
    with torch.no_grad():
        engine.tokenizer.encoder.sixteenths[1, 3, 0] = float("nan")
    with pytest.raises(UnsupportedExport, match=r"encoder\.sixteenths holds values that are not finite"):
        fold(engine)


@pytest.fixture(scope="module")
def alphabet() -> Alphabet:
    return Alphabet.learn(scripts()["en"])


def test_the_command(tmp_path: Path, alphabet: Alphabet) -> None:
    run = run_folder(tmp_path / "run", "linear", alphabet)
    text = tmp_path / "some.txt"
    text.write_text("\n".join(list(scripts()["en"].split("\n"))[:10]), encoding="utf-8")
    for name in ("a", "b"):
        out = tmp_path / name
        assert main(["--run", str(run), "--fold", "--text", str(text), "--out", str(out), "--quiet"]) == 0
        assert sorted(p.name for p in out.iterdir()) == ["folded-trace.npz", "folded.alphabet.json", "folded.nir"]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    trace, exported = read_trace(tmp_path / "a" / "folded-trace.npz"), read_neuron(tmp_path / "a" / "folded.nir")
    assert np.array_equal(trace.features.sum(axis=2) == 1, trace.valid)
    lanes = trace.features @ exported.weight.T + exported.bias
    assert np.array_equal(lanes[trace.valid][:, 0], trace.current[trace.valid])
    assert read_alphabet(tmp_path / "a" / "folded.alphabet.json", len(alphabet)) == alphabet


def test_the_command_with_delays(tmp_path: Path, alphabet: Alphabet, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run", "convolution", alphabet, context=4)
    assert main(["--run", str(run), "--fold", "--quiet", "--json", str(tmp_path / "made.json")]) == 0
    assert read_folded(run / "folded.nir").context == 4
    metrics = json.loads((tmp_path / "made.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["synapses"] == 4 * 2 * len(alphabet)
    capsys.readouterr()
    assert main(["--run", str(run), "--fold", "--axon-limit", "3", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "one core takes 3 input axons" in error
    assert main(["--run", str(run), "--fold", "--axon-limit", "0", "--quiet"]) == 2
    assert main(["--run", str(run), "--fold", "--to", "table"]) == 2
    assert "make NIR graphs" in capsys.readouterr().err


def test_the_ordinary_export_of_a_convolution(tmp_path: Path, alphabet: Alphabet) -> None:
    """boundary.nir begins at the looked-up parts, and its readout adds them up."""
    run = run_folder(tmp_path / "run", "convolution", alphabet, context=3)
    assert main(["--run", str(run), "--rows", "5", "--quiet"]) == 0
    trace, exported = read_trace(run / "trace.npz"), read_neuron(run / "boundary.nir")
    assert exported.weight.tolist() == [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    lanes = trace.features @ exported.weight.T
    np.testing.assert_allclose(lanes[trace.valid][:, 0], trace.current[trace.valid], atol=1e-6)


def small(context: int = 3) -> Folded:
    return fold(engine_of("convolution", context, 9), {"producer": "test"})


def test_files_are_reproducible_and_need_no_metadata(tmp_path: Path) -> None:
    folded = small()
    write_folded(tmp_path / "a.nir", folded)
    write_folded(tmp_path / "b.nir", read_folded(tmp_path / "a.nir"))
    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()
    with h5py.File(tmp_path / "a.nir", "r+") as stream:
        del stream["node/metadata"]
    again = read_folded(tmp_path / "a.nir")
    assert again.metadata == {}
    assert again.taps.tobytes() == folded.taps.tobytes()


@pytest.mark.parametrize("damage", ["delay", "edge", "scale", "name", "kind"])
def test_a_graph_that_is_wired_otherwise(tmp_path: Path, damage: str) -> None:
    write_folded(tmp_path / "a.nir", small())
    graph = nir.read(tmp_path / "a.nir")
    nodes, edges = dict(graph.nodes), list(graph.edges)
    if damage == "delay":
        nodes["delay_01"] = nir.Delay(delay=np.full(9, 2, dtype=np.float32))
    elif damage == "scale":
        nodes["sum_01"] = nir.Scale(scale=np.full(2, 0.5, dtype=np.float32))
    elif damage == "kind":
        nodes["sum_01"] = nir.Threshold(threshold=np.zeros(2, dtype=np.float32))
    elif damage == "edge":
        edges.append(("tap_02", "sum_01"))
    else:
        nodes["tap_7"] = nodes.pop("tap_02")
        edges = [tuple("tap_7" if end == "tap_02" else end for end in edge) for edge in edges]
    nir.write(tmp_path / "b.nir", nir.NIRGraph(nodes=nodes, edges=edges))
    with pytest.raises(SpeakError, match=r"b\.nir"):
        read_folded(tmp_path / "b.nir")


def test_a_graph_of_features(tmp_path: Path, alphabet: Alphabet) -> None:
    run = run_folder(tmp_path / "run", "linear", alphabet)
    assert main(["--run", str(run), "--no-trace", "--quiet"]) == 0
    with pytest.raises(SpeakError, match="begins at features, not at characters"):
        read_folded(run / "boundary.nir")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "text needs the alphabet that speak-export --fold writes beside the graph"),
        ("{}", "is not an alphabet"),
        ("[1", "not valid JSON"),
        ('{"schema": 1, "code_points": "61 62"}', "has 3 characters, the graph takes 9"),
    ],
)
def test_a_bad_alphabet(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "a.alphabet.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(SpeakError, match=message):
        read_alphabet(path, 9)


def test_bad_taps() -> None:
    folded = small()
    with pytest.raises(ValueError, match="float64"):
        Folded(folded.taps.astype(np.float64), folded.neuron)
    with pytest.raises(ValueError, match="taps have 1 lanes; allowed: 2"):
        Folded(folded.taps[:, :1], folded.neuron)
    with pytest.raises(ValueError, match="taps hold NaN"):
        Folded(folded.taps * np.float32("nan"), folded.neuron)
