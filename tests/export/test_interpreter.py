"""Graphs run in numpy: the native node is the reference, stock nodes do what their equations say."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import ExportedNeuron, neuron_graph
from speak_neuro.export.graphs.network import feedback_edges, network_of
from speak_neuro.export.graphs.network_run import run_network
from speak_neuro.neuron.reference import gated_lif_run
from speak_neuro.testing import assert_spikes_equal


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def graph_of(nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]], width: int = 1, out: int = 1) -> nir.NIRGraph:
    ends = {
        "input": nir.Input(input_type={"input": np.array([width])}),
        "output": nir.Output(output_type={"output": np.array([out])}),
    }
    return nir.NIRGraph(nodes={**ends, **nodes}, edges=edges)


def run(graph: nir.NIRGraph, *values: float) -> list[float]:
    inputs = np.array(values, dtype=np.float32).reshape(1, -1, 1)
    return run_network(network_of(graph), inputs).output[0, :, 0].tolist()


def test_the_native_graph_is_the_reference() -> None:
    random = np.random.default_rng(0)
    neurons = 5

    def lanes(low: float, high: float) -> np.ndarray:
        return random.uniform(low, high, neurons).astype(np.float32)

    exported = ExportedNeuron(
        weight=np.eye(2 * neurons, dtype=np.float32),
        bias=np.zeros(2 * neurons, dtype=np.float32),
        decay=lanes(0, 1),
        gain=lanes(-1, 2),
        threshold=lanes(0.3, 1),
        reset_potential=lanes(-1, 0.2),
        reset_scale=lanes(0, 1),
        gate_threshold=lanes(-0.2, 0.2),
    )
    inputs = random.normal(0.3, 1, (3, 200, 2 * neurons)).astype(np.float32)
    found = run_network(network_of(neuron_graph(exported)), inputs).output.astype(bool)
    gate = np.where(inputs[..., neurons:] > exported.gate_threshold, 1, -1).astype(np.float32)
    expected = gated_lif_run(inputs[..., :neurons], gate, exported.parameters())
    assert_spikes_equal(found, expected.spikes)
    assert expected.spikes.sum() > 500


def test_thresholds_are_strict() -> None:
    graph = graph_of({"t": nir.Threshold(threshold=array(1.0))}, [("input", "t"), ("t", "output")])
    assert run(graph, 1.0, np.nextafter(np.float32(1), np.float32(2)), 0.5) == [0, 1, 0]


def test_fan_in_is_a_sum_and_same_step() -> None:
    nodes = {"a": nir.Scale(scale=array(2.0)), "b": nir.Affine(weight=array(3.0)[None], bias=array(10.0))}
    graph = graph_of(nodes, [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output"), ("a", "b")])
    assert run(graph, 1.0, 2.0) == [2 + (1 + 2) * 3 + 10, 4 + (2 + 4) * 3 + 10]


def test_an_edge_back_is_one_step_late() -> None:
    nodes = {"sum": nir.Scale(scale=array(1.0)), "leak": nir.Scale(scale=array(0.5))}
    graph = graph_of(nodes, [("input", "sum"), ("sum", "leak"), ("leak", "sum"), ("sum", "output")])
    assert feedback_edges(graph, "input") == {("leak", "sum")}
    assert run(graph, 1.0, 1.0, 0.0) == [1, 1.5, 0.75]
    loop = graph_of({"s": nir.Scale(scale=array(-1.0))}, [("input", "s"), ("s", "s"), ("s", "output")])
    assert run(loop, 1.0, 1.0) == [-1, 0]


def test_delays_count_steps() -> None:
    graph = graph_of({"d": nir.Delay(delay=array(2.0, 0.0, 1.0))}, [("input", "d"), ("d", "output")], width=3, out=3)
    inputs = np.arange(1, 13, dtype=np.float32).reshape(2, 2, 3)
    found = run_network(network_of(graph), inputs).output
    assert found.tolist() == [[[0, 2, 0], [0, 5, 3]], [[0, 8, 0], [0, 11, 9]]]
    bad = graph_of({"d": nir.Delay(delay=array(0.5))}, [("input", "d"), ("d", "output")])
    with pytest.raises(SpeakError, match="whole steps"):
        network_of(bad)


def test_stock_neurons_by_forward_euler() -> None:
    lif = nir.LIF(tau=array(2e-4), r=array(2.0), v_leak=array(0.0), v_threshold=array(1.0), v_reset=array(-0.5))
    graph = graph_of({"n": lif}, [("input", "n"), ("n", "output")])
    assert run(graph, 1.0, 0.5, 2.0, 2.5, 3.0) == [0, 0, 1, 1, 1]  # v 1, 1 (not above), 2.5, -.25 + 2.5, 2.75
    integrator = nir.IF(r=array(1e4), v_threshold=array(1.0), v_reset=array(0.0))
    graph = graph_of({"n": integrator}, [("input", "n"), ("n", "output")])
    assert run(graph, 0.5, 0.5, 0.25, 1.0) == [0, 0, 1, 0]
