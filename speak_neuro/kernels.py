"""The fused CPU kernel of the gated-reset neuron: one pass over the sequence forward, one reverse pass backward.

The arithmetic of the forward pass is that of `speak_neuro.reference`, operation by operation, and gives the same bits.
Numba's fast math stays off: LLVM must neither contract a product and a sum into one rounding nor reassociate.

Backward, with sigma'_t the surrogate's slope at u_t, k = surrogate_slope, and G the gradients of the outputs:

    sigma'_t = k * sig(x) * sig(-x),  x = k * (u_t - threshold)
    jump_t   = reset_potential - u_t  where m_t = 1,   -soft_reset  where m_t = 0        what a spike adds to v
    keep_t   = 0 where s_t = m_t = 1, else 1                                             dv/du with s held
    w_t      = G^s_t + jump_t * dL/dv_t    (detached reset: G^s_t alone)                 dL/ds_t
    dL/du_t  = G^u_t + keep_t * dL/dv_t + sigma'_t * w_t
    dL/dv_{t-1} = decay * dL/du_t,   dL/dI_t = gain * dL/du_t
    dL/d decay += v_{t-1} dL/du_t,   dL/d gain += I_t dL/du_t,   dL/d threshold -= sigma'_t * w_t
    dL/d reset_potential += s_t m_t dL/dv_t,   dL/d soft_reset -= s_t (1 - m_t) dL/dv_t

At a masked position v and u are the carried state, so dL/dv_{t-1} = dL/dv_t + G^u_t and nothing else receives a
gradient.
Only the membrane is stored between the passes: spikes and carried states are recomputed from it, exactly.

Layout: everything is seen as (B * L, N) matrices, row-major; (B, L) inputs are N = 1.
"""

# Numba infers the types inside a kernel, and takes no annotations on inner functions.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

logger = logging.getLogger(__name__)

THREAD_MINIMUM = 1 << 20
"""Positions x neurons from which starting threads pays; a call below it takes a few milliseconds on one core."""


class Settings(NamedTuple):
    """What the kernel needs besides arrays."""

    gate_rule: bool | None
    """None: the gate logit decides between the resets; True: always hard; False: never hard."""
    surrogate_slope: float
    detach_reset: bool


@functools.cache
def numba_available() -> bool:
    return importlib.util.find_spec("numba") is not None


def _forward(current, gate, valid, constants, state, spikes, membrane, first, last, length, always_hard, gated, masked):
    """Rows first..last: fills `spikes` and `membrane`, and carries `state` (B, N) from before to after the sequence."""
    zero = np.float32(0)
    one = np.float32(1)
    neurons = current.shape[1]

    # In both loops every choice by the data is one comparison between two computed values, which compiles to a select:
    # spikes are unpredictable, and a branch on them would take longer than all the rest. (A shared inner function
    # brings the branches back.) A choice by the mode may branch: it always goes the same way.
    if neurons == 1:
        decay, gain, threshold = constants[0, 0], constants[1, 0], constants[2, 0]
        reset_potential, soft_reset = constants[3, 0], constants[4, 0]
        # One row is a chain of dependent operations; four rows at a time keep the processor busy meanwhile.
        for group in range(first, last, 4):
            rows = min(4, last - group)
            for t in range(length):
                for row in range(group, group + rows):
                    i = row * length + t
                    u = decay * state[row, 0] + gain * current[i, 0]
                    lowered = u - soft_reset
                    if_open = reset_potential if always_hard or gated else lowered
                    if_shut = reset_potential if always_hard else lowered
                    after = if_open if gate[i, 0] > zero else if_shut
                    after = after if u >= threshold else u
                    spike = one if u >= threshold else zero
                    if masked and valid[i] == 0:
                        u, spike, after = state[row, 0], zero, state[row, 0]
                    membrane[i, 0] = u
                    spikes[i, 0] = spike
                    state[row, 0] = after
    else:
        decays, gains, thresholds = constants[0], constants[1], constants[2]
        reset_potentials, soft_resets = constants[3], constants[4]
        carried = np.empty(neurons, np.float32)
        for row in range(first, last):
            carried[:] = state[row]
            for i in range(row * length, (row + 1) * length):
                if masked and valid[i] == 0:
                    membrane[i] = carried
                    spikes[i] = zero
                    continue
                for n in range(neurons):
                    u = decays[n] * carried[n] + gains[n] * current[i, n]
                    lowered = u - soft_resets[n]
                    if_open = reset_potentials[n] if always_hard or gated else lowered
                    if_shut = reset_potentials[n] if always_hard else lowered
                    after = if_open if gate[i, n] > zero else if_shut
                    carried[n] = after if u >= thresholds[n] else u
                    membrane[i, n] = u
                    spikes[i, n] = one if u >= thresholds[n] else zero
            state[row] = carried


def _backward(
    current, gate, valid, constants, initial, membrane, grad_spikes, grad_membrane, carried, grad_current, sums,
    first, last, length, always_hard, gated, masked, from_spikes, from_membrane, detached, sum_constants, slope,
):  # fmt: skip
    """Rows first..last, in reverse: fills `grad_current`, takes `carried` (B, N) from the final to the initial state's
    gradient and, if asked, adds the constants' gradients to `sums` (B, 5, N)."""
    zero = np.float32(0)
    one = np.float32(1)
    neurons = current.shape[1]

    def surrogate(u, threshold):
        """slope * e / (1 + e)^2 with e = exp(-|x|) = 2^whole * 2^part, |part| <= 1/2, relative error about 1e-6.
        Written out because a library call would keep the loop from being vectorised."""
        x = slope * (u - threshold) * np.float32(1.4426950408889634)
        x = -x if x > zero else x
        x = x if x > np.float32(-126) else np.float32(-126)
        whole = np.int32(x - np.float32(0.5))
        part = x - np.float32(whole)
        power = np.float32(1.5403530e-4)
        power = power * part + np.float32(1.3333558e-3)
        power = power * part + np.float32(9.6181291e-3)
        power = power * part + np.float32(5.5504109e-2)
        power = power * part + np.float32(2.4022651e-1)
        power = power * part + np.float32(6.9314718e-1)
        power = power * part + one
        e = power * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)
        return slope * e / ((one + e) * (one + e))

    # One row's constants, repeated for every position, so that the first loop below runs over plain vectors.
    size = length * neurons
    tiled = np.empty((3, size), np.float32)
    for k in range(size):
        for c in range(3):
            tiled[c, k] = constants[2 + c, k % neurons]
    thresholds, reset_potentials, soft_resets = tiled[0], tiled[1], tiled[2]
    sigmas = np.empty(size, np.float32)
    direct = np.empty(size, np.float32)
    factor = np.empty(size, np.float32)
    before = np.empty(neurons, np.float32)
    sum_decay, sum_gain, sum_threshold = np.zeros(neurons), np.zeros(neurons), np.zeros(neurons)
    sum_reset, sum_soft = np.zeros(neurons), np.zeros(neurons)

    for row in range(first, last):
        begin = row * length
        end = begin + length
        potentials = membrane[begin:end].reshape(size)
        logits = gate[begin:end].reshape(size)
        wanted = grad_spikes[begin:end].reshape(size)
        membrane_gradients = grad_membrane[begin:end].reshape(size)
        for k in range(size):  # dL/du_t = direct + factor * dL/dv_t
            u = potentials[k]
            sigma = surrogate(u, thresholds[k])
            hard = always_hard or (gated and logits[k] > zero)
            jump = reset_potentials[k] - u if hard else -soft_resets[k]
            onward = sigma * (wanted[k] if from_spikes else zero)
            sigmas[k] = sigma
            direct[k] = onward + (membrane_gradients[k] if from_membrane else zero)
            keep = zero if hard and u >= thresholds[k] else one
            factor[k] = keep if detached else keep + sigma * jump

        # The reverse recurrence; afterwards direct and factor hold dL/du_t and dL/dv_t.
        if neurons == 1:
            decay, gain = constants[0, 0], constants[1, 0]
            grad_state = carried[row, 0]
            for t in range(length - 1, -1, -1):
                if masked and valid[begin + t] == 0:
                    grad_current[begin + t, 0] = zero
                    if from_membrane:
                        grad_state += membrane_gradients[t]
                else:
                    total = direct[t] + factor[t] * grad_state
                    following = (decay * direct[t]) + (decay * factor[t]) * grad_state  # the shortest dependent chain
                    direct[t] = total
                    factor[t] = grad_state
                    grad_current[begin + t, 0] = gain * total
                    grad_state = following
            carried[row, 0] = grad_state
        else:
            for t in range(length - 1, -1, -1):
                if masked and valid[begin + t] == 0:
                    for n in range(neurons):
                        grad_current[begin + t, n] = zero
                        if from_membrane:
                            carried[row, n] += grad_membrane[begin + t, n]
                else:
                    here = slice(t * neurons, (t + 1) * neurons)
                    direct_here, factor_here = direct[here], factor[here]
                    for n in range(neurons):
                        total = direct_here[n] + factor_here[n] * carried[row, n]
                        direct_here[n] = total
                        factor_here[n] = carried[row, n]
                        grad_current[begin + t, n] = constants[1, n] * total
                        carried[row, n] = constants[0, n] * total

        if sum_constants:
            before[:] = initial[row]
            for t in range(length):
                if masked and valid[begin + t] == 0:
                    continue  # the carried potential, `before`, stays too
                here = slice(t * neurons, (t + 1) * neurons)
                u_here, logit_here, wanted_here, sigma_here = potentials[here], logits[here], wanted[here], sigmas[here]
                total_here, state_here, drive_here = direct[here], factor[here], current[begin + t]
                for n in range(neurons):
                    u = u_here[n]
                    fired = u >= thresholds[n]
                    hard = always_hard or (gated and logit_here[n] > zero)
                    jump = reset_potentials[n] - u if hard else -soft_resets[n]
                    onward = wanted_here[n] if from_spikes else zero
                    onward = onward if detached else onward + jump * state_here[n]
                    of_reset = state_here[n] if fired else zero
                    sum_decay[n] += before[n] * total_here[n]
                    sum_gain[n] += drive_here[n] * total_here[n]
                    sum_threshold[n] -= sigma_here[n] * onward
                    sum_reset[n] += of_reset if hard else zero
                    sum_soft[n] -= zero if hard else of_reset
                    after = reset_potentials[n] if hard else u - soft_resets[n]
                    before[n] = after if fired else u
            sums[row, 0], sums[row, 1], sums[row, 2] = sum_decay, sum_gain, sum_threshold
            sums[row, 3], sums[row, 4] = sum_reset, sum_soft
            sum_decay[:], sum_gain[:], sum_threshold[:], sum_reset[:], sum_soft[:] = 0, 0, 0, 0, 0


@functools.cache
def _compiled() -> tuple[Callable[..., None], Callable[..., None]]:
    """Both kernels, compiled on first use. The machine code is cached on disk where a place for it can be written:
    next to this file, else in the user's cache folder, or where NUMBA_CACHE_DIR says."""
    import numba

    def compile_kernel(kernel: Callable[..., None]) -> Callable[..., None]:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}
        try:
            return numba.njit(cache=True, **options)(kernel)
        except RuntimeError:  # no writable place
            logger.info("no writable folder for compiled kernels (set NUMBA_CACHE_DIR); compiling in every process")
            return numba.njit(cache=False, **options)(kernel)

    return compile_kernel(_forward), compile_kernel(_backward)


def _over_rows(rows: int, size: int, call: Callable[[int, int], None]) -> None:
    """`call(first, last)` over all rows; by several threads when the work repays starting them. A row is computed
    by one thread alone, so the result does not depend on their number."""
    threads = min(torch.get_num_threads(), rows) if size >= THREAD_MINIMUM else 1
    if threads <= 1:
        call(0, rows)
        return
    # A pool per call: a lasting one would not survive a fork.
    edges = [rows * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(call, *edge) for edge in itertools.pairwise(edges)]:
            done.result()


def _matrix(tensor: Tensor, neurons: int) -> Any:
    """The tensor's memory as a (B * L, N) numpy array; copied only if it isn't contiguous."""
    return tensor.detach().contiguous().numpy().reshape(-1, neurons)


def _mask(valid: Tensor | None) -> Any:
    if valid is None:
        return np.empty(0, np.uint8)
    return valid.contiguous().view(torch.uint8).numpy().reshape(-1)


class _Layout(NamedTuple):
    rows: int
    length: int
    neurons: int

    @staticmethod
    def of(current: Tensor) -> _Layout:
        return _Layout(current.shape[0], current.shape[1], current.shape[2] if current.dim() == 3 else 1)


def _run_forward(
    current: Tensor, gate_logit: Tensor, state: Tensor, valid: Tensor | None, constants: Tensor, settings: Settings
) -> tuple[Tensor, Tensor, Tensor]:
    rows, length, neurons = _Layout.of(current)
    spikes = torch.empty(current.shape)
    membrane = torch.empty(current.shape)
    carried = state.detach().clone(memory_format=torch.contiguous_format)
    arrays = (
        _matrix(current, neurons),
        _matrix(gate_logit, neurons),
        _mask(valid),
        constants.detach().expand(5, neurons).contiguous().numpy(),
        carried.numpy().reshape(rows, neurons),
        spikes.numpy().reshape(-1, neurons),
        membrane.numpy().reshape(-1, neurons),
    )
    rule = settings.gate_rule
    options = (length, rule is True, rule is None, valid is not None)
    kernel = _compiled()[0]
    _over_rows(rows, current.numel(), lambda first, last: kernel(*arrays, first, last, *options))
    return spikes, membrane, carried


class _FusedScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        gate_logit: Tensor,
        state: Tensor,
        valid: Tensor | None,
        constants: Tensor,
        settings: Settings,
    ) -> tuple[Tensor, Tensor, Tensor]:
        spikes, membrane, carried = _run_forward(current, gate_logit, state, valid, constants, settings)
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(current, gate_logit, state, valid, constants, membrane)
        return spikes, membrane, carried

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_spikes: Tensor | None, grad_membrane: Tensor | None, grad_state: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        current, gate_logit, state, valid, constants, membrane = ctx.saved_tensors
        settings: Settings = ctx.settings
        rows, length, neurons = _Layout.of(current)
        sum_constants = ctx.needs_input_grad[4]
        sums = torch.zeros((rows, 5, neurons) if sum_constants else (0, 5, neurons), dtype=torch.float64)
        grad_current = torch.empty(current.shape)
        if grad_state is None:
            carried = torch.zeros(state.shape)
        else:
            carried = grad_state.clone(memory_format=torch.contiguous_format)
        potentials = _matrix(membrane, neurons)  # also stands in for an absent gradient, which is never read
        arrays = (
            _matrix(current, neurons),
            _matrix(gate_logit, neurons),
            _mask(valid),
            constants.detach().expand(5, neurons).contiguous().numpy(),
            _matrix(state, neurons),
            potentials,
            potentials if grad_spikes is None else _matrix(grad_spikes, neurons),
            potentials if grad_membrane is None else _matrix(grad_membrane, neurons),
            carried.numpy().reshape(rows, neurons),
            grad_current.numpy().reshape(-1, neurons),
            sums.numpy(),
        )
        rule = settings.gate_rule
        options = (
            length,
            rule is True,
            rule is None,
            valid is not None,
            grad_spikes is not None,
            grad_membrane is not None,
            settings.detach_reset,
            sum_constants,
            np.float32(settings.surrogate_slope),
        )
        kernel = _compiled()[1]
        _over_rows(rows, current.numel(), lambda first, last: kernel(*arrays, first, last, *options))
        grad_constants = None
        if sum_constants:
            grad_constants = sums.sum(0).to(torch.float32)
            if constants.shape[1] == 1:
                grad_constants = grad_constants.sum(1, keepdim=True)
        return grad_current, None, carried, None, grad_constants, None


def fused_scan(
    current: Tensor, gate_logit: Tensor, state: Tensor, valid: Tensor | None, constants: Tensor, settings: Settings
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes and membrane (B, L) or (B, L, N) and the final state (B,) or (B, N), all float32 on the CPU.

    `constants` has the rows decay, gain, threshold, reset_potential, soft_reset and one column, or one per neuron.
    """
    if torch.is_grad_enabled() and (current.requires_grad or state.requires_grad or constants.requires_grad):
        result: tuple[Tensor, Tensor, Tensor] = _FusedScan.apply(current, gate_logit, state, valid, constants, settings)
        return result
    return _run_forward(current, gate_logit, state, valid, constants, settings)
