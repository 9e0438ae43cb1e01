"""Choosing number formats: exact constants, stated errors that hold, and refusals that say what would fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import trace_fixtures as fixtures
from hypothesis import given, settings
from hypothesis import strategies as st

from speak_neuro.errors import SpeakError
from speak_neuro.neuron.integer import (
    ACCUMULATOR_LIMIT,
    STATE_LIMIT,
    WEIGHT_LIMIT,
    integer_readout,
    largest_sum,
    representable_threshold,
)
from speak_neuro.sim.fixed.compare import against_float, in_float32, in_float_units
from speak_neuro.sim.fixed.levels import UNBOUNDED, fixed_level
from speak_neuro.sim.fixed.quantize import fix_current, fix_neuron, largest_threshold
from speak_neuro.sim.fixed.quantize_readout import BIAS_BITS, fix_readout

TEXTS = ["the quick brown fox jumps over the lazy dog " * 3, "", "a", "Ένα δύο τρία " * 5]


def one_hot_trace(gate_gain: float = 1.0, seed: int = 0, **constants: float) -> tuple[Any, Any]:
    """A neuron fed by one-hot characters."""
    exported, trace = fixtures.make_trace(TEXTS, grid=False, width=7, seed=seed, **constants)
    rng = np.random.default_rng(seed)
    features = np.zeros_like(trace.features)
    chosen = rng.integers(0, 7, trace.features.shape[:2])
    np.put_along_axis(features, chosen[..., None], 1, axis=2)
    features[~trace.valid] = 0
    weight = exported.weight * np.array([[1.0], [gate_gain]], dtype=np.float32)
    exported = replace(exported, weight=weight)
    both = np.where(trace.valid[..., None], features @ weight.T + exported.bias, np.float32(0))
    values = fixtures.fields(trace)
    del values["membrane"], values["spikes"]
    values |= {
        "features": features,
        "current": np.ascontiguousarray(both[..., 0]),
        "gate_logit": np.ascontiguousarray(both[..., 1]),
    }
    return exported, fixtures.run_again(exported, values)


@pytest.mark.parametrize("theta", [0.8, 0.5, 0.0, 1.0, 0.85, 1 / 3])
@pytest.mark.parametrize("reset", [0.0, -0.5, 0.25])
def test_resets_are_exact(theta: float, reset: float) -> None:
    exported, trace = fixtures.make_trace(TEXTS, grid=False, reset_scale=theta, reset_potential=reset)
    fixed = fix_neuron(exported, trace)
    n = fixed.neuron
    assert representable_threshold(n.threshold)
    assert n.soft_reset / n.threshold == pytest.approx(theta, abs=1e-12)
    assert n.reset_potential / n.threshold == pytest.approx(reset, abs=1e-12)
    # Twice the calibration's largest potential fits, and not much more does: no precision is given away.
    assert STATE_LIMIT >= 2 * fixed.largest_potential * n.threshold > 0.98 * STATE_LIMIT


def test_decay_is_rounded_to_twelve_bits_and_its_error_stated() -> None:
    exported, trace = fixtures.make_trace(TEXTS, grid=False, decay=0.9)
    fixed = fix_neuron(exported, trace)
    assert fixed.neuron.decay == 3686
    assert fixed.step_error >= abs(3686 / 4096 - np.float32(0.9)) * np.abs(trace.membrane).max()


@pytest.mark.parametrize(
    "constants",
    [{}, {"decay": 0.9, "gain": 0.7}, {"threshold": 0.3, "reset_potential": -0.15}, {"gain": -1.5}, {"gain": 0.0}],
    ids=str,
)
@pytest.mark.parametrize("level", ["neuron", "readout"])
def test_stated_errors_hold(level: Any, constants: dict[str, float]) -> None:
    exported, trace = fixtures.make_trace(TEXTS, grid=False, width=9, **constants)
    found = fixed_level(level, exported, trace)
    run = in_float_units(found, exported, trace)
    error = np.abs(run.current - trace.current)[trace.valid]
    assert (error <= found.current_bound[trace.valid] * (1 + 1e-6)).all()
    assert (np.abs(run.gate_logit - trace.gate_logit)[trace.valid] <= found.gate_bound[trace.valid] + 1e-7).all()
    compared, _ = against_float(found, exported, trace)
    assert compared["unexplained"] == 0
    assert compared["outside_bound"] == {"current": 0, "gate_logit": 0, "membrane": 0}
    assert compared["agreement"] > 0.97
    # The bound is no empty promise: the error comes within two orders of it.
    if constants.get("gain") != 0.0:
        assert error.max() > found.current_bound[trace.valid].max() / 100
    if "decay" not in constants:
        assert in_float32(found, trace)["passed"]


def test_sums_cannot_wrap() -> None:
    exported, trace = fixtures.make_trace(TEXTS, grid=False, width=40)
    readout = fix_readout(exported, trace)
    limit = np.array([readout.payload_limit] * 40 + [1, 2**BIAS_BITS])
    for parts in (readout.current, readout.gate):
        assert largest_sum(limit, parts) <= ACCUMULATOR_LIMIT
    payload, cut = readout.payload(trace.features)
    assert not cut.any()
    assert np.abs(payload[..., :40]).max() * 2 <= readout.payload_limit + 1
    _, cut = readout.payload(trace.features * 10)
    assert cut.any()


def test_what_was_cut_is_not_explained_away() -> None:
    """A feature far outside the calibration is cut, counted, and claims no bound."""
    exported, trace = fixtures.make_trace(TEXTS, grid=False)
    small = fixtures.fields(trace)
    del small["membrane"], small["spikes"]
    small["features"] = trace.features / 64
    both = np.where(trace.valid[..., None], small["features"] @ exported.weight.T + exported.bias, np.float32(0))
    small |= {"current": both[..., 0].copy(), "gate_logit": both[..., 1].copy()}
    calibration = fixtures.run_again(exported, small)
    found = fixed_level("readout", exported, trace, calibration=calibration)
    assert found.cut.any()
    assert (found.current_bound[found.cut] == UNBOUNDED).all()
    compared, _ = against_float(found, exported, trace)
    assert compared["payloads_cut"] == found.cut.sum()
    assert all(place["bound"] is None or place["bound"] < UNBOUNDED for place in compared["differences"])


def test_a_network_on_the_grid_is_not_rounded() -> None:
    """Integer threshold, features, weights and bias: the same numbers, and the same run."""
    exported, trace = fixtures.make_trace(TEXTS)
    scaled = {
        "weight": exported.weight * 16,
        "bias": exported.bias * 64,
        "threshold": np.array([320], dtype=np.float32),
    }
    exported = replace(exported, **scaled)
    values = fixtures.fields(trace)
    del values["membrane"], values["spikes"]
    values["features"] = trace.features * 4
    values["threshold"] = np.float32(320)
    values["current"], values["gate_logit"] = trace.current * 64, trace.gate_logit * 64
    trace = fixtures.run_again(exported, values)
    assert trace.spikes.any()
    for level in ("neuron", "readout"):
        found = fixed_level(level, exported, trace)  # type: ignore[arg-type]
        assert found.fixed.neuron.threshold == 320
        assert found.fixed.unit == 1
        np.testing.assert_array_equal(found.current[trace.valid], trace.current[trace.valid])
        compared, _ = against_float(found, exported, trace)
        assert compared["differing_spikes"] == 0
        assert compared["worst_current_error"] == 0
        np.testing.assert_array_equal(found.run.membrane[trace.valid], trace.membrane[trace.valid])
    assert found.readout is not None
    assert (found.readout.feature_bits, found.readout.shift) == (0, 0)


@pytest.mark.parametrize("gate_gain", [1.0, 1e-9, 1e9])
def test_one_hot_gates_are_decisions(gate_gain: float) -> None:
    """However small a character's gate logit, its sign is kept."""
    exported, trace = one_hot_trace(gate_gain)
    exported = replace(exported, bias=np.array([exported.bias[0], 0], dtype=np.float32))
    values = fixtures.fields(trace)
    del values["membrane"], values["spikes"]
    values["gate_logit"] = np.where(trace.valid, trace.features @ exported.weight[1], np.float32(0))
    trace = fixtures.run_again(exported, values)
    found = fixed_level("readout", exported, trace)
    assert found.readout is not None
    assert found.readout.one_hot
    (part,) = found.readout.gate
    assert set(np.unique(part.weight[:-2]).tolist()) == {-2, 2}
    compared, _ = against_float(found, exported, trace)
    assert compared["gate_differences"] == 0
    assert compared["unexplained"] == 0
    assert compared["agreement"] > 0.99


@settings(max_examples=60)
@given(
    st.floats(0, 1, width=32),
    st.floats(-3, 3, width=32),
    st.floats(0.0625, 64, width=32),
    st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    st.integers(0, 10**6),
)
def test_any_neuron_keeps_its_bound_or_is_refused(
    decay: float, gain: float, threshold: float, theta: float, seed: int
) -> None:
    exported, trace = fixtures.make_trace(
        ["some text to run over, now and then"], grid=False, seed=seed, decay=decay, gain=gain, threshold=threshold
    )
    exported = replace(exported, reset_scale=np.array([theta], dtype=np.float32))
    values = fixtures.fields(trace)
    del values["membrane"], values["spikes"]
    values["reset_scale"] = np.asarray(np.float32(theta))
    trace = fixtures.run_again(exported, values)
    for level in ("neuron", "readout"):
        found = fixed_level(level, exported, trace)  # type: ignore[arg-type]
        compared, _ = against_float(found, exported, trace)
        assert compared["unexplained"] == 0
        assert compared["outside_bound"]["membrane"] == 0
        assert not found.run.saturated.any()


# --- refusals


def refused(exported: Any, trace: Any, level: Any = "neuron", **options: Any) -> str:
    with pytest.raises((SpeakError, ValueError)) as caught:
        fixed_level(level, exported, trace, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_constants_without_a_format() -> None:
    exported, trace = fixtures.make_trace(TEXTS, threshold=-0.5, reset_potential=-2.0)
    assert "threshold is -0.5; allowed in fixed point: above 0" in refused(exported, trace)
    exported, trace = fixtures.make_trace(TEXTS)
    for decay in (1.5, -0.1):
        outside = replace(exported, decay=np.array([decay], dtype=np.float32))
        with pytest.raises(SpeakError, match=r"decay is .*; allowed: 0 to 1"):
            fix_neuron(outside, trace)
    negative = replace(exported, reset_scale=np.array([-0.5], dtype=np.float32))
    with pytest.raises(SpeakError, match=r"reset_scale is -0\.5; allowed in fixed point: at least 0"):
        fix_neuron(negative, trace)
    with pytest.raises(ValueError, match="NaN or infinity"):
        replace(exported, weight=exported.weight * np.float32(np.nan))


def test_a_threshold_that_is_not_representable() -> None:
    exported, trace = fixtures.make_trace(TEXTS)
    for threshold in (0, -5, 131072 * 64, 262145, 101):
        message = refused(exported, trace, threshold=threshold)
        assert f"threshold {threshold} is not representable; allowed: multiples of 5" in message
    assert fixed_level("neuron", exported, trace, threshold=100).fixed.neuron.threshold == 100


def test_overflow_names_the_range_that_would_fit() -> None:
    exported, trace = fixtures.make_trace(TEXTS)
    message = refused(exported, trace, threshold=131070 << 6)
    assert "leaves a range of 1 thresholds in 24 bits, and the calibration run reaches" in message
    allowed = int(message.rsplit("up to ", 1)[1])
    assert fix_neuron(exported, trace, allowed).neuron.threshold == allowed
    assert fix_neuron(exported, trace).neuron.threshold == allowed

    loud = fixtures.fields(trace)
    del loud["membrane"], loud["spikes"]
    loud["current"] = trace.current * np.float32(1e7)
    message = refused(exported, fixtures.run_again(exported, loud))
    assert "thresholds; allowed in 24 bits with a threshold that is a multiple of 5: 838861 thresholds" in message


def test_a_reset_scale_without_a_multiple() -> None:
    exported, trace = fixtures.make_trace(TEXTS, reset_scale=1e-8)
    message = refused(exported, trace)
    assert "multiple of 99999997; allowed: multiples up to" in message
    assert "nearest reset_scale that fits: 0" in message


def test_weights_that_need_more_exponent_bits() -> None:
    exported, trace = one_hot_trace()
    weight = exported.weight.copy()
    weight[0, 3] = 1e7
    message = refused(replace(exported, weight=weight), trace, "readout")
    assert (
        "the current's weights reach 1e+07; allowed: 1.67772e+06, what three parts of 8 bits hold with threshold 5"
        in (message)
    )
    assert "(this range needs 3 more exponent bits)" in message
    weight[0, 3] = 1.6e6
    assert fix_readout(replace(exported, weight=weight), trace).fixed.neuron.threshold == 5

    exported, trace = fixtures.make_trace(TEXTS, grid=False)
    weight = exported.weight.copy()
    weight[0, 3] = 3e9
    message = refused(replace(exported, weight=weight), trace, "readout")
    assert "what two parts of 8 bits hold" in message
    assert "more exponent bits)" in message


def test_a_table_of_sixteen_bits_or_more() -> None:
    """Two parts where T is small, three parts of the full resolution where it is not: both are exact tables."""
    exported, trace = one_hot_trace()
    table = (exported.weight + exported.bias[:, None])[0].astype(np.float64)
    for threshold, parts, payload in ((5120, 2, 1), (None, 3, 256)):
        readout = fix_readout(exported, trace, threshold)
        assert (len(readout.current), readout.payload_limit) == (parts, payload)
        spikes, _ = readout.payload(np.eye(7, dtype=np.float32))
        np.testing.assert_array_equal(
            integer_readout(spikes, readout.current), np.rint(table * readout.fixed.neuron.threshold)
        )
    found = fixed_level("readout", exported, trace)
    compared, _ = against_float(found, exported, trace)
    assert compared["agreement"] == 1
    assert compared["worst_current_error"] < 1e-6


def test_features_beyond_a_graded_spike() -> None:
    exported, trace = fixtures.make_trace(TEXTS, grid=False)
    values = fixtures.fields(trace)
    values["features"] = trace.features * np.float32(1e6)
    message = refused(exported, type(trace)(**values), "readout")
    assert "a feature reaches" in message
    assert f"allowed: up to {2**15 - 1}" in message


def test_several_neurons() -> None:
    exported, trace = fixtures.make_trace(TEXTS)
    names = ("weight", "bias", "decay", "gain", "threshold", "reset_potential", "reset_scale", "gate_threshold")
    two = replace(exported, **{name: np.concatenate([getattr(exported, name)] * 2) for name in names})
    with pytest.raises(SpeakError, match="2 neurons; allowed in fixed point: one"):
        fix_neuron(two, trace)


def test_currents_are_rounded_to_nearest() -> None:
    exported, trace = fixtures.make_trace(TEXTS, grid=False)
    fixed = fix_neuron(exported, trace)
    current = fix_current(exported, fixed, trace.current)
    assert np.abs(current * fixed.unit - trace.current).max() <= fixed.unit / 2 * (1 + 1e-9)
    assert np.abs(current).max() > WEIGHT_LIMIT


def test_largest_threshold() -> None:
    assert largest_threshold(131071, 1) == 131071
    assert largest_threshold(131072, 1) == 131072
    assert largest_threshold(10**9, 1) == 131071 << 6
    assert largest_threshold(1297837, 5) == 1297760
    assert largest_threshold(4, 5) == 0
