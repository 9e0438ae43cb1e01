"""The integer reference: against a scalar loop written from the equations, against float32, and at its limits."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speak_neuro.neuron.integer import (
    ACCUMULATOR_LIMIT,
    DECAY_ONE,
    MANTISSA_LIMIT,
    SHIFT_LIMIT,
    STATE_LIMIT,
    WIDE_EXPONENT,
    IntegerNeuron,
    Part,
    float32_fraction,
    integer_readout,
    integer_run,
    largest_sum,
    representable_threshold,
    weight_parts,
)
from speak_neuro.neuron.reference import gated_lif_run


@st.composite
def neurons(draw: st.DrawFn, *, decay: int | None = None, shift: int | None = None) -> IntegerNeuron:
    """Any neuron, extremes included."""
    mantissa = draw(st.integers(1, MANTISSA_LIMIT) | st.sampled_from([1, 5, MANTISSA_LIMIT]))
    threshold = mantissa << draw(st.integers(0, SHIFT_LIMIT))
    return IntegerNeuron(
        threshold=threshold,
        soft_reset=draw(st.integers(0, threshold) | st.just(threshold * 4 // 5) | st.just(0)),
        reset_potential=draw(st.just(0) | st.integers(-STATE_LIMIT, threshold - 1)),
        decay=draw(st.sampled_from([DECAY_ONE, 0, 1, 4095]) | st.integers(0, DECAY_ONE)) if decay is None else decay,
        gate_threshold=draw(st.just(0) | st.integers(-9, 9)),
        shift=draw(st.integers(0, SHIFT_LIMIT)) if shift is None else shift,
    )


currents = st.lists(
    st.integers(-40, 60)
    | st.integers(-STATE_LIMIT, STATE_LIMIT)
    | st.sampled_from([ACCUMULATOR_LIMIT, -ACCUMULATOR_LIMIT, STATE_LIMIT, 0]),
    min_size=1,
    max_size=40,
)


def by_hand(current: list[int], gate: list[int], n: IntegerNeuron) -> list[tuple[bool, int, bool]]:
    """The docstring's equations in Python's unbounded integers."""
    v, steps = n.reset_potential, []
    for a, g in zip(current, gate, strict=True):
        leaked = abs(v) * n.decay // 4096 * (-1 if v < 0 else 1)
        wanted = leaked + a * 2**n.shift
        u = max(-STATE_LIMIT, min(STATE_LIMIT, wanted))
        fired = u >= n.threshold
        if fired:
            v = n.reset_potential if g > n.gate_threshold else u - n.soft_reset
        else:
            v = u
        steps.append((fired, u, wanted != u))
    return steps


@settings(max_examples=150)
@given(neurons(), currents, st.randoms(use_true_random=False))
def test_every_neuron_is_its_equations(n: IntegerNeuron, current: list[int], random) -> None:  # type: ignore[no-untyped-def]
    gate = [random.randint(-10, 10) for _ in current]
    run = integer_run(np.array([current]), np.array([gate]), n)
    expected = by_hand(current, gate, n)
    assert list(zip(run.spikes[0], run.membrane[0], run.saturated[0], strict=True)) == expected
    assert np.abs(run.membrane).max() <= STATE_LIMIT
    assert abs(int(run.state[0])) <= STATE_LIMIT


@settings(max_examples=150)
@given(neurons(decay=DECAY_ONE, shift=0), st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=40))
def test_float32_in_integer_units_is_the_integer_reference(n: IntegerNeuron, current: list[int]) -> None:
    try:
        parameters = n.float_parameters()
    except ValueError:
        assume(False)
    gate = np.arange(len(current)) % 3 - 1 + n.gate_threshold
    run = integer_run(np.array([current]), gate[None], n)
    assume(not run.saturated.any())
    signs = np.where(gate > n.gate_threshold, 1, -1)
    expected = gated_lif_run(np.array([current], np.float32), signs[None].astype(np.float32), parameters)
    np.testing.assert_array_equal(run.spikes, expected.spikes)
    np.testing.assert_array_equal(run.membrane, expected.membrane)
    np.testing.assert_array_equal(run.state, expected.state)


def test_theta_four_fifths_is_a_float32_share_of_every_multiple_of_five() -> None:
    for threshold in [5 * 2**k for k in range(17)] + [1297760, 655360, 20480]:
        assert float(IntegerNeuron(threshold, threshold * 4 // 5).float_parameters().soft_reset) == threshold * 4 // 5


def test_saturation_is_counted_and_holds_the_limit() -> None:
    n = IntegerNeuron(threshold=MANTISSA_LIMIT << 6, soft_reset=0)
    run = integer_run(np.array([[ACCUMULATOR_LIMIT, 0], [-ACCUMULATOR_LIMIT, -1]]), np.zeros((2, 2), dtype=int), n)
    assert run.membrane.tolist() == [[STATE_LIMIT, STATE_LIMIT], [-STATE_LIMIT, -STATE_LIMIT]]
    assert run.saturated.tolist() == [[True, False], [True, True]]
    assert run.spikes.tolist() == [[True, True], [False, False]]


def test_decay_truncates_toward_zero_on_both_sides() -> None:
    n = IntegerNeuron(threshold=100, soft_reset=80, decay=2048)
    run = integer_run(np.array([[7, 0, 0, 0], [-7, 0, 0, 0]]), np.zeros((2, 4), dtype=int), n)
    assert run.membrane.tolist() == [[7, 3, 1, 0], [-7, -3, -1, 0]]


def test_padding_holds_the_state() -> None:
    n = IntegerNeuron(threshold=10, soft_reset=8)
    valid = np.array([[True, False, True]])
    run = integer_run(np.array([[6, 99, 6]]), np.zeros((1, 3), dtype=int), n, valid=valid)
    assert run.spikes.tolist() == [[False, False, True]]
    assert run.membrane.tolist() == [[6, 6, 12]]
    assert run.state.tolist() == [4]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threshold": 0}, "threshold is 0; allowed: 1 to"),
        ({"threshold": (MANTISSA_LIMIT << 6) + 64}, "threshold is 8388608; allowed: 1 to 8388544"),
        ({"threshold": MANTISSA_LIMIT + 2}, "a mantissa of up to 131071 shifted left by 0 to 6 bits"),
        ({"threshold": 1.5}, "threshold is 1.5; allowed: an integer"),
        ({"decay": 4097}, "decay is 4097; allowed: 0 to 4096"),
        ({"decay": -1}, "decay is -1; allowed: 0 to 4096"),
        ({"shift": 7}, "shift is 7; allowed: 0 to 6"),
        ({"soft_reset": -1}, "soft_reset is -1; allowed: 0 to"),
        ({"reset_potential": 10}, "threshold is 10; allowed: above reset_potential 10"),
        ({"soft_reset": STATE_LIMIT, "threshold": 10, "reset_potential": -5}, None),
    ],
)
def test_constants_out_of_range(fields: dict[str, object], message: str | None) -> None:
    values: dict[str, object] = {"threshold": 10, "soft_reset": 8, **fields}
    if message is None:
        IntegerNeuron(**values)  # type: ignore[arg-type]
        return
    with pytest.raises(ValueError, match=message):
        IntegerNeuron(**values)  # type: ignore[arg-type]


def test_inputs_out_of_range() -> None:
    n, gate = IntegerNeuron(10, 8), np.zeros((1, 1), dtype=int)
    with pytest.raises(ValueError, match="32 bits"):
        integer_run(np.array([[2**31]]), gate, n)
    with pytest.raises(ValueError, match="allowed: integers"):
        integer_run(np.array([[1.0]]), gate, n)
    with pytest.raises(ValueError, match=r"allowed: both \(B, L\)"):
        integer_run(np.array([1]), gate, n)


def test_parts_hold_every_sixteen_bit_weight_within_the_hardware_rules() -> None:
    every = np.arange(-(2**15), 2**15)
    parts = weight_parts(every)
    assert [part.exponent for part in parts] == [7, 0]
    np.testing.assert_array_equal(sum(part.weight << part.exponent for part in parts), every)
    high, low = (part.weight for part in parts)
    assert not (high & 1).any()
    assert (high.min(), high.max()) == (-256, 254)
    assert (low.min(), low.max()) == (0, 255)
    with pytest.raises(ValueError, match="weights run from 0 to 32768; allowed: -32768 to 32767"):
        weight_parts(np.array([2**15]))


@given(st.lists(st.integers(-(2**23), 2**23 - 1) | st.sampled_from([-(2**23), 2**23 - 1, 0, 255, -1]), min_size=1))
def test_three_parts_hold_every_weight_of_24_bits(weights: list[int]) -> None:
    """A payload of 256 makes up for the least exponent, and no exponent is beyond the largest."""
    parts = weight_parts(np.array(weights), WIDE_EXPONENT)
    assert all(-8 <= part.exponent <= 7 for part in parts)
    for part in parts:
        mixed = (part.weight < 0).any()
        assert not mixed or not (part.weight & 1).any()
        assert part.weight.min() >= (-256 if mixed else 0)
        assert part.weight.max() <= 255
    one_hot = 256 * np.eye(len(weights), dtype=np.int64)
    assert integer_readout(one_hot, parts).tolist() == weights


@pytest.mark.parametrize(
    ("weights", "parts"), [([0, 255, 3], 1), ([-256, 254, 2], 1), ([-1, 2], 2), ([256], 2), ([-2], 1), ([], 1)]
)
def test_one_part_where_eight_bits_hold_them(weights: list[int], parts: int) -> None:
    assert len(weight_parts(np.array(weights, dtype=np.int64))) == parts


@given(
    st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=9),
    st.integers(-7, 0),
    st.randoms(use_true_random=False),
)
def test_two_shifted_parts_are_the_shifted_sum(weights: list[int], exponent: int, random) -> None:  # type: ignore[no-untyped-def]
    """The high part is whole after its shift, so shifting the parts is shifting their sum, toward minus infinity."""
    payload = np.array([[random.randint(-500, 500) for _ in weights]])
    parts = weight_parts(np.array(weights), exponent)
    exact = int(payload[0] @ np.array(weights))
    assert integer_readout(payload, parts).tolist() == [exact >> -exponent]
    assert abs(int(integer_readout(payload, parts)[0])) <= largest_sum(np.full(len(weights), 500), parts)


def test_largest_sum_is_reached() -> None:
    part = Part(np.array([2, -4]), 3)
    assert largest_sum(np.array([10, 5]), [part]) == (2 * 10 + 4 * 5) * 8
    assert integer_readout(np.array([10, -5]), [part]) == 320


@given(st.floats(-4, 4, width=32))
def test_the_simplest_fraction_rounds_to_its_number(value: float) -> None:
    fraction = float32_fraction(value)
    if abs(value) > 1e-30:
        assert np.float32(fraction.numerator / fraction.denominator) == np.float32(value)


def test_fractions_that_people_write() -> None:
    assert [float32_fraction(v) for v in (0.8, 0.5, 1.0, 0.0, -0.25, 1 / 3, 0.85)] == [
        Fraction(4, 5),
        Fraction(1, 2),
        Fraction(1),
        Fraction(0),
        Fraction(-1, 4),
        Fraction(1, 3),
        Fraction(17, 20),
    ]


def test_representable_thresholds() -> None:
    assert representable_threshold(MANTISSA_LIMIT)
    assert representable_threshold(2 * MANTISSA_LIMIT)
    assert not representable_threshold(2 * MANTISSA_LIMIT + 1)
    assert not representable_threshold(MANTISSA_LIMIT << 7)
