"""Lava's fixed-point and floating-point models against the integer reference, and `speak-sim --model fixed`."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trace_fixtures as fixtures

from speak_neuro.export.files.neuron_file import write_neuron
from speak_neuro.export.files.trace_file import write_trace
from speak_neuro.neuron.integer import STATE_LIMIT, IntegerNeuron, integer_readout, integer_run, weight_parts
from speak_neuro.sim.cli import main
from speak_neuro.sim.fixed.compare import against_reference, compare_fixed
from speak_neuro.sim.fixed.levels import fixed_level, simulate_fixed
from speak_neuro.sim.fixed.quantize import largest_threshold
from speak_neuro.sim.job import CONSTANTS, INTEGERS
from speak_neuro.sim.runner import run_job

lava = pytest.mark.lava
needs_lava = pytest.mark.skipif(
    importlib.util.find_spec("lava") is None, reason="lava-nc is not installed (Python 3.10 only)"
)
ROWS, STEPS = 512, 150


def random_neurons(rng: np.random.Generator, count: int, *, exact: bool) -> list[IntegerNeuron]:
    """Constants over their whole ranges; `exact` in float32: without decay, shift or large thresholds."""
    found = []
    while len(found) < count:
        mantissa = int(rng.choice([1, 5, 131071, rng.integers(1, 2**17), rng.integers(1, 50)]))
        threshold = mantissa << (0 if exact else int(rng.integers(0, 7)))
        neuron = IntegerNeuron(
            threshold=threshold,
            soft_reset=int(rng.choice([0, threshold, threshold * 4 // 5, rng.integers(0, threshold + 1)])),
            reset_potential=int(
                rng.choice([0, rng.integers(-STATE_LIMIT, threshold), rng.integers(-threshold, threshold)])
            ),
            decay=4096 if exact else int(rng.choice([4096, 4095, 3686, 1, 0, rng.integers(0, 4097)])),
            gate_threshold=int(rng.integers(-3, 4)),
            shift=0 if exact else int(rng.integers(0, 7)),
        )
        if exact:
            try:
                neuron.float_parameters()
            except ValueError:
                continue
        found.append(neuron)
    return found


def random_inputs(rng: np.random.Generator, neurons: list[IntegerNeuron]) -> tuple[np.ndarray, np.ndarray]:
    """Currents of each neuron's own scale, steps that land on the threshold, and extremes of 32 bits."""
    threshold = np.array([neuron.threshold >> neuron.shift for neuron in neurons])[:, None]
    current = np.rint(rng.normal(0.2, 0.5, (len(neurons), STEPS)) * threshold).astype(np.int64)
    current[::4] = rng.integers(-1, 3, current[::4].shape) * np.maximum(threshold[::4] // 4, 1)
    return current, rng.integers(-5, 6, current.shape)


@lava
@needs_lava
def test_fixed_point_neuron_equals_the_integer_reference() -> None:
    rng = np.random.default_rng(3)
    neurons = random_neurons(rng, ROWS, exact=False)
    current, gate = random_inputs(rng, neurons)
    current[5::8, ::3] = rng.choice([2**31 - 1, -(2**31) + 1, STATE_LIMIT], current[5::8, ::3].shape)
    runs = [integer_run(current[i : i + 1], gate[i : i + 1], neuron) for i, neuron in enumerate(neurons)]
    got = run_job(
        {
            "integers": np.array([[getattr(neuron, name) for neuron in neurons] for name in INTEGERS]),
            "length": np.full(ROWS, STEPS),
            "lanes": np.array(300),
            "current": current.T,
            "gate_logit": gate.T,
        },
        timeout=60,
    ).arrays
    spikes = np.concatenate([run.spikes for run in runs])
    membrane = np.concatenate([run.membrane for run in runs])
    np.testing.assert_array_equal(got["spikes"].T, spikes)
    np.testing.assert_array_equal(got["membrane"].T, membrane)
    assert got["membrane"].dtype == np.int32
    assert sum(int(run.saturated.sum()) for run in runs) > 500
    threshold = np.array([neuron.threshold for neuron in neurons])[:, None]
    assert (membrane == threshold).sum() > 500, "few potentials exactly on the threshold: the test is blunt"
    assert 0.02 < spikes.mean() < 0.9


@lava
@needs_lava
def test_floating_point_neuron_in_integer_units_equals_the_integer_reference() -> None:
    rng = np.random.default_rng(4)
    neurons = random_neurons(rng, ROWS, exact=True)
    current, gate = random_inputs(rng, neurons)
    runs = [integer_run(current[i : i + 1], gate[i : i + 1], neuron) for i, neuron in enumerate(neurons)]
    unsaturated = np.array([not run.saturated.any() for run in runs])
    assert unsaturated.mean() > 0.9
    values = []
    for neuron in neurons:
        p = neuron.float_parameters()
        values.append([p.decay, p.gain, p.threshold, p.reset_potential, p.reset_scale, neuron.gate_threshold])
    assert len(CONSTANTS) == 6
    got = run_job(
        {
            "constants": np.array(values, dtype=np.float32).T,
            "length": np.full(ROWS, STEPS),
            "lanes": np.array(ROWS),
            "current": current.T.astype(np.float32),
            "gate_logit": gate.T.astype(np.float32),
        },
        timeout=60,
    ).arrays
    np.testing.assert_array_equal(
        got["spikes"].T[unsaturated], np.concatenate([run.spikes for run in runs])[unsaturated]
    )
    np.testing.assert_array_equal(
        got["membrane"].T[unsaturated], np.concatenate([run.membrane for run in runs])[unsaturated]
    )


@lava
@needs_lava
@pytest.mark.parametrize("exponents", [(-7, 0), (0, 2)])
def test_fixed_point_readout_equals_the_integer_reference(exponents: tuple[int, int]) -> None:
    """Two Dense on one port for 16-bit weights, one for 8 bits, every exponent's shift."""
    rng = np.random.default_rng(5)
    lanes, width = 20, 11
    payload = rng.integers(-400, 400, (lanes, STEPS, width))
    wide, narrow = rng.integers(-(2**15), 2**15, width), 2 * rng.integers(-128, 128, width)
    narrow[0] = -256
    parts = [*((0, p) for p in weight_parts(wide, exponents[0])), *((1, p) for p in weight_parts(narrow, exponents[1]))]
    assert len(parts) == 3
    current = integer_readout(payload, [part for port, part in parts if port == 0])
    gate = integer_readout(payload, [part for port, part in parts if port == 1])
    neuron = IntegerNeuron(threshold=largest_threshold(min(int(np.abs(current).max()), 2**22), 1), soft_reset=1000)
    run = integer_run(current, gate, neuron)
    got = run_job(
        {
            "integers": np.array([getattr(neuron, name) for name in INTEGERS]),
            "length": np.full(lanes, STEPS),
            "lanes": np.array(16),
            "payload": np.swapaxes(payload, 0, 1),
            "part_port": np.array([port for port, _ in parts]),
            "part_weight": np.array([part.weight for _, part in parts]),
            "part_exponent": np.array([part.exponent for _, part in parts]),
        },
        timeout=60,
    ).arrays
    np.testing.assert_array_equal(got["current"].T, current)
    np.testing.assert_array_equal(got["gate_logit"].T, gate)
    np.testing.assert_array_equal(got["spikes"].T, run.spikes)
    np.testing.assert_array_equal(got["membrane"].T, run.membrane)
    assert run.spikes.any()


@lava
@needs_lava
def test_a_one_hot_table_of_24_bits_in_lava() -> None:
    """Three Dense on one port, payload 256."""
    rng = np.random.default_rng(8)
    exported, trace = fixtures.make_trace(["some text, seven letters"] * 3, grid=False, width=7)
    features = np.zeros_like(trace.features)
    np.put_along_axis(features, rng.integers(0, 7, (*trace.current.shape, 1)), 1, axis=2)
    values = fixtures.fields(trace)
    del values["membrane"], values["spikes"]
    both = features @ exported.weight.T + exported.bias
    values |= {"features": features, "current": both[..., 0].copy(), "gate_logit": both[..., 1].copy()}
    trace = fixtures.run_again(exported, values)
    section, _ = compare_fixed(exported, trace, levels=["readout"], timeout=60)
    assert section["readout"]["passed"]
    assert section["readout"]["format"]["current_parts"] == [7, 0, -8]
    assert section["readout"]["float"]["agreement"] == 1


@lava
@needs_lava
def test_stock_lif_is_an_independent_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "helpers"))
    current = np.random.default_rng(6).integers(-20, 45, (200, 60))
    got = run_job({"current": current, "threshold": np.array(64)}, timeout=60, worker="fixed_worker").arrays
    np.testing.assert_array_equal(got["ours"], got["stock"])
    assert got["ours"].sum() > 1000
    assert (got["ours"] != got["same"]).sum() > 100


@lava
@needs_lava
@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_both_levels_of_a_trace(decay: float) -> None:
    exported, trace = fixtures.make_trace(grid=False, decay=decay)
    section, runs = compare_fixed(exported, trace, timeout=60)
    assert set(runs) == {"fixed neuron", "fixed readout"}
    for result in section.values():
        assert result["passed"]
        names = ("mismatches", "membrane_mismatches", "current_mismatches", "gate_mismatches")
        assert [result[name] for name in names] == [0, 0, 0, 0]
        assert result["spikes"] > 0
        assert result["float"]["unexplained"] == 0
        assert result["float32"]["passed"] is (True if decay == 1 else None)


@lava
@needs_lava
def test_a_wrong_simulation_is_noticed() -> None:
    """One current off by one unit, one step: that position is named, and the level fails."""
    exported, trace = fixtures.make_trace(grid=False)
    found = fixed_level("neuron", exported, trace)
    current = found.current.copy()
    current[0, 7] += 1
    got, _ = simulate_fixed(replace(found, current=current), trace, timeout=60)
    result = against_reference(found, trace, got)
    assert not result["passed"]
    assert result["membrane_mismatches"] >= 1
    first = result["first_divergence"]
    assert (first["row"], first["position"]) == (0, 7)
    assert first["got_membrane"] == first["expected_membrane"] + 1
    assert first["context"] == trace.text(0)[:8]


@lava
@needs_lava
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported, trace = fixtures.make_trace(["the same words again and again " * 8] * 3, grid=False, seed=3)
    write_neuron(tmp_path / "boundary.nir", exported)
    write_trace(tmp_path / "trace.npz", trace)
    files = ["--graph", str(tmp_path / "boundary.nir"), "--trace", str(tmp_path / "trace.npz")]
    record = tmp_path / "record.json"
    assert main(["parity", *files, "--model", "fixed", "--fixed-threshold", "160", "--json", str(record)]) == 0
    printed = capsys.readouterr().out
    assert "0 mismatches, 0 membrane differences between Lava and the integer reference" in printed
    assert "of positions agree" in printed
    assert "parity: passed" in printed
    report = json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))
    assert report["levels"] == {}
    assert set(report["fixed"]) == {"neuron", "readout"}
    assert report["fixed"]["neuron"]["format"]["threshold"] == 160
    differing = report["fixed"]["neuron"]["float"]["differing_spikes"]
    assert differing > 0, "a threshold of 160 should be too coarse for this trace: the test is blunt"
    assert len(report["fixed"]["neuron"]["float"]["differences"]) == differing
    assert {"margin", "bound", "kind"} <= set(report["fixed"]["neuron"]["float"]["differences"][0])
    page = (tmp_path / "parity.html").read_text(encoding="utf-8")
    assert "In fixed point" in page
    assert json.loads(record.read_text())["metrics"]["fixed neuron"]["mismatches"] == 0
    strict = ["parity", *files, "--model", "fixed", "--fixed-threshold", "160", "--strict", "--level", "neuron"]
    assert main(strict) == 1
    assert "parity: FAILED" in capsys.readouterr().out


def test_quantize_needs_no_lava(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported, trace = fixtures.make_trace(grid=False)
    write_neuron(tmp_path / "boundary.nir", exported)
    write_trace(tmp_path / "trace.npz", trace)
    files = ["--graph", str(tmp_path / "boundary.nir"), "--trace", str(tmp_path / "trace.npz")]
    assert main(["quantize", *files, "--json", str(tmp_path / "q.json"), "--calibration", files[3]]) == 0
    printed = capsys.readouterr().out
    assert "rounding of the current" in printed
    metrics = json.loads((tmp_path / "q.json").read_text())["metrics"]
    assert metrics["readout"]["worst_current_error"] <= metrics["readout"]["current_error_bound"]
    assert main(["quantize", *files, "--fixed-threshold", "7"]) == 2
    error = capsys.readouterr().err
    assert "threshold 7 is not representable; allowed: multiples of 5" in error
    assert error.count("\n") == 1
