"""On-chip costs: counted by hand, counted by NeuroBench, and never without a source."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from folded_fixtures import config_of, lively_system, run_folder, scripts
from scripts import load

from speak_neuro.export.files.folded_file import Folded, one_hot
from speak_neuro.export.fold import fold
from speak_neuro.export.graph import export_neuron
from speak_neuro.export.graphs.costs import LOIHI, folded_costs, readout_costs
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.text.alphabet import Alphabet

ROOT = Path(__file__).resolve().parents[2]


def tiny() -> Folded:
    """Two delays, three characters, one weight of zero in each table of currents; fires at every character 2."""
    taps = np.array([[[0, 0, 2], [-1, -1, 1]], [[0.5, 0.5, 0], [1, 1, 1]]], dtype=np.float32)
    constants = dict.fromkeys(("decay", "gain", "threshold"), np.ones(1, dtype=np.float32))
    for name in ("reset_potential", "reset_scale", "gate_threshold"):
        constants[name] = np.zeros(1, dtype=np.float32)
    return Folded.of(taps, constants, {})


def test_by_hand() -> None:
    # Characters 2, 0, 1: operations of delay 0 are 2, 1, 1 (zeros cost nothing), of delay 1 - , 1, 2.
    costs = folded_costs(tiny(), [[2, 0, 1], []])
    assert costs.characters == 3
    assert costs.dense_synops == 12
    assert costs.effective_acs == pytest.approx((2 + 1 + 1 + 1 + 2) / 3)
    assert costs.effective_macs == 0
    assert costs.neuron_updates == 1
    assert costs.input_sparsity == pytest.approx(2 / 3)
    assert costs.connection_sparsity == pytest.approx(3 / 12)
    assert costs.footprint_bytes == 4 * (12 + 6 + 1)
    assert costs.output_spikes == pytest.approx(1 / 3)
    assert costs.activation_sparsity == pytest.approx(2 / 3)
    assert costs.picojoules == pytest.approx((7 * 23.6 + 3 * 81 + (3 + 1) * 1.7) / 3)


def test_no_characters() -> None:
    costs = folded_costs(tiny(), [[]])
    assert (costs.characters, costs.effective_acs, costs.picojoules) == (0, 0, 0)


def test_every_figure_has_a_source() -> None:
    assert {name: figure.picojoules for name, figure in LOIHI.items()} == {
        "synaptic": 23.6,
        "active": 81.0,
        "idle": 52.0,
        "spike": 1.7,
    }
    for figure in LOIHI.values():
        assert "IEEE Micro 38(1), 2018" in figure.source
        assert "pre-silicon" in figure.source


@pytest.mark.skipif(
    importlib.util.find_spec("neurobench") is None,
    reason="neurobench is not installed (pip install --no-deps neurobench==2.3.0)",
)
@pytest.mark.filterwarnings("ignore")
def test_neurobench_counts_the_same() -> None:
    from neurobench.metrics.utils.layers import single_layer_MACs

    engine = BoundaryEngine(lively_system("linear", 30), config_of("linear"))
    folded = fold(engine)
    folded.taps[0, 1, ::3] = 0
    ids = np.random.default_rng(0).integers(0, 30, 200)
    layer = torch.nn.Linear(30, 2, bias=False)
    layer.weight.data = torch.from_numpy(folded.taps[0])
    inputs = torch.from_numpy(one_hot(ids, 30))
    operations, spiking = single_layer_MACs(inputs, layer)
    dense, _ = single_layer_MACs(inputs, layer, total=True)
    costs = folded_costs(folded, [ids])
    assert spiking
    assert costs.effective_acs == pytest.approx(float(operations) / 200)
    assert costs.dense_synops == pytest.approx(float(dense) / 200)

    trace = engine.run(ids)
    exported = export_neuron(engine.system)
    exported.weight[0, :5] = 0
    layer = torch.nn.Linear(16, 2, bias=False)
    layer.weight.data = torch.from_numpy(exported.weight)
    features = trace.features.copy()
    features[:, 3] = 0
    operations, spiking = single_layer_MACs(torch.from_numpy(features), layer)
    found = readout_costs(exported, features[None], trace.spikes[None], np.ones((1, 200), dtype=bool))
    assert not spiking
    assert found.effective_macs == pytest.approx(float(operations) / 200)
    assert found.effective_acs == 0


def test_padding_is_not_counted() -> None:
    engine = BoundaryEngine(lively_system("linear", 30), config_of("linear"))
    trace = engine.run(np.arange(20, dtype=np.int32))
    exported = export_neuron(engine.system)
    features, spikes = trace.features[None], trace.spikes[None]
    short = np.arange(20)[None] < 12
    alone = readout_costs(exported, features[:, :12], spikes[:, :12], np.ones((1, 12), dtype=bool))
    assert readout_costs(exported, features, spikes, short) == alone


def script(name: str) -> Callable[[list[str]], int]:
    return load(name).main  # type: ignore[no-any-return]


def test_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alphabet = Alphabet.learn(scripts()["en"])
    encoders = {"linear": 1, "convolution": 3, "hourglass": 1}
    runs = [str(run_folder(tmp_path / e, e, alphabet, k)) for e, k in encoders.items()]
    out = tmp_path / "costs.json"
    flags = ["--characters", "2000", "--vocabulary", "300", "--repeats", "2", "--json", str(out)]
    assert script("bench/chip_costs")(["--run", *runs, *flags]) == 0
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    linear, convolution, hourglass = metrics["tokenizers"]
    assert linear["effective_acs"] == pytest.approx(2)
    assert 5 < convolution["effective_acs"] <= 6
    assert hourglass["effective_macs"] > 20
    assert hourglass["host_parameters"] > linear["host_parameters"] == 0
    assert metrics["byte_pair"]["seconds_per_character"] > 0
    assert "assumed, not measured" in metrics["byte_pair"]["assumption"]
    assert all("source" in figure for figure in metrics["figures"].values())
    assert "estimates" in capsys.readouterr().out
    assert script("bench/chip_costs")(["--run", *runs, "--watts", "0"]) == 2
