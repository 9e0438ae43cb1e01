"""The numpy reference against sequences computed by hand and against what the definition promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_cases import NeuronCase, neuron_cases

from speak_neuro.neuron.reference import NeuronParameters, gated_lif_run, gated_lif_step
from speak_neuro.neuron.resets import RESETS
from speak_neuro.testing import assert_bits_equal, assert_runs_equal, assert_spikes_equal

SOFT, HARD = -1.0, 1.0
JUST_BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


def run_one(current, gate, **parameters):
    run = gated_lif_run(np.array([current], np.float32), np.array([gate], np.float32), NeuronParameters(**parameters))
    return run.spikes[0].astype(int).tolist(), run.membrane[0].tolist(), float(run.state[0])


# Every number below is a binary fraction, so the expected values are exact.
@pytest.mark.parametrize(
    ("current", "gate", "parameters", "spikes", "membrane", "state"),
    [
        pytest.param([0.25, 0.5], [HARD, HARD], {}, [0, 0], [0.25, 0.75], 0.75, id="no spike: the gate is not read"),
        pytest.param([0.75, 0.5, 0.25], [SOFT, HARD, SOFT], {}, [0, 1, 0], [0.75, 1.25, 0.25], 0.25, id="hard reset"),
        pytest.param(
            [0.75, 0.5, 0.25],
            [HARD, SOFT, HARD],
            {"reset_scale": 0.5},
            [0, 1, 1],
            [0.75, 1.25, 1.0],
            0.0,
            id="soft reset keeps 1.25 - 0.5 * 1, then 0.75 + 0.25 fires at the threshold",
        ),
        pytest.param([1.0], [SOFT], {"reset_scale": 0.75}, [1], [1.0], 0.25, id="exactly at the threshold"),
        pytest.param([JUST_BELOW_ONE], [HARD], {}, [0], [JUST_BELOW_ONE], JUST_BELOW_ONE, id="one ulp below"),
        pytest.param(
            [2.0, 2.0],
            [HARD, SOFT],
            {"threshold": 1.5, "reset_potential": -0.5, "reset_scale": 0.5},
            [1, 1],
            [1.5, 1.5],
            0.75,
            id="starts at, and returns to, the reset potential; soft reset scales the threshold",
        ),
        pytest.param(
            [1.0, 1.0, 3.0],
            [SOFT, SOFT, SOFT],
            {"decay": 0.5, "gain": 0.5, "reset_scale": 1.0},
            [0, 0, 1],
            [0.5, 0.75, 1.875],
            0.875,
            id="decay and gain",
        ),
        pytest.param([1.5, 1.0], [0.0, -0.0], {"reset_scale": 0.5}, [1, 1], [1.5, 2.0], 1.5, id="a zero logit is shut"),
        pytest.param([1.5, 1.5], [SOFT, HARD], {"mode": "hard"}, [1, 1], [1.5, 1.5], 0.0, id="mode hard"),
        pytest.param(
            [1.5, 1.5], [HARD, SOFT], {"mode": "soft", "reset_scale": 0.5}, [1, 1], [1.5, 2.5], 2.0, id="mode soft"
        ),
        pytest.param(
            [1.5, -1.0, 0.5], [HARD, HARD, HARD], {"mode": "none"}, [1, 0, 1], [1.5, 0.5, 1.0], 1.0, id="none"
        ),
        pytest.param(
            [1.5, 0.5, 0.5], [SOFT, HARD, HARD], {"mode": "hard/none"}, [1, 1, 0], [1.5, 2.0, 0.5], 0.5, id="hard/none"
        ),
        pytest.param([], [], {"reset_potential": 0.5}, [], [], 0.5, id="empty sequence"),
    ],
)
def test_hand_computed_sequences(current, gate, parameters, spikes, membrane, state):
    assert run_one(current, gate, **parameters) == (spikes, membrane, state)


def test_products_are_rounded_before_the_sum():
    """A fused multiply-add, or double precision, would give another float32 for some of these."""
    decay, gain = np.float32([0.9, 1.1])
    state, current = np.random.default_rng(0).random((2, 1000)).astype(np.float32)
    _, membrane, _ = gated_lif_step(current, current, state, NeuronParameters(decay=decay, gain=gain, threshold=5))
    once = (float(decay) * state.astype(np.float64) + float(gain) * current.astype(np.float64)).astype(np.float32)
    assert (membrane != once).any()
    assert_bits_equal(membrane, (decay * state).astype(np.float32) + (gain * current).astype(np.float32))


def test_soft_reset_amount_is_rounded_once():
    parameters = NeuronParameters(threshold=1.1, reset_scale=0.8)
    assert parameters.soft_reset == np.float32(np.float32(0.8) * np.float32(1.1))
    assert parameters.soft_reset.dtype == np.float32


@settings(max_examples=60)
@given(neuron_cases())
def test_dynamics_follow_the_definition_position_by_position(case: NeuronCase):
    """A second implementation: Python numbers and branches, one neuron at a time."""
    run, p = case.run(), case.parameters
    neurons = case.current.shape[2] if case.current.ndim == 3 else 1
    three = (*case.current.shape[:2], neurons)
    spikes, membrane, current, gate = (
        a.reshape(three) for a in (run.spikes, run.membrane, case.current, case.gate_logit)
    )
    final = run.state.reshape(-1, neurons)
    each = {
        name: np.broadcast_to(getattr(p, name), (neurons,))
        for name in ("decay", "gain", "threshold", "reset_potential", "soft_reset")
    }
    with np.errstate(over="ignore", invalid="ignore"):
        for b in range(len(current)):
            for n in range(neurons):
                decay, gain, threshold, reset_potential, soft = (each[name][n] for name in each)
                v = reset_potential if case.state is None else case.state.reshape(-1, neurons)[b, n]
                for t in range(current.shape[1]):
                    if case.valid is not None and not case.valid[b, t]:
                        assert not spikes[b, t, n]
                        assert membrane[b, t, n] == v
                        continue
                    u = np.float32(np.float32(decay * v) + np.float32(gain * current[b, t, n]))
                    assert membrane[b, t, n] == u or np.isnan(u)
                    assert spikes[b, t, n] == (u >= threshold)
                    v = u
                    if u >= threshold:
                        hard = {"hard": True, "soft": False, "none": False}.get(p.mode, bool(gate[b, t, n] > 0))
                        v = reset_potential if hard else np.float32(u - soft)
                assert final[b, n] == v or np.isnan(v)


@settings(max_examples=40)
@given(st.lists(st.integers(-32, 96), max_size=60), st.integers(0, 2**32 - 1))
def test_hard_mode_is_the_classic_hard_reset(sixty_fourths, seed):
    """Without leak, the potential is the running sum since the last spike, whatever the gate says."""
    current = np.array([sixty_fourths], np.float32) / 64
    gate = np.random.default_rng(seed).normal(size=current.shape).astype(np.float32)
    run = gated_lif_run(current, gate, NeuronParameters(mode="hard"))
    total = 0
    for t, drive in enumerate(sixty_fourths):
        total += drive
        assert run.membrane[0, t] == total / 64
        assert run.spikes[0, t] == (total >= 64)
        total = 0 if total >= 64 else total


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_after_a_hard_reset_the_future_is_independent_of_the_past(seed):
    """Two different pasts, one hard reset each, the same future: the same bits from there on."""
    rng = np.random.default_rng(seed)
    parameters = NeuronParameters(decay=0.75, mode="gated")
    pasts = [rng.normal(0, 1, (2, 12)).astype(np.float32) for _ in range(2)]
    reset = np.full((2, 1), 1e6, np.float32)
    future = rng.normal(0.3, 0.7, (2, 30)).astype(np.float32)
    gates = rng.normal(0, 1, (2, 30)).astype(np.float32)
    runs = [
        gated_lif_run(
            np.concatenate([past, reset, future], 1),
            np.concatenate([past, np.ones_like(reset), gates], 1),
            parameters,
        )
        for past in pasts
    ]
    assert (runs[0].membrane[:, :12] != runs[1].membrane[:, :12]).any()
    assert_bits_equal(runs[0].membrane[:, 13:], runs[1].membrane[:, 13:])
    assert_bits_equal(runs[0].state, runs[1].state, name="state")


@settings(max_examples=60)
@given(neuron_cases(), st.data())
def test_split_anywhere_with_carried_state_is_the_whole(case: NeuronCase, data):
    cut = data.draw(st.integers(0, case.current.shape[1]))
    whole, state, parts = case.run(), case.state, []
    for part in (slice(None, cut), slice(cut, None)):
        valid = None if case.valid is None else case.valid[:, part]
        parts.append(gated_lif_run(case.current[:, part], case.gate_logit[:, part], case.parameters, state, valid))
        state = parts[-1].state
    assert_spikes_equal(np.concatenate([p.spikes for p in parts], 1), whole.spikes)
    assert_bits_equal(np.concatenate([p.membrane for p in parts], 1), whole.membrane)
    assert_bits_equal(parts[-1].state, whole.state, name="state")


@settings(max_examples=60)
@given(neuron_cases(), st.data())
def test_a_prefix_does_not_see_the_future(case: NeuronCase, data):
    cut = data.draw(st.integers(0, case.current.shape[1]))
    other = case.current.copy()
    other[:, cut:] = -other[:, cut:] + 0.5
    whole = case.run()
    changed = gated_lif_run(other, case.gate_logit, case.parameters, case.state, case.valid)
    assert_spikes_equal(changed.spikes[:, :cut], whole.spikes[:, :cut])
    assert_bits_equal(changed.membrane[:, :cut], whole.membrane[:, :cut])


@settings(max_examples=60)
@given(neuron_cases())
def test_a_batch_is_its_rows_and_its_lanes(case: NeuronCase):
    whole = case.run()
    for b in range(len(case.current)):
        row = slice(b, b + 1)
        alone = gated_lif_run(
            case.current[row],
            case.gate_logit[row],
            case.parameters,
            None if case.state is None else case.state[row],
            None if case.valid is None else case.valid[row],
        )
        assert_bits_equal(alone.membrane, whole.membrane[row])
        assert_spikes_equal(alone.spikes, whole.spikes[row])
    for n in range(case.current.shape[2] if case.current.ndim == 3 else 0):
        p = case.parameters
        one = {
            name: np.broadcast_to(getattr(p, name), (case.current.shape[2],))[n]
            for name in ("decay", "gain", "threshold", "reset_potential", "reset_scale")
        }
        lane = gated_lif_run(
            case.current[..., n],
            case.gate_logit[..., n],
            NeuronParameters(**one, mode=p.mode),
            None if case.state is None else case.state[:, n],
            case.valid,
        )
        assert_bits_equal(lane.membrane, whole.membrane[..., n])
        assert_bits_equal(lane.state, whole.state[:, n], name="state")


@settings(max_examples=40)
@given(neuron_cases())
def test_padding_holds_the_state_and_never_spikes(case: NeuronCase):
    """Padding, whatever its currents, gives the run without it."""
    batch, length = case.current.shape[:2]
    padding = np.full((batch, 5, *case.current.shape[2:]), 1e9, np.float32)
    valid = np.ones((batch, length), bool) if case.valid is None else case.valid
    bare = case.run()
    padded = gated_lif_run(
        np.concatenate([case.current, padding], 1),
        np.concatenate([case.gate_logit, padding], 1),
        case.parameters,
        case.state,
        np.concatenate([valid, np.zeros((batch, 5), bool)], 1),
    )
    assert not padded.spikes[:, length:].any()
    assert_spikes_equal(padded.spikes[:, :length], bare.spikes)
    assert_bits_equal(padded.state, bare.state, name="state")
    for t in range(length, length + 5):
        assert_bits_equal(padded.membrane[:, t], bare.state)


def test_gate_of_every_mode():
    """What a spike at u = 3 leaves, gate shut, shut (-0), shut (0), open by the least number, open."""
    logits = np.float32([-1, -0.0, 0, 1e-45, 1])
    hard, soft, none = np.float32(-0.5), np.float32(3) - np.float32(1.6), np.float32(3)
    expected = {
        "gated": [soft, soft, soft, hard, hard],
        "hard": [hard] * 5,
        "soft": [soft] * 5,
        "none": [none] * 5,
        "hard/none": [none, none, none, hard, hard],
    }
    for mode in RESETS:
        neuron = NeuronParameters(threshold=2.0, reset_potential=-0.5, mode=mode)
        state = gated_lif_step(np.full(5, 3, np.float32), logits, np.zeros(5, np.float32), neuron)[2]
        assert state.tolist() == [float(value) for value in expected[mode]], mode


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mode": "sotf"}, "mode is 'sotf'; allowed: gated"),
        ({"decay": 1.5}, "decay is 1.5; allowed: 0 to 1"),
        ({"gain": float("nan")}, "gain is nan; allowed: finite"),
        ({"threshold": 0.0}, "threshold is 0.0; allowed: above reset_potential 0.0"),
        ({"reset_scale": np.ones((2, 2))}, r"reset_scale has shape \(2, 2\)"),
    ],
)
def test_impossible_parameters_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        NeuronParameters(**parameters)


def test_wrong_shapes_are_refused():
    two, three = np.zeros((2, 3), np.float32), np.zeros((2, 3, 4), np.float32)
    for arguments, message in (
        ((two, three), "current has shape"),
        ((two[0], two[0]), "current has shape"),
        ((two, two, None, np.zeros(3, np.float32)), "state has shape"),
        ((two, two, None, None, np.ones((3, 2), bool)), "valid has shape"),
        ((three, three, NeuronParameters(threshold=np.ones(3))), "threshold has 3 values"),
        # (2,) would broadcast over the batch of 2
        ((two, two, NeuronParameters(threshold=np.ones(2))), "threshold has 2 values"),
    ):
        with pytest.raises(ValueError, match=message):
            gated_lif_run(*arguments)


def test_the_first_divergence_in_time_is_reported():
    expected = np.zeros((3, 5, 2), bool)
    actual = expected.copy()
    actual[0, 4, 0] = actual[2, 1, 1] = True
    membrane = np.arange(30, dtype=np.float32).reshape(3, 5, 2)
    message = r"differ at row 2, position 1, neuron 1: got 1, expected 0; membrane 23.0 .*; threshold 7.0 .*; 2 of 30"
    with pytest.raises(AssertionError, match=message):
        assert_spikes_equal(actual, expected, actual_membrane=membrane, threshold=[1, 7])
    with pytest.raises(AssertionError, match=r"membrane differs at position 1: got -0\.0"):
        assert_bits_equal(np.float32([1, -0.0]), np.float32([1, 0]))
    with pytest.raises(AssertionError, match=r"shape \(1,\), expected \(2,\)"):
        assert_spikes_equal([1], [1, 0])
    run = gated_lif_run(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32))
    assert_runs_equal(run, run)
    with pytest.raises(AssertionError, match="state differs"):
        assert_runs_equal(run, run._replace(state=run.state + 1))
