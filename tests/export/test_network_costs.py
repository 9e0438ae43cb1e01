"""Costs of networks, counted by hand, and the picture of a graph."""

from __future__ import annotations

from pathlib import Path

import networks
import nir
import numpy as np
import pytest

from speak_neuro.export import to_nir
from speak_neuro.export.graphs.costs import LOIHI
from speak_neuro.export.graphs.network import DT, network_of
from speak_neuro.export.graphs.network_costs import network_costs
from speak_neuro.export.graphs.network_picture import save_picture


def test_a_small_network_by_hand() -> None:
    weight = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]], dtype=np.float32)
    nodes = {
        "input": nir.Input(input_type={"input": np.array([3])}),
        "w": nir.Affine(weight=weight, bias=np.zeros(2, np.float32)),
        "a": nir.IF(r=np.ones(2) / DT, v_threshold=np.full(2, 0.5), v_reset=np.zeros(2)),
        "s": nir.Scale(scale=np.array([2.0, 0.0])),
        "output": nir.Output(output_type={"output": np.array([2])}),
    }
    graph = nir.NIRGraph(nodes=nodes, edges=[("input", "w"), ("w", "a"), ("a", "s"), ("s", "output")], type_check=False)
    x = np.array([[[1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 0]]], dtype=np.float32)
    costs = network_costs(network_of(graph), x)
    w, a, s = costs.layers
    assert w.dense_synops == 6
    assert w.effective_acs == (1 + 3) / 4  # the first input leads to one weight, the third to two
    assert w.effective_macs == 0
    assert a.spikes == 3 / 4
    assert a.neurons == 2
    assert s.effective_acs == 2 / 4  # of three spikes two come from the neuron whose scale is not zero
    assert costs.activation_sparsity == 1 - 3 / 8
    assert w.footprint_bytes == 4 * 8
    expected = LOIHI["synaptic"].picojoules * 1.5 + LOIHI["active"].picojoules * 2 + LOIHI["spike"].picojoules * 0.75
    assert costs.total.picojoules == pytest.approx(expected)
    assert network_costs(network_of(graph), x * 0.7).layers[0].effective_macs == 1


def test_a_convolution_counts_what_its_taps_read() -> None:
    kernel = np.ones((2, 1, 3, 3), dtype=np.float32)
    kernel[1, 0, 0] = 0
    node = nir.Conv2d((4, 4), kernel, 1, 1, 1, 1, np.zeros(2, np.float32))
    nodes = {
        "input": nir.Input({"input": np.array([1, 4, 4])}),
        "c": node,
        "output": nir.Output({"output": np.array([2, 4, 4])}),
    }
    graph = nir.NIRGraph(nodes=nodes, edges=[("input", "c"), ("c", "output")], type_check=False)
    x = np.zeros((1, 2, 1, 4, 4), dtype=np.float32)
    x[0, 0, 0, 1, 1] = 1  # in the middle: read by all nine taps of one channel and six of the other
    x[0, 1, 0, 0, 0] = 1  # in the corner: by four, and by two of the other's
    costs = network_costs(network_of(graph), x)
    assert costs.layers[0].effective_acs == (15 + 6) / 2
    assert costs.layers[0].dense_synops == 16 * 18


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    module, sample = networks.case("recurrent")
    save_picture(tmp_path / "net.svg", network_of(to_nir(module, sample)))
    assert (tmp_path / "net.svg").stat().st_size > 5000
