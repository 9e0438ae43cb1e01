"""The fused CPU kernels of the gated-reset neuron, forward and backward; `speak_neuro.neuron.fused.dispatch` says what
they compute.

Sixteen lanes, one for each row and neuron, advance together through tiles of sixteen positions (`numba_lanes`). A
potential is a chain of dependent operations and a spike unpredictable: sixteen chains side by side, and selects where a
loop would branch, keep the processor busy.

(After a change to `numba_lanes` alone, delete the cached machine code: numba looks at the date of this file.)

Arrays come as addresses of contiguous memory: values (B, L, N) float32, `valid` (B, L) bytes, states (B, N), constants
(5, 1) or (5, N). Lane number b * N + n stands for neuron n of row b. Importing this module imports numba.
"""

# Numba infers the types inside a kernel.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types

from speak_neuro.neuron.fused.numba_simd import (
    LANES,
    STEPS,
    TILE,
    accumulate,
    bytes_at,
    doubles_at,
    floats_at,
    load,
    new_sums,
    new_tile,
    power_of_two,
    select,
    splat,
    store,
    transpose,
    truncate,
)

logger = logging.getLogger(__name__)

GATED = -1
"""The gate rule that reads the gate logits. Any other is the one value that stands for all of them."""


def compiled(*signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a kernel. The machine code is cached on disk where a place for it can be written: next to this file, else
    in the user's cache folder, or where NUMBA_CACHE_DIR says."""

    def decorate(kernel: Callable[..., Any]) -> Any:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}
        try:
            return numba.njit(*signature, cache=True, **options)(kernel)
        except RuntimeError:  # no writable place
            logger.info("no writable folder for compiled kernels (set NUMBA_CACHE_DIR); compiling in every process")
            return numba.njit(*signature, cache=False, **options)(kernel)

    return decorate


@compiled()
def origin(lane, length, neurons):
    """Where the lane's first position lies in (B, L, N)."""
    row = lane // neurons
    return row * length * neurons + lane - row * neurons


@compiled()
def fill(tile, value):
    for at in range(0, TILE, LANES):
        store(tile, at, splat(np.float32(value)))


@compiled()
def load_tile(source, lane, lanes, length, neurons, at, steps, tile):
    """Positions at..at+steps of lanes lane..lane+lanes into `tile`: entry [t, i] is position at + t of lane + i."""
    start = origin(lane, length, neurons) + at * neurons
    if neurons == 1 and lanes == LANES and steps == STEPS:
        transpose(source, start, length, tile, 0, LANES)
    elif neurons > 1 and lanes == LANES and lane % neurons + LANES <= neurons:
        for t in range(steps):
            store(tile, t * LANES, load(source, start + t * neurons))
    else:
        for i in range(lanes):
            start = origin(lane + i, length, neurons) + at * neurons
            for t in range(steps):
                tile[t * LANES + i] = source[start + t * neurons]


@compiled()
def store_tile(tile, lane, lanes, length, neurons, at, steps, target):
    """The inverse of `load_tile`."""
    start = origin(lane, length, neurons) + at * neurons
    if neurons == 1 and lanes == LANES and steps == STEPS:
        transpose(tile, 0, LANES, target, start, length)
    elif neurons > 1 and lanes == LANES and lane % neurons + LANES <= neurons:
        for t in range(steps):
            store(target, start + t * neurons, load(tile, t * LANES))
    else:
        for i in range(lanes):
            start = origin(lane + i, length, neurons) + at * neurons
            for t in range(steps):
                target[start + t * neurons] = tile[t * LANES + i]


@compiled()
def load_mask(valid, lane, lanes, length, neurons, at, steps, tile):
    """`load_tile` of the mask (B, L), as 1 and 0."""
    for i in range(lanes):
        start = (lane + i) // neurons * length + at
        for t in range(steps):
            tile[t * LANES + i] = np.float32(valid[start + t] != 0)


@compiled()
def load_constant(constants, which, columns, lane, lanes, scratch):
    """Row `which` of the constants (5, columns), for each lane its neuron's."""
    for i in range(lanes):
        scratch[i] = constants[which * columns + (lane + i) % columns]
    return load(scratch, 0)


@compiled()
def load_lanes(values, lane, lanes, scratch):
    for i in range(lanes):
        scratch[i] = values[lane + i]
    return load(scratch, 0)


@compiled()
def store_lanes(values, lane, lanes, scratch, given):
    store(scratch, 0, given)
    for i in range(lanes):
        values[lane + i] = scratch[i]


@compiled()
def surrogate(u, threshold, slope):
    """slope * e / (1 + e)^2 with e = exp(-|x|), x = slope (u - threshold): the derivative of sig(x).

    e = 2^whole * 2^part with |part| <= 1/2, to a relative error of about 1e-6.
    """
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    x = slope * (u - threshold) * splat(np.float32(1.4426950408889634))
    x = select(x > zero, zero - x, x)
    lowest = splat(np.float32(-126))
    x = select(x > lowest, x, lowest)
    whole = truncate(x - splat(np.float32(0.5)))
    part = x - whole
    power = splat(np.float32(1.5403530e-4))
    power = power * part + splat(np.float32(1.3333558e-3))
    power = power * part + splat(np.float32(9.6181291e-3))
    power = power * part + splat(np.float32(5.5504109e-2))
    power = power * part + splat(np.float32(2.4022651e-1))
    power = power * part + splat(np.float32(6.9314718e-1))
    power = power * part + one
    e = power * power_of_two(whole)
    return slope * e / ((one + e) * (one + e))


_address, _count, _flag = types.int64, types.int64, types.boolean


@compiled(types.void(*[_address] * 7, *[_count] * 6, _flag))
def forward(
    current, gate, valid, constants, state, spikes, membrane, first, last, length, neurons, columns, rule, masked
):
    """Lanes first..last: fills `spikes` and `membrane`, and carries `state` from before to after the sequence."""
    current, gate, valid, constants = floats_at(current), floats_at(gate), bytes_at(valid), floats_at(constants)
    state, spikes, membrane = floats_at(state), floats_at(spikes), floats_at(membrane)
    potentials, gates, real, outputs, scratch = new_tile(), new_tile(), new_tile(), new_tile(), new_tile()
    for tile in (potentials, real, scratch):
        fill(tile, 0)
    fill(gates, rule)
    zero, one = splat(np.float32(0)), splat(np.float32(1))

    for lane in range(first, last, LANES):
        lanes = min(LANES, last - lane)
        decay = load_constant(constants, 0, columns, lane, lanes, scratch)
        gain = load_constant(constants, 1, columns, lane, lanes, scratch)
        threshold = load_constant(constants, 2, columns, lane, lanes, scratch)
        reset_potential = load_constant(constants, 3, columns, lane, lanes, scratch)
        soft_reset = load_constant(constants, 4, columns, lane, lanes, scratch)
        v = load_lanes(state, lane, lanes, scratch)
        for at in range(0, length, STEPS):
            steps = min(STEPS, length - at)
            load_tile(current, lane, lanes, length, neurons, at, steps, potentials)
            if rule == GATED:
                load_tile(gate, lane, lanes, length, neurons, at, steps, gates)
            if masked:
                load_mask(valid, lane, lanes, length, neurons, at, steps, real)
            for t in range(0, steps * LANES, LANES):
                u = decay * v + gain * load(potentials, t)
                fired = u >= threshold
                after = select(load(gates, t) > zero, reset_potential, u - soft_reset)
                after = select(fired, after, u)
                spike = select(fired, one, zero)
                if masked:
                    here = load(real, t) > zero
                    u, after, spike = select(here, u, v), select(here, after, v), select(here, spike, zero)
                v = after
                store(potentials, t, u)
                store(outputs, t, spike)
            store_tile(potentials, lane, lanes, length, neurons, at, steps, membrane)
            store_tile(outputs, lane, lanes, length, neurons, at, steps, spikes)
        store_lanes(state, lane, lanes, scratch, v)


@compiled(types.void(*[_address] * 12, *[_count] * 6, *[_flag] * 6, types.float32, types.float32))
def backward(
    current, gate, valid, constants, initial, membrane, grad_spikes, grad_membrane, carried, grad_current, sums,
    grad_gate, first, last, length, neurons, columns, rule,
    masked, from_spikes, from_membrane, detached, sum_constants, through_gate, surrogate_slope, gate_slope,
):  # fmt: skip
    """Lanes first..last, in reverse: fills `grad_current`, takes `carried` from the final to the initial state's
    gradient and, if asked, puts the constants' gradients into `sums` (B * N, 5) float64, and the gate's, straight
    through, into `grad_gate`."""
    current, gate, valid, constants = floats_at(current), floats_at(gate), bytes_at(valid), floats_at(constants)
    initial, membrane = floats_at(initial), floats_at(membrane)
    grad_spikes, grad_membrane = floats_at(grad_spikes), floats_at(grad_membrane)
    carried, grad_current, sums = floats_at(carried), floats_at(grad_current), doubles_at(sums)
    grad_gate, gate_gradients = floats_at(grad_gate), new_tile()
    potentials, gates, real, scratch = new_tile(), new_tile(), new_tile(), new_tile()
    spike_gradients, membrane_gradients, currents = new_tile(), new_tile(), new_tile()
    sum_decay, sum_gain, sum_threshold, sum_reset, sum_soft = new_sums(), new_sums(), new_sums(), new_sums(), new_sums()
    for tile in (potentials, real, scratch, spike_gradients, membrane_gradients, currents):
        fill(tile, 0)  # an absent gradient stays zero
    fill(gates, rule)
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    slope, slope_of_gate = splat(surrogate_slope), splat(gate_slope)

    for lane in range(first, last, LANES):
        lanes = min(LANES, last - lane)
        decay = load_constant(constants, 0, columns, lane, lanes, scratch)
        gain = load_constant(constants, 1, columns, lane, lanes, scratch)
        threshold = load_constant(constants, 2, columns, lane, lanes, scratch)
        reset_potential = load_constant(constants, 3, columns, lane, lanes, scratch)
        soft_reset = load_constant(constants, 4, columns, lane, lanes, scratch)
        grad_state = load_lanes(carried, lane, lanes, scratch)
        following = zero  # dL/du at the next real position
        for total_of in (sum_decay, sum_gain, sum_threshold, sum_reset, sum_soft):
            for i in range(LANES):
                total_of[i] = 0.0
        for tile_number in range((length - 1) // STEPS, -1, -1):
            at = tile_number * STEPS
            steps = min(STEPS, length - at)
            load_tile(membrane, lane, lanes, length, neurons, at, steps, potentials)
            if rule == GATED:
                load_tile(gate, lane, lanes, length, neurons, at, steps, gates)
            if from_spikes:
                load_tile(grad_spikes, lane, lanes, length, neurons, at, steps, spike_gradients)
            if from_membrane:
                load_tile(grad_membrane, lane, lanes, length, neurons, at, steps, membrane_gradients)
            if sum_constants:
                load_tile(current, lane, lanes, length, neurons, at, steps, currents)
            if masked:
                load_mask(valid, lane, lanes, length, neurons, at, steps, real)
            for t in range((steps - 1) * LANES, -1, -LANES):
                u = load(potentials, t)
                hard, fired = load(gates, t) > zero, u >= threshold
                sigma = surrogate(u, threshold, slope)
                jump = select(hard, reset_potential - u, zero - soft_reset)
                # dL/du = direct + factor * dL/dv, in this form because the chain of dependent operations is shortest
                direct = sigma * load(spike_gradients, t) + load(membrane_gradients, t)
                factor = select(hard & fired, zero, one)
                if not detached:
                    factor = factor + sigma * jump
                total = direct + factor * grad_state
                before = decay * direct + (decay * factor) * grad_state
                grad_input = gain * total
                if masked:
                    here = load(real, t) > zero
                    total, grad_input = select(here, total, zero), select(here, grad_input, zero)
                    before = select(here, before, grad_state + load(membrane_gradients, t))
                if sum_constants:
                    v = select(fired, select(hard, reset_potential, u - soft_reset), u)
                    of_spike = load(spike_gradients, t)
                    of_spike = of_spike if detached else of_spike + jump * grad_state
                    of_reset = select(fired, grad_state, zero)
                    by_decay, by_gain, by_threshold = v * following, load(currents, t) * total, sigma * of_spike
                    by_reset, by_soft = select(hard, of_reset, zero), select(hard, zero, of_reset)
                    if masked:
                        following = select(here, total, following)
                        by_decay, by_gain = select(here, by_decay, zero), select(here, by_gain, zero)
                        by_threshold = select(here, by_threshold, zero)
                        by_reset, by_soft = select(here, by_reset, zero), select(here, by_soft, zero)
                    else:
                        following = total
                    accumulate(sum_decay, by_decay)
                    accumulate(sum_gain, by_gain)
                    accumulate(sum_threshold, by_threshold)
                    accumulate(sum_reset, by_reset)
                    accumulate(sum_soft, by_soft)
                if through_gate:
                    by_gate = (reset_potential - (u - soft_reset)) * surrogate(load(gates, t), zero, slope_of_gate)
                    by_gate = select(fired, by_gate * grad_state, zero)
                    if masked:
                        by_gate = select(here, by_gate, zero)
                    store(gate_gradients, t, by_gate)
                grad_state = before
                store(potentials, t, grad_input)
            store_tile(potentials, lane, lanes, length, neurons, at, steps, grad_current)
            if through_gate:
                store_tile(gate_gradients, lane, lanes, length, neurons, at, steps, grad_gate)
        store_lanes(carried, lane, lanes, scratch, grad_state)
        if sum_constants:
            accumulate(sum_decay, load_lanes(initial, lane, lanes, scratch) * following)
            for i in range(lanes):
                place = (lane + i) * 5
                sums[place], sums[place + 1], sums[place + 2] = sum_decay[i], sum_gain[i], -sum_threshold[i]
                sums[place + 3], sums[place + 4] = sum_reset[i], -sum_soft[i]
