"""The lowered neuron: stock NIR nodes give the reference's spikes and potentials bit for bit, here and elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from folded_fixtures import config_of, lively_system, run_folder, scripts
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_cases import CURRENT_KINDS, adversarial_currents

from speak_neuro.export.bounds import largest_current
from speak_neuro.export.cli import main
from speak_neuro.export.files.folded_file import one_hot, read_folded
from speak_neuro.export.files.neuron_file import ExportedNeuron, neuron_graph, neuron_node, read_graph, write_graph
from speak_neuro.export.graphs.lower import Lowered, NotLowerable, grid_exponent, largest_potential, lower
from speak_neuro.export.graphs.network import network_of
from speak_neuro.export.graphs.network_run import run_network
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.inference.speak import Speak
from speak_neuro.neuron.reference import Run, gated_lif_run
from speak_neuro.testing import assert_spikes_equal
from speak_neuro.text.alphabet import Alphabet

STOCK = {"Input", "Output", "Linear", "Affine", "Scale", "Threshold", "Delay"}


def neurons_of(count: int, **constants: Any) -> ExportedNeuron:
    """`count` neurons driven by their lanes as they come in."""
    values = {
        "decay": 1.0,
        "gain": 1.0,
        "threshold": 1.0,
        "reset_potential": 0.0,
        "reset_scale": 0.8,
        "gate_threshold": 0.0,
        **constants,
    }
    arrays = {k: np.broadcast_to(np.asarray(v, dtype=np.float32), (count,)).copy() for k, v in values.items()}
    return ExportedNeuron(
        weight=np.eye(2 * count, dtype=np.float32), bias=np.zeros(2 * count, dtype=np.float32), **arrays
    )


def expected_run(exported: ExportedNeuron, inputs: np.ndarray) -> Run:
    n = exported.neurons
    gate = np.where(inputs[..., n:] > exported.gate_threshold, 1, -1).astype(np.float32)
    return gated_lif_run(inputs[..., :n], gate, exported.parameters())


def assert_lowered_equals(exported: ExportedNeuron, inputs: np.ndarray, lowered: Lowered) -> int:
    """Spikes, potentials and states of the lowered graph are the reference's; returns the spikes. NaN never occurs;
    a zero may have the other sign."""
    assert {type(node).__name__ for node in lowered.graph.nodes.values()} <= STOCK
    expected = expected_run(exported, inputs)
    found = run_network(network_of(lowered.graph), inputs, ["neuron_potential", "neuron_state"])
    assert_spikes_equal(found.output, expected.spikes)
    assert np.array_equal(found.values["neuron_potential"], expected.membrane)
    if inputs.shape[1]:
        assert np.array_equal(found.values["neuron_state"][:, -1], expected.state)
    assert expected.membrane.max(initial=0) <= lowered.largest_potential
    return int(expected.spikes.sum())


def test_sixty_thousand_spikes() -> None:
    """Random constants, per-neuron; spikes and membranes both."""
    random = np.random.default_rng(5)
    count, spikes, soft, hard = 16, 0, 0, 0
    for case in range(8):

        def lanes(low: float, high: float) -> np.ndarray:
            return random.uniform(low, high, count).astype(np.float32)

        exported = neurons_of(
            count,
            decay=1.0 if case % 2 else lanes(0, 1),
            gain=lanes(-1, 2),
            threshold=lanes(0.2, 3),
            reset_potential=lanes(-1, 0.2) if case % 3 else 0.0,
            reset_scale=lanes(0, 1.2),
            gate_threshold=lanes(-0.3, 0.3),
        )
        inputs = random.normal(0.5, 1, (24, 150, 2 * count)).astype(np.float32)
        lowered = lower(neuron_graph(exported), np.abs(inputs[..., :count]).max((0, 1)))
        spikes += assert_lowered_equals(exported, inputs, lowered)
        gates = inputs[..., count:] > exported.gate_threshold
        fired = expected_run(exported, inputs).spikes
        soft, hard = soft + int((fired & ~gates).sum()), hard + int((fired & gates).sum())
    assert spikes > 60_000
    assert min(soft, hard) > 20_000


@st.composite
def cases(draw: Any) -> tuple[ExportedNeuron, np.ndarray]:
    """Constants at their limits as well as between, and currents chosen to hurt."""
    seed = draw(st.integers(0, 2**32 - 1))
    count, batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 30))

    def constant(*values: float, low: float, high: float) -> list[float]:
        between = st.floats(low, high, width=32).map(lambda v: v if abs(v) > 1e-30 else 0.0)
        return draw(st.lists(st.sampled_from(values) | between, min_size=count, max_size=count))

    low_reset = draw(st.sampled_from([-1.0, -1e6]))
    exported = neurons_of(
        count,
        decay=constant(0.0, 1.0, 0.5, float(np.float32(1 - 2**-24)), low=0.0, high=1.0),
        gain=constant(1.0, 0.0, -1.0, 1e5, low=-4.0, high=4.0),
        threshold=constant(1.0, 1e-6, 1e6, low=0.0625, high=8.0),
        reset_potential=constant(0.0, -1.0, 0.0, low=low_reset, high=0.0),
        reset_scale=constant(0.0, 0.8, 1.0, low=0.0, high=1.5),
        gate_threshold=constant(0.0, -0.5, low=-1.0, high=1.0),
    )
    kind = draw(st.sampled_from([kind for kind in CURRENT_KINDS if kind != "huge"]))
    current = adversarial_currents((batch, length, count), seed, kind) * np.float32(draw(st.sampled_from([1, 1, 1e6])))
    gate = np.random.default_rng(seed).choice([-1.0, 0.0, 1e-40, 1.0], (batch, length, count)).astype(np.float32)
    return exported, np.concatenate([current, gate], axis=2)


@settings(max_examples=40)
@given(cases())
def test_native_lowered_and_reference_agree(case: tuple[ExportedNeuron, np.ndarray]) -> None:
    exported, inputs = case
    native = neuron_graph(exported)
    found = run_network(network_of(native), inputs).output if inputs.shape[1] else None
    if found is not None:
        assert_spikes_equal(found, expected_run(exported, inputs).spikes)
        largest = np.abs(inputs[..., : exported.neurons]).max((0, 1))
        assert_lowered_equals(exported, inputs, lower(native, largest))


def test_potentials_around_the_threshold() -> None:
    """Exactly on it, one float below, one above; soft runs that stay above it; hard resets from far above."""
    one = np.float32(1)
    below, above = np.nextafter(one, np.float32(0)), np.nextafter(one, np.float32(2))
    current = np.array([one, below, above, 7.3, 0, 0, 0, 0, 50.7, 0, 0, -3, 5, 0], dtype=np.float32)
    gate = np.array([-1, 1, -1, -1, -1, -1, -1, 1, 1, -1, 1, -1, -1, 1], dtype=np.float32)
    inputs = np.stack([current, gate], axis=1)[None]
    assert assert_lowered_equals(neurons_of(1), inputs, lower(neuron_graph(neurons_of(1)), 50.7)) >= 6


@pytest.mark.parametrize("decay", [1.0, 0.875, 0.0])
def test_the_first_step_starts_at_the_reset_potential(decay: float) -> None:
    exported = neurons_of(2, decay=decay, reset_potential=[-0.75, 0.5])
    inputs = np.tile(np.array([0.5, 0.5, 1, 1], dtype=np.float32), (1, 9, 1))
    assert assert_lowered_equals(exported, inputs, lower(neuron_graph(exported), 0.5)) > 0 or decay == 0


def test_the_range_is_as_small_as_the_proof_allows() -> None:
    def bound(**constants: float) -> tuple[float, str]:
        values, reasons = largest_potential(neuron_node(neurons_of(1, **constants)), [0.75])
        return float(values[0]), reasons[0]

    assert bound() == (pytest.approx(1.75, rel=1e-5), "a soft reset takes away at least the largest current")
    assert bound(decay=0.5, reset_scale=0.1)[1] == "the decay outweighs the current"
    assert bound(decay=0.5, reset_scale=0.1)[0] == pytest.approx(1.3 + 0.75, rel=1e-5)
    value, reason = bound(reset_scale=0.5)
    assert value == pytest.approx(2.0**25, rel=1e-5)
    assert reason == "beyond it no current is large enough to count"


def test_growth_without_decay_ends_where_float32_does() -> None:
    """Every step adds more than a soft reset takes: the potential climbs until additions are rounded away, and the
    last hard reset forgets all of it."""
    exported = neurons_of(1, reset_scale=0.0, threshold=0.001)
    lowered = lower(neuron_graph(exported), 0.0010001)
    current = np.full((1, 300, 2), 0.001, dtype=np.float32)
    current[..., 1] = -1
    current[0, ::100, 1] = 1
    assert_lowered_equals(exported, current, lowered)
    u = np.float32(2.0**25)
    assert u + np.float32(1) == u  # why the climb ends


def test_a_grid_needs_fewer_bits() -> None:
    """Integers below: with a threshold of 80 and currents up to 64 a hard reset forgets 8 bits."""
    exported = neurons_of(6, threshold=80, reset_scale=0.8, reset_potential=[0, 0, 0, -16, -3, 8])
    random = np.random.default_rng(2)
    inputs = random.integers(-30, 65, (4, 200, 12)).astype(np.float32)
    lowered = lower(neuron_graph(exported), 64 * (1 - 1e-4), unit=0)
    assert lowered.bits == 8
    assert len(lowered.graph.nodes) < 80
    inputs[..., :6] = np.minimum(inputs[..., :6], 63)
    assert assert_lowered_equals(exported, inputs, lowered) > 500
    assert grid_exponent([0.75, -3, 0, 2.5]) == -2
    assert grid_exponent([96, 32]) == 5
    assert grid_exponent([0.0]) is None
    assert grid_exponent([2.0**-149]) == -149


def test_a_stated_range_saves_nodes() -> None:
    native = neuron_graph(neurons_of(1))
    assert len(lower(native, 3.0, at_most=64.0).graph.nodes) < len(lower(native, 3.0).graph.nodes) - 80
    with pytest.raises(NotLowerable, match=r"largest potential is 0.5; allowed: finite, at least the threshold"):
        lower(native, 3.0, at_most=0.5)


@pytest.mark.parametrize(
    ("constants", "current", "message"),
    [
        ({"threshold": 0.0, "reset_potential": -1.0}, 1.0, "v_threshold is 0; only a potential above 0 has bits"),
        ({"threshold": -0.5, "reset_potential": -1.0}, 1.0, "v_threshold is -0.5"),
        ({}, None, "nothing bounds the current"),
        ({}, float("inf"), "the largest current is inf; allowed: finite"),
        ({"gain": 1e30}, 1e30, r"the largest drive is 1e\+60"),
    ],
)
def test_what_cannot_be_lowered(constants: dict[str, float], current: float | None, message: str) -> None:
    with pytest.raises(NotLowerable, match=message):
        lower(neuron_graph(neurons_of(1, **constants)), current)


def test_only_one_neuron_node() -> None:
    stock = nir.NIRGraph(
        nodes={
            "input": nir.Input(input_type={"input": np.array([1])}),
            "output": nir.Output(output_type={"output": np.array([1])}),
        },
        edges=[("input", "output")],
    )
    with pytest.raises(NotLowerable, match="0 GatedResetLIF nodes; allowed: one"):
        lower(stock, 1.0)


@pytest.mark.parametrize("grid", ["none", "loihi2"])
@pytest.mark.parametrize(("encoder", "context"), [("linear", 1), ("convolution", 3), ("window", 3)])
def test_the_stated_current_is_never_exceeded(encoder: str, context: int, grid: str) -> None:
    engine = BoundaryEngine(lively_system(encoder, 60, context, grid=grid), config_of(encoder, context, grid=grid))
    ids = np.random.default_rng(0).integers(0, 60, 3000)
    bound = largest_current(engine)
    assert bound is not None
    found = np.abs(engine.run(ids).current).max()
    assert found <= bound
    assert encoder == "window" or found > 0.6 * bound


@pytest.fixture(scope="module")
def alphabet() -> Alphabet:
    return Alphabet.learn(scripts()["en"])


@pytest.mark.parametrize("grid", ["none", "loihi2"])
@pytest.mark.parametrize(("encoder", "context"), [("linear", 1), ("convolution", 3)])
def test_a_whole_tokenizer_of_stock_nodes(
    encoder: str, context: int, grid: str, tmp_path: Path, alphabet: Alphabet
) -> None:
    run = run_folder(tmp_path / "run", encoder, alphabet, context, grid=grid, reset_potential=-0.25)
    assert main(["--run", str(run), "--fold", "--lower", "--quiet"]) == 0
    assert sorted(p.name for p in run.glob("folded*")) == ["folded-lowered.alphabet.json", "folded-lowered.nir"]
    text = scripts()["en"][:600]
    graph = nir.read(run / "folded-lowered.nir")
    assert {type(node).__name__ for node in graph.nodes.values()} <= STOCK
    found = run_network(network_of(graph), one_hot(alphabet.encode(text), len(alphabet))[None], ["neuron_potential"])
    trace = Speak.load(run).trace(text)
    assert_spikes_equal(found.output[0, :, 0], trace.spikes)
    assert np.array_equal(found.values["neuron_potential"][0, :, 0], trace.membrane)
    assert trace.spikes.sum() > 100


def test_the_command(tmp_path: Path, alphabet: Alphabet, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run", "window", alphabet, 3)
    assert main(["--run", str(run), "--lower", "--quiet", "--json", str(tmp_path / "made.json")]) == 0
    first = (run / "lowered.nir").read_bytes()
    assert main(["--run", str(run), "--lower", "--quiet"]) == 0
    assert (run / "lowered.nir").read_bytes() == first
    assert "no potential exceeds" in capsys.readouterr().out
    assert "exact in float32" in read_graph(run / "lowered.nir").metadata["lowered"]
    assert main(["--run", str(run), "--lower", "--approximate", "lif", "--quiet"]) == 2
    hourglass = run_folder(tmp_path / "hourglass", "hourglass", alphabet)
    assert main(["--run", str(hourglass), "--lower", "--quiet"]) == 2
    assert "state one with --largest-current" in capsys.readouterr().err
    assert main(["--run", str(hourglass), "--lower", "--largest-current", "20", "--quiet"]) == 0
    assert "the largest current stated" in read_graph(hourglass / "lowered.nir").metadata["largest_potential_because"]


def test_check_lists_every_graph(tmp_path: Path, alphabet: Alphabet, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        "linear": ["yes", "yes", "yes", "yes", "yes"],
        "convolution": ["yes", "yes", "yes", "yes", "yes"],
        "window": ["yes", "no", "yes", "no", "yes"],
        "hourglass": ["yes", "no", "no", "no", "yes"],
    }
    for encoder, answers in expected.items():
        run = run_folder(tmp_path / encoder, encoder, alphabet, 1 if encoder in ("linear", "hourglass") else 3)
        assert main(["--run", str(run), "--check"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line[21:].split(":")[0] for line in lines] == answers, encoder
        assert "4 nodes" in lines[0]
    run = run_folder(tmp_path / "tanh", "linear", alphabet, tanh=True)
    assert main(["--run", str(run), "--check"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line[21:].split(":")[0] for line in lines] == ["no", "yes", "no", "yes", "no"]


def reference64(exported: ExportedNeuron, inputs: np.ndarray) -> np.ndarray:
    """The neuron evaluated in float64 throughout, its constants the file's float32 numbers."""
    n = exported.neurons
    p = {k: getattr(exported, k).astype(np.float64) for k in ("decay", "gain", "threshold", "reset_potential")}
    soft = np.multiply(exported.reset_scale, exported.threshold, dtype=np.float32).astype(np.float64)
    v, spikes = p["reset_potential"], []
    for row in inputs:
        u = p["decay"] * v + p["gain"] * row[:n]
        fired = u >= p["threshold"]
        v = np.where(fired, np.where(row[n:] > exported.gate_threshold, p["reset_potential"], u - soft), u)
        spikes.append(fired)
    return np.array(spikes)


needs_sc = pytest.mark.skipif(
    importlib.util.find_spec("sc_neurocore") is None,
    reason="sc-neurocore is not installed (pip install --no-deps sc-neurocore==3.16.0)",
)


@needs_sc
def test_an_independent_reader_on_a_grid(tmp_path: Path) -> None:
    """sc-neurocore computes in float64, where a grid is as exact as in float32: at least 60,000 spikes."""
    from sc_neurocore.nir_bridge import from_nir

    count, length = 512, 400
    exported = neurons_of(count, threshold=80, reset_potential=np.where(np.arange(count) % 2, -16, 0))
    inputs = np.random.default_rng(3).integers(-8, 64, (length, 2 * count)).astype(np.float32)
    inputs[:, count:] -= 28
    lowered = lower(neuron_graph(exported), 63, unit=0)
    write_graph(tmp_path / "lowered.nir", lowered.graph)
    network = from_nir(str(tmp_path / "lowered.nir"))
    found = np.array([network.step({"input": row})["output"] for row in inputs])
    expected = expected_run(exported, inputs[None]).spikes[0]
    assert_spikes_equal(found > 0, expected)
    assert expected.sum() > 60_000


@needs_sc
def test_an_independent_reader_in_double_precision(tmp_path: Path) -> None:
    """Arbitrary constants, lowered for a reader that computes in float64."""
    from sc_neurocore.nir_bridge import from_nir

    random = np.random.default_rng(4)
    count, length = 256, 100

    def lanes(low: float, high: float) -> np.ndarray:
        return random.uniform(low, high, count).astype(np.float32)

    exported = neurons_of(
        count,
        decay=lanes(0, 0.99),
        gain=lanes(0.5, 2),
        threshold=lanes(0.3, 2),
        reset_potential=lanes(-1, 0.2),
        reset_scale=lanes(0, 1),
    )
    inputs = random.normal(0.3, 0.7, (length, 2 * count)).astype(np.float32)
    lowered = lower(neuron_graph(exported), np.abs(inputs[:, :count]).max(0), precision="float64")
    write_graph(tmp_path / "lowered.nir", lowered.graph)
    network = from_nir(str(tmp_path / "lowered.nir"))
    found = np.array([network.step({"input": row})["output"] for row in inputs])
    expected = reference64(exported, inputs)
    assert_spikes_equal(found > 0, expected)
    assert expected.sum() > 3_000


@needs_sc
def test_an_independent_reader_of_a_whole_tokenizer(tmp_path: Path, alphabet: Alphabet) -> None:
    """Text in, boundaries out, in a program that is not ours. Its float64 sums may decide otherwise than float32's only
    where a potential is within rounding of the threshold, which this text has nowhere."""
    from sc_neurocore.nir_bridge import from_nir

    run = run_folder(tmp_path / "run", "convolution", alphabet, 3, decay=0.5)
    assert main(["--run", str(run), "--fold", "--lower", "float64", "--quiet"]) == 0
    assert main(["--run", str(run), "--fold", "--quiet"]) == 0
    ids = alphabet.encode(scripts()["en"][:250])
    network = from_nir(str(run / "folded-lowered.nir"))
    found = [network.step({"input": row})["output"][0] for row in one_hot(ids, len(alphabet))]
    expected = read_folded(run / "folded.nir").spikes(ids)[:, 0]
    assert_spikes_equal(np.array(found) > 0, expected)
    assert expected.sum() > 25
