"""Networks in Lava, layer by layer: against torch, against Lava's own processes, in float and in integers."""

# Tables of cases read better a case a line.
# ruff: noqa: E501

from __future__ import annotations

import importlib.util
from typing import Any

import networks
import nir
import numpy as np
import pytest

from speak_neuro.errors import SpeakError
from speak_neuro.export import reference_of, to_nir
from speak_neuro.export.graphs.network import DT, network_of
from speak_neuro.export.graphs.network_run import LayerRun, run_flat, run_network
from speak_neuro.sim import simulate, verify
from speak_neuro.sim.networks.fix import fix_inputs, fix_network
from speak_neuro.sim.networks.plan import plan_of

needs_lava = [
    pytest.mark.lava,
    pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason="needs lava-nc, which needs Python 3.10"),
]
lava = lambda function: needs_lava[0](needs_lava[1](function))  # noqa: E731


def lif(n: int, tau: float = 8 * DT) -> nir.LIF:
    ones = np.ones(n)
    return nir.LIF(tau=ones * tau, r=ones * tau / DT, v_leak=ones * 0, v_threshold=ones, v_reset=ones * 0)


def graph_of(nodes: dict[str, Any], *edges: str, shape: Any = (2,), out: Any = (2,)) -> nir.NIRGraph:
    named = {
        "input": nir.Input(input_type={"input": np.array(shape)}),
        **nodes,
        "output": nir.Output(output_type={"output": np.array(out)}),
    }
    pairs = [tuple(edge.split(">")) for edge in edges]
    return nir.NIRGraph(nodes=named, edges=pairs, type_check=False)


def eye(factor: float = 1.0) -> nir.Linear:
    return nir.Linear(weight=np.eye(2, dtype=np.float32) * factor)


@lava
@pytest.mark.parametrize("name", ["keywords", "convolutional", "recurrent"])
def test_modules_are_equal_in_lava_layer_by_layer(name) -> None:
    module, sample = networks.case(name)
    graph = to_nir(module, sample)
    reference = None if name == "recurrent" else reference_of(module, sample)  # snnTorch adds in another order there
    found = verify(graph, sample.numpy(), reference, levels=("neuron", "network", "fixed"))
    assert found.passed
    for row in found.report["levels"]["neuron"]["layers"]:
        assert row["spikes"] > 4, row
        assert row["spike_mismatches"] == row["membrane_mismatches"] == 0
    for row in found.report["levels"]["network"]["layers"]:
        assert row["unexplained"] == 0
        assert row["largest_difference"] <= row["bound"]
    for row in found.report["levels"]["fixed"]["layers"]:
        assert row["spike_mismatches"] == row["membrane_mismatches"] == 0
        assert row["float_agreement"] > 0.9
    assert len(found.report["layers"]) == len(found.report["levels"]["neuron"]["layers"])


@lava
def test_other_latencies_delays_and_loops_give_the_reference() -> None:
    """Paths of different length, a Delay, a neuron that feeds itself directly, a loop through two layers with a Delay."""
    nodes = {
        "w1": eye(1.5), "a": lif(2), "w2": eye(1.2), "b": lif(2), "skip": eye(0.7),
        "self": lif(2), "wait": nir.Delay(np.array([2.0, 3.0])), "back": eye(-0.5), "w3": eye(0.9), "d1": nir.Delay(np.ones(2)),
    }  # fmt: skip
    graph = graph_of(
        nodes,
        "input>w1", "w1>a", "a>w2", "w2>b", "input>skip", "skip>b", "b>w3", "w3>self", "self>self", "self>wait",
        "wait>output", "b>back", "back>d1", "d1>a",
    )  # fmt: skip
    x = np.random.default_rng(3).normal(0.4, 1, (5, 40, 2)).astype(np.float32)
    network = network_of(graph)
    plan = plan_of(network)
    assert any(feed.wait for feeds in plan.feeds.values() for feed in feeds)
    found = verify(graph, x)
    assert found.passed
    assert all(row["spike_mismatches"] == 0 for row in found.report["levels"]["network"]["layers"])
    assert all(row["spikes"] > 20 for row in found.report["levels"]["network"]["layers"])
    assert np.array_equal(simulate(graph, x).output, run_network(network, x).output)


@lava
def test_a_wrong_reference_is_named() -> None:
    module, sample = networks.case("keywords")
    graph, reference = to_nir(module, sample), reference_of(module, sample)
    run = reference["lif2"]
    spikes = run.spikes.copy()
    place = tuple(np.argwhere(spikes)[7])
    spikes[place] = False
    wrong = {**reference, "lif2": LayerRun(run.input, spikes, run.membrane)}
    found = verify(graph, sample.numpy(), wrong)
    assert not found.passed
    row = found.report["levels"]["neuron"]["layers"][1]
    assert row["spike_mismatches"] == 1
    assert (row["first"]["sequence"], row["first"]["step"], row["first"]["neuron"]) == place
    assert "the reference does not follow the LIF's equation" in row["first"]["cause"]
    network = found.report["levels"]["network"]["layers"][1]
    assert network["unexplained"] == 1
    assert "unexplained" in network["first"]["cause"]


@lava
def test_differences_by_rounding_are_explained_and_their_consequences_counted() -> None:
    """A reference whose sums are a last bit off at a tie spikes elsewhere; Lava's spikes follow the graph's own sums."""
    graph = graph_of({"w": nir.Affine(weight=np.eye(2, dtype=np.float32), bias=np.zeros(2, np.float32)), "a": lif(2), "v": eye(1.5), "b": lif(2)},
                     "input>w", "w>a", "a>v", "v>b", "b>output")  # fmt: skip
    x = np.zeros((1, 10, 2), dtype=np.float32)
    x[0, 0] = [1.0, 3.0]  # u is the threshold: no spike
    own = run_network(network_of(graph), x).layers
    above = x.copy()
    above[0, 0, 0] = np.nextafter(np.float32(1), np.float32(2))
    other = run_network(network_of(graph), above).layers
    assert other["a"].spikes[0, 0, 0] != own["a"].spikes[0, 0, 0]
    found = verify(graph, x, other, levels=("network",))
    first, second = found.report["levels"]["network"]["layers"]
    assert found.passed
    assert first["first_differences"] == 1
    assert first["first"]["cause"].startswith("rounding: ")
    assert second["spike_mismatches"] >= 1
    assert second["first"]["cause"].startswith("follows from")


@lava
def test_lavas_own_processes_agree(tmp_path) -> None:
    """Dense -> LIF of Lava's own, in a fresh interpreter, on dyadic numbers that its float64 does not round either."""
    import subprocess
    import sys

    rng = np.random.default_rng(0)
    weight = rng.integers(-4, 5, (3, 4)) / 8
    x = rng.integers(0, 2, (20, 4)).astype(float)
    code = f"""
import numpy as np
from lava.proc.dense.process import Dense
from lava.proc.lif.process import LIF
from lava.proc.io.source import RingBuffer
from lava.proc.io.sink import RingBuffer as Sink
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
if __name__ == "__main__":
    x, w = np.array({x.T.tolist()}), np.array({weight.tolist()})
    source, dense = RingBuffer(data=x), Dense(weights=w)
    lif, sink = LIF(shape=(3,), du=1.0, dv=0.125, vth=1.0), Sink(shape=(3,), buffer=24)
    source.s_out.connect(dense.s_in); dense.a_out.connect(lif.a_in); lif.s_out.connect(sink.a_in)
    sink.run(condition=RunSteps(24), run_cfg=Loihi2SimCfg(select_tag="floating_pt"))
    np.save({str(tmp_path / "out.npy")!r}, sink.data.get()); sink.stop()
"""
    (tmp_path / "own.py").write_text(code)
    subprocess.run([sys.executable, str(tmp_path / "own.py")], check=True, timeout=60, capture_output=True)
    theirs = np.load(tmp_path / "out.npy")
    graph = graph_of(
        {"w": nir.Linear(weight=weight.astype(np.float32)), "a": lif(3)},
        "input>w",
        "w>a",
        "a>output",
        shape=(4,),
        out=(3,),
    )
    ours = simulate(graph, x[None]).output[0]
    start = next(k for k in range(4) if np.array_equal(theirs[:, k : k + 20], ours.T))
    assert start == 1  # the Dense's step
    assert ours.sum() > 5


def test_convolution_against_scipy() -> None:
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(1)
    kernel, x = rng.normal(size=(1, 1, 3, 3)).astype(np.float32), rng.normal(size=(1, 1, 1, 6, 6)).astype(np.float32)
    node = nir.Conv2d((6, 6), kernel, 1, 0, 1, 1, np.zeros(1, np.float32))
    found = run_network(
        network_of(graph_of({"c": node}, "input>c", "c>output", shape=(1, 6, 6), out=(1, 4, 4))), x
    ).output
    np.testing.assert_allclose(found[0, 0, 0], signal.correlate2d(x[0, 0, 0], kernel[0, 0], "valid"), atol=1e-5)


def test_a_cycle_too_fast_for_synapses_is_named() -> None:
    nodes = {"w": eye(), "a": lif(2), "x": eye(), "b": lif(2), "y": eye()}
    edges = ("input>w", "w>a", "a>x", "x>b", "b>y", "y>a", "b>output")
    with pytest.raises(
        SpeakError, match=r"the cycle a -> x -> b -> y -> a has 1 step\(s\) of delay and its synapses take 2"
    ):
        plan_of(network_of(graph_of(nodes, *edges)))
    nodes["d"] = nir.Delay(np.ones(2))
    plan_of(network_of(graph_of(nodes, *edges[:-2], "y>d", "d>a", "b>output")))


def test_integers_hold_what_they_say() -> None:
    module, sample = networks.case("convolutional")
    network = network_of(to_nir(module, sample))
    flat = sample.numpy().reshape(*sample.shape[:2], -1)
    own = run_flat(network, flat)
    fixed = fix_network(network, flat, own)
    integers = fix_inputs(fixed, flat)
    assert np.abs(integers).max() <= 2**15 - 1
    run = run_flat(fixed.network, integers, integer=True)
    for name, layer in fixed.network.layers.items():
        weight = getattr(layer, "weight", None)
        if weight is not None:
            assert weight.dtype.kind == "i"
            assert np.abs(weight).max() <= 2**15 - 1, name
    for name, values in run.layers.items():
        unit = fixed.formats[name]["unit"]
        close = own.layers[name].spikes == run.layers[name].spikes
        assert close.mean() > 0.9
        first = np.abs(values.membrane[:, 0] * unit - own.layers[name].membrane[:, 0]).max()
        assert first < 2e-3, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {}, "the reference lacks layer lif1"),
        (lambda r: {**r, "lif2": LayerRun(r["lif2"].input[:, :5], r["lif2"].spikes, r["lif2"].membrane)}, "the reference's input of lif2 has shape"),
        (lambda r: {**r, "lif2": LayerRun(r["lif2"].input, r["lif2"].spikes, r["lif2"].membrane * np.nan)}, "membrane of lif2 holds NaN"),
    ],
)  # fmt: skip
def test_bad_references(change, message) -> None:
    module, sample = networks.case("keywords")
    graph, reference = to_nir(module, sample), reference_of(module, sample)
    with pytest.raises(SpeakError, match=message):
        verify(graph, sample.numpy(), change(reference))
    with pytest.raises(SpeakError, match="level 'nerve'; allowed"):
        verify(graph, sample.numpy(), levels=("nerve",))  # type: ignore[arg-type]
