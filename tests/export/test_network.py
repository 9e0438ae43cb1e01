"""NIR graphs as networks of layers: semantics against other interpreters and torch, and what is refused."""

# Tables of cases read better a case a line.
# ruff: noqa: E501

from __future__ import annotations

import itertools
from typing import Any

import nir
import numpy as np
import pytest
import torch

from speak_neuro.errors import SpeakError
from speak_neuro.export.files.nir_node import GatedResetLIF
from speak_neuro.export.graphs.layers import Neurons, from_arrays, to_arrays
from speak_neuro.export.graphs.lower import lower
from speak_neuro.export.graphs.network import DT, network_of
from speak_neuro.export.graphs.network_run import run_network
from speak_neuro.neuron.reference import NeuronParameters, gated_lif_run

RNG = np.random.default_rng(0)


def lif(shape: Any, beta: float = 0.875, **changes: Any) -> nir.LIF:
    shape = (shape,) if isinstance(shape, int) else shape
    tau = np.full(shape, DT / (1 - beta))
    fields = {
        "tau": tau,
        "r": tau / DT,
        "v_leak": np.zeros(shape),
        "v_threshold": np.ones(shape),
        "v_reset": np.zeros(shape),
    }
    return nir.LIF(**{**fields, **changes})


def gated(n: int, **changes: Any) -> GatedResetLIF:
    fields = {
        "decay": 0.9,
        "gain": 1.0,
        "v_threshold": 1.0,
        "v_reset": -0.25,
        "reset_scale": 0.8,
        "gate_threshold": 0.0,
    }
    arrays = {name: np.full(n, value, dtype=np.float32) for name, value in fields.items()}
    return GatedResetLIF(**{**arrays, **changes})


def affine(out: int, into: int, seed: int = 0) -> nir.Affine:
    rng = np.random.default_rng(seed)
    return nir.Affine(
        weight=rng.normal(size=(out, into)).astype(np.float32), bias=rng.normal(size=out).astype(np.float32)
    )


def chain(shape: Any, out: Any, *nodes: Any, extra: Any = ()) -> nir.NIRGraph:
    shape, out = (tuple(np.atleast_1d(s)) for s in (shape, out))
    named = {"input": nir.Input(input_type={"input": np.array(shape)})}
    named |= {f"n{i}": node for i, node in enumerate(nodes)}
    named["output"] = nir.Output(output_type={"output": np.array(out)})
    names = list(named)
    edges = list(itertools.pairwise(names)) + list(extra)
    return nir.NIRGraph(nodes=named, edges=edges, type_check=False)


def test_gated_neurons_are_the_reference() -> None:
    for gate, mode in ((0, "gated"), (1, "hard"), (-1, "soft")):
        node = gated(5, gate=gate)
        x = RNG.normal(0.4, 0.8, (3, 40, node.input_type["input"][0])).astype(np.float32)
        run = run_network(network_of(chain(x.shape[2], 5, node)), x).layers["n0"]
        current, logit = x[..., :5], x[..., 5:] if gate == 0 else np.zeros_like(x[..., :5])
        expected = gated_lif_run(
            current, logit, NeuronParameters(decay=np.float32(0.9), reset_potential=-0.25, mode=mode)
        )
        assert np.array_equal(run.spikes, expected.spikes)
        assert np.array_equal(run.membrane, expected.membrane)


@pytest.mark.parametrize("dt", [DT, 1e-3])
def test_stock_neurons_are_their_equations(dt: float) -> None:
    """Forward Euler as NIR's equations read, in float64; on dyadic numbers neither form rounds: every spike agrees."""
    n = 4
    ones = np.ones(n)
    leaky = lif(n, 0.75, tau=np.full(n, 4 * dt), r=np.full(n, 4.0), v_leak=np.full(n, 0.25), v_reset=np.full(n, -0.5))
    plain = nir.IF(r=ones / dt, v_threshold=ones, v_reset=ones * 0.25)
    steps: list[tuple[Any, Any]] = [
        (leaky, lambda v, x: v + dt / leaky.tau * ((leaky.v_leak - v) + leaky.r * x)),
        (plain, lambda v, x: v + dt * plain.r * x),
    ]
    x = RNG.integers(-4, 9, (3, 30, n)).astype(np.float32) / 8
    for node, step in steps:
        v, expected = np.broadcast_to(getattr(node, "v_leak", 0.0), (3, n)), []
        for t in range(30):
            u = step(v, x[:, t].astype(np.float64))
            expected.append(u > node.v_threshold)
            v = np.where(expected[-1], node.v_reset, u)
        found = run_network(network_of(chain(n, n, node), dt), x).output
        assert np.array_equal(found, np.stack(expected, axis=1)), type(node).__name__
        assert np.unique(found).size > 1


def test_a_synaptic_current_by_hand() -> None:
    n = 2
    tau = np.full(n, 2 * DT)
    node = nir.CubaLIF(
        tau_syn=tau, tau_mem=2 * tau, r=np.full(n, 4.0), v_leak=np.zeros(n), v_threshold=np.ones(n), v_reset=np.zeros(n),
        w_in=np.full(n, 2.0),
    )  # fmt: skip
    x = RNG.integers(-2, 5, (1, 25, n)) / 8
    run = run_network(network_of(chain(n, n, node)), x).layers["n0"]
    i = v = np.zeros(n)
    for t in range(25):
        i = i + 0.5 * (-i + 2.0 * x[0, t])
        u = v + 0.25 * (-v + 4.0 * i)
        np.testing.assert_allclose(run.membrane[0, t], u, rtol=1e-6)
        v = np.where(u > 1, 0.0, u)
    assert 0 < run.spikes.sum() < 50


def test_u_at_the_threshold_is_no_spike_in_stock_nodes() -> None:
    node = nir.IF(r=np.ones(1) / DT, v_threshold=np.ones(1), v_reset=np.zeros(1))
    x = np.array([[[0.5], [0.5], [0.0], [2.0**-20]]])
    assert run_network(network_of(chain(1, 1, node)), x).output.reshape(-1).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("shape", "weight", "options"),
    [
        ((3, 8, 7), (4, 3, 3, 3), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 1}),
        ((4, 6, 6), (6, 2, 2, 2), {"stride": (1, 1), "padding": (0, 1), "dilation": (1, 1), "groups": 2}),
        ((2, 5, 5), (3, 2, 3, 3), {"stride": (1, 1), "padding": "same", "dilation": (1, 1), "groups": 1}),
        ((2, 9), (3, 2, 4), {"stride": 2, "padding": 1, "dilation": 2, "groups": 1}),
    ],
)
def test_convolutions_are_torchs(shape, weight, options) -> None:
    kernel = RNG.normal(size=weight).astype(np.float32)
    bias = RNG.normal(size=weight[0]).astype(np.float32)
    kind = nir.Conv2d if len(shape) == 3 else nir.Conv1d
    node = kind(input_shape=shape[1:] if len(shape) == 3 else shape[1], weight=kernel, bias=bias, **options)
    x = RNG.normal(size=(2, 3, *shape)).astype(np.float32)
    run = getattr(torch.nn.functional, f"conv{len(shape) - 1}d")
    expected = run(torch.from_numpy(x.reshape(6, *shape)), torch.from_numpy(kernel), torch.from_numpy(bias), **options)
    found = run_network(network_of(chain(shape, expected.shape[1:], node)), x).output
    assert found.shape == (2, 3, *expected.shape[1:])
    np.testing.assert_allclose(found.reshape(expected.shape), expected.numpy(), atol=1e-5)


def test_pools_and_flatten_are_torchs() -> None:
    x = RNG.normal(size=(1, 2, 3, 7, 6)).astype(np.float32)
    size, stride, padding = np.array([2, 3]), np.array([2, 1]), np.array([1, 0])
    torch_pool = torch.nn.AvgPool2d((2, 3), (2, 1), (1, 0))(torch.from_numpy(x[0]))
    for node, factor in ((nir.AvgPool2d(size, stride, padding), 1), (nir.SumPool2d(size, stride, padding), 6)):
        found = run_network(network_of(chain((3, 7, 6), torch_pool.shape[1:], node)), x).output[0]
        np.testing.assert_allclose(found, torch_pool.numpy() * factor, atol=1e-5)
    flat = nir.Flatten(input_type={"input": np.array([3, 7, 6])}, start_dim=1, end_dim=2)
    assert run_network(network_of(chain((3, 7, 6), (3, 42), flat)), x).output.shape == (1, 2, 3, 42)


def test_feedback_carries_the_step_before() -> None:
    graph = chain(1, 1, nir.IF(r=np.ones(1) / DT, v_threshold=np.array([0.5]), v_reset=np.zeros(1)))
    graph.nodes["back"] = nir.Linear(weight=np.array([[1.0]], dtype=np.float32))
    graph.edges += [("n0", "back"), ("back", "n0")]
    x = np.zeros((1, 6, 1))
    x[0, 1] = 1
    assert run_network(network_of(graph), x).output.reshape(-1).tolist() == [0, 1, 1, 1, 1, 1]


def test_a_lowered_neuron_is_a_network_too() -> None:
    """Its cycle has linear layers alone; 270 stock nodes give the gated neuron's spikes, bit for bit."""
    node = gated(3, v_reset=np.zeros(3, np.float32))
    x = RNG.normal(0.4, 0.8, (2, 60, 6)).astype(np.float32)
    native = chain(6, 3, node)
    native.nodes = {**native.nodes, "n0": node}
    lowered = lower(native, 5.0).graph
    expected = run_network(network_of(native), x).output
    assert expected.sum() > 20
    assert np.array_equal(run_network(network_of(lowered), x).output, expected)


def test_a_graph_within_the_graph_is_flattened() -> None:
    inner = chain(3, 3, affine(3, 3, 1), lif(3))
    flat = network_of(chain(4, 3, affine(3, 4, 0), *list(inner.nodes.values())[1:3]))
    nested = network_of(chain(4, 3, affine(3, 4, 0), inner))
    x = RNG.normal(0, 2, (2, 20, 4))
    assert np.array_equal(run_network(flat, x).output, run_network(nested, x).output)
    assert run_network(flat, x).output.any()
    assert "n1.n1" in nested.layers


def test_layers_survive_as_arrays() -> None:
    graph = chain((2, 4, 4), 6, nir.Conv2d((4, 4), RNG.normal(size=(3, 2, 3, 3)).astype("f4"), 1, 0, 1, 1, np.ones(3, "f4")),
                  lif((3, 2, 2)), nir.Flatten({"input": np.array([3, 2, 2])}, 0, -1), affine(12, 12), gated(6))  # fmt: skip
    network = network_of(graph)
    for name, layer in network.layers.items():
        again = from_arrays("x", to_arrays("x", layer))
        assert type(again) is type(layer), name
        for field, value in vars(layer).items():
            assert np.array_equal(getattr(again, field), value)
    assert isinstance(network.layers["n4"], Neurons)


def edge(graph: nir.NIRGraph, *edges: tuple[str, str]) -> nir.NIRGraph:
    graph.edges += list(edges)
    return graph


def with_node(graph: nir.NIRGraph, name: str, node: Any, *edges: tuple[str, str]) -> nir.NIRGraph:
    graph.nodes[name] = node
    return edge(graph, *edges)


def without(graph: nir.NIRGraph, gone: tuple[str, str]) -> nir.NIRGraph:
    graph.edges.remove(gone)
    return graph


class Unknown(nir.NIRNode):
    def __init__(self) -> None:
        self.input_type, self.output_type = {"input": np.array([3])}, {"output": np.array([3])}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: chain(3, 3, Unknown()), "node n0 is a Unknown; allowed: Input, Output, Linear"),
        (lambda: chain(3, 1, lif(1)), r"n0: v_threshold has shape \(1,\), its input \(3,\); nothing is broadcast|n0: tau has shape"),
        (lambda: chain(3, 3, affine(3, 4)), r"weights of shape \(3, 4\) cannot take \(3,\) values"),
        (lambda: chain(3, 3, gated(3)), r"takes \(6,\) values \(lanes"),
        (lambda: chain((3, 4), 3, affine(3, 4)), r"cannot take \(3, 4\) values"),
        (lambda: chain(3, 3, lif(3, tau=np.array([1, np.nan, 1]))), "n0: tau holds NaN or infinity"),
        (lambda: chain(3, 3, nir.Affine(np.full((3, 3), np.inf), np.zeros(3))), "n0: weight holds NaN or infinity"),
        (lambda: chain(3, 3, lif(3, tau=np.full(3, DT / 2))), "tau is 5e-05 s, the step 0.0001 s; allowed: at least a step"),
        (lambda: chain(3, 3, lif(3, v_reset=np.full(3, 1.5))), "v_threshold is not above v_reset"),
        (lambda: chain(3, 3, nir.Delay(np.array([0.5, 1, 2]))), "delays of 0.5 to 2; allowed: whole steps"),
        (lambda: with_node(chain(3, 3, lif(3)), "in2", nir.Input({"input": np.array([3])}), ("in2", "n0")), r"2 Input nodes \(in2, input\)"),
        (lambda: with_node(with_node(chain(3, 3, lif(3)), "a", lif(3)), "b", lif(3), ("a", "b"), ("b", "a")), "not reached from the input: two graphs"),
        (lambda: with_node(chain(3, 3, lif(3)), "a", lif(3), ("input", "a")), "node a leads nowhere"),
        (lambda: without(chain(3, 3, lif(3)), ("input", "n0")), "node input leads nowhere"),
        (lambda: edge(chain(3, 3, lif(3)), ("input", "n0")), "the edge input -> n0 is there twice"),
        (lambda: edge(chain(3, 3, lif(3)), ("n0", "lost")), "names a node lost that the graph lacks"),
        (lambda: with_node(chain(3, 3, lif(3)), "a", affine(1, 3), ("input", "a"), ("a", "n0")), r"its sources differ in shape \(a gives \(1,\), input gives \(3,\)\)"),
        (lambda: with_node(chain(3, 3, lif(3)), "a", affine(2, 3), ("n0", "a"), ("a", "n0")), r"n0 takes \(3,\) values, a gives \(2,\)"),
        (lambda: chain((2, 5, 5), 3, nir.Conv2d((5, 5), np.zeros((3, 4, 3, 3)), 1, 0, 1, 1, np.zeros(3))), r"cannot take \(2, 5, 5\) values"),
        (lambda: chain((2, 2, 2), 3, nir.AvgPool2d(np.array([3, 3]), np.array([1, 1]), np.array([0, 0]))), "does not fit a picture"),
        (lambda: nir.Scale(np.ones(3)), "found a Scale; allowed: a NIRGraph"),
    ],
)  # fmt: skip
def test_what_is_not_exactly_known_is_refused_in_one_line(make, message) -> None:
    with pytest.raises(SpeakError, match=message) as caught:
        network_of(make())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((2, 5, 4)), r"shape \(2, 5, 4\); allowed: \(batch, steps, 3\)"),
        (np.zeros((5, 3)), "allowed: "),
        (np.full((1, 5, 3), np.nan), "inputs hold NaN"),
        (np.zeros((0, 5, 3)), "at least one sequence"),
        (np.array([["a"]]), "allowed: numbers"),
    ],
)
def test_bad_inputs(inputs, message) -> None:
    with pytest.raises(SpeakError, match=message):
        run_network(network_of(chain(3, 3, lif(3))), inputs)
