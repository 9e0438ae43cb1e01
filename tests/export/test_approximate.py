"""The approximate graph: one stock neuron, labelled with how wrong it is, and read by others as it is written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
import trace_fixtures as fixtures
from folded_fixtures import run_folder, scripts

from speak_neuro.errors import SpeakError
from speak_neuro.export.cli import main
from speak_neuro.export.files.neuron_file import ExportedNeuron, read_graph, write_graph
from speak_neuro.export.files.trace_file import read_trace
from speak_neuro.export.graphs.approximate import approximate, disagreement
from speak_neuro.export.graphs.network import network_of
from speak_neuro.export.graphs.network_run import run_network
from speak_neuro.neuron.reference import NeuronParameters, gated_lif_run
from speak_neuro.text.alphabet import Alphabet

NEURONS, STEPS, FEATURES = 4, 1500, 3


def exported_of(decay: float, gain: float = 1.0, reset: float = 0.0) -> ExportedNeuron:
    """Readout weights on a grid, so that ties with the threshold happen."""
    random = np.random.default_rng(1)

    def lanes(value: float) -> np.ndarray:
        return np.full(NEURONS, value, dtype=np.float32)

    return ExportedNeuron(
        weight=(random.integers(-8, 12, (2 * NEURONS, FEATURES)) / 16).astype(np.float32),
        bias=(random.integers(0, 4, 2 * NEURONS) / 16).astype(np.float32),
        decay=lanes(decay),
        gain=lanes(gain),
        threshold=lanes(1),
        reset_potential=lanes(reset),
        reset_scale=lanes(0.8),
        gate_threshold=lanes(0),
    )


def features() -> np.ndarray:
    return (np.random.default_rng(2).integers(-4, 5, (STEPS, FEATURES)) / 4).astype(np.float32)


def euler(exported: ExportedNeuron) -> np.ndarray:
    """Decay, add, compare with >=, reset to v_reset whatever the gate says; from 0, as stock neurons start."""
    currents = features() @ exported.weight[:NEURONS].T + exported.bias[:NEURONS]
    parameters = NeuronParameters(
        exported.decay, exported.gain, exported.threshold, exported.reset_potential, mode="hard"
    )
    gate = np.ones_like(currents)
    return gated_lif_run(currents[None], gate[None], parameters, state=np.zeros((1, NEURONS), np.float32)).spikes[0]


@pytest.mark.parametrize("decay", [1.0, 0.875, 0.5])
@pytest.mark.parametrize("reset", [0.0, -0.25])
def test_it_is_the_hard_reset_neuron(decay: float, reset: float) -> None:
    exported = exported_of(decay, gain=0.75, reset=reset)
    found = run_network(network_of(approximate(exported)), features()[None]).output[0].astype(bool)
    assert np.array_equal(found, euler(exported))
    assert found.sum() > 80
    step = 1.0 if decay == 1 else 1e-4
    unit = run_network(network_of(approximate(exported, unit_resistance=True), step), features()[None]).output[0]
    assert np.array_equal(unit.astype(bool), euler(exported))


def test_decays_that_do_not_mix() -> None:
    exported = exported_of(1.0)
    exported.decay[0] = 0.5
    with pytest.raises(SpeakError, match="some neurons have decay 1 and some less"):
        approximate(exported)


@pytest.mark.skipif(importlib.util.find_spec("snntorch") is None, reason="snntorch is not installed")
@pytest.mark.filterwarnings("ignore")
def test_snntorch_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from snntorch.import_nir import import_from_nir

    exported = exported_of(0.875)
    write_graph(tmp_path / "a.nir", approximate(exported))
    network = import_from_nir(nir.read(tmp_path / "a.nir"))
    state: dict[str, object] = {}
    found = []
    for row in torch.from_numpy(features()):
        spikes, state = network(row[None], state)
        found.append(spikes[0].detach().numpy())
    capsys.readouterr()  # it prints
    assert np.array_equal(np.array(found).astype(bool), euler(exported))


@pytest.mark.skipif(
    importlib.util.find_spec("norse") is None, reason="norse is not installed (pip install --no-deps norse==1.1.0)"
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decay", [0.875, 1.0])
def test_norse_reads_the_one_with_unit_resistance(decay: float, tmp_path: Path) -> None:
    from norse.torch.utils.import_nir import from_nir

    exported = exported_of(decay)
    write_graph(tmp_path / "a.nir", approximate(exported, unit_resistance=True))
    network = from_nir(nir.read(tmp_path / "a.nir"), dt=1e-4)
    state, found = None, []
    for row in torch.from_numpy(features()):
        spikes, state = network(row[None], state)
        found.append(spikes[0].detach().numpy())
    assert np.array_equal(np.array(found).astype(bool), euler(exported))


@pytest.mark.skipif(
    importlib.util.find_spec("sc_neurocore") is None,
    reason="sc-neurocore is not installed (pip install --no-deps sc-neurocore==3.16.0)",
)
@pytest.mark.parametrize("decay", [0.875, 1.0])
def test_sc_neurocore_reads_it(decay: float, tmp_path: Path) -> None:
    from sc_neurocore.nir_bridge import from_nir

    exported = exported_of(decay, reset=-0.25)
    write_graph(tmp_path / "a.nir", approximate(exported))
    network = from_nir(str(tmp_path / "a.nir"), dt=1e-4)
    found = np.array([network.step({"input": row})["output"] for row in features()]) > 0
    assert np.array_equal(found, euler(exported))


def test_the_disagreement_is_counted() -> None:
    exported, trace = fixtures.make_trace(["some text of which every spike", "", "counts"] * 20, mode="gated")
    found = disagreement(exported, trace)
    hard = gated_lif_run(
        trace.current, np.ones_like(trace.current), NeuronParameters(1.0, 1.0, 1.0, 0.0, mode="hard"), valid=trace.valid
    ).spikes
    assert found.differing == int((hard != trace.spikes.astype(bool)).sum()) > 20
    assert found.positions == int(trace.length.sum())
    assert 0.3 < found.f1 < 1
    same, trace = fixtures.make_trace(mode="hard", decay=0.5)
    assert disagreement(same, trace).differing == 0
    assert disagreement(same, trace).f1 == 1


def test_the_command_labels_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = scripts()["en"]
    run = run_folder(tmp_path / "run", "linear", Alphabet.learn(text), decay=0.875)
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    flags = ["--run", str(run), "--text", str(tmp_path / "t.txt"), "--quiet"]
    assert main([*flags, "--approximate", "lif", "--json", str(tmp_path / "made.json")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("APPROXIMATION: ")
    metadata = read_graph(run / "approximate.nir").metadata
    assert "positions differ from the trained neuron" in metadata["disagreement"]
    assert metadata["disagreement"].endswith("on t.txt")
    assert "not the trained neuron" in metadata["approximation"]
    metrics = json.loads((tmp_path / "made.json").read_text(encoding="utf-8"))["metrics"]
    assert main(flags) == 0
    assert metrics["positions"] == int(read_trace(run / "trace.npz").length.sum())
    assert metrics["differing"] > 0
    assert main([*flags, "--fold", "--approximate", "lif-unit-r"]) == 0
    assert {p.name for p in run.glob("folded*")} == {"folded-approximate.nir", "folded-approximate.alphabet.json"}
    taps = run_folder(tmp_path / "taps", "convolution", Alphabet.learn(text), 2)
    assert main(["--run", str(taps), "--fold", "--approximate", "lif", "--quiet"]) == 2
