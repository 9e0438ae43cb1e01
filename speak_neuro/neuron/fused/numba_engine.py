"""The numba engine of the fused scan: how a call is laid out for the compiled loops, on one thread or several."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from speak_neuro.neuron.fused.interface import Gradients, ScanInputs, Settings

THREAD_MINIMUM = 1 << 20
"""Positions x neurons from which starting threads pays; a call below it takes a millisecond on one core."""
_RULES = {None: -1, True: 1, False: 0}
"""A gate rule as the kernels' number; -1 is `numba_kernels.GATED`, the others are gate logits that say the same."""
_LANES = 16
"""`numba_lanes.LANES`, not imported for its own sake: numba takes a second to load."""


def run_forward(inputs: ScanInputs, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    kernel = _kernels().forward
    current, gate_logit, state, valid, constants = _dense(inputs)
    spikes, membrane, carried = torch.empty_like(current), torch.empty_like(current), state.detach().clone()
    addresses = (
        current.data_ptr(),
        gate_logit.data_ptr(),
        0 if valid is None else valid.data_ptr(),
        constants.data_ptr(),
        carried.data_ptr(),
        spikes.data_ptr(),
        membrane.data_ptr(),
    )
    sizes = (current.shape[1], inputs.neurons, constants.shape[1], _RULES[settings.gate_rule], valid is not None)
    over_lanes(carried.numel(), current.numel(), lambda first, last: kernel(*addresses, first, last, *sizes))
    return spikes, membrane, carried


def run_backward(
    inputs: ScanInputs,
    membrane: Tensor,
    grad_spikes: Tensor | None,
    grad_membrane: Tensor | None,
    grad_state: Tensor | None,
    settings: Settings,
    sum_constants: bool,
) -> Gradients:
    kernel = _kernels().backward
    current, gate_logit, state, valid, constants = _dense(inputs)
    grad_spikes, grad_membrane = (None if g is None else g.contiguous() for g in (grad_spikes, grad_membrane))
    carried = torch.zeros_like(state) if grad_state is None else grad_state.clone(memory_format=torch.contiguous_format)
    grad_current = torch.empty_like(current)
    grad_gate = torch.empty_like(current) if settings.gate_slope else None
    sums = torch.empty((*state.shape, 5) if sum_constants else 0, dtype=torch.float64)
    addresses = (
        current.data_ptr(),
        gate_logit.data_ptr(),
        0 if valid is None else valid.data_ptr(),
        constants.data_ptr(),
        state.data_ptr(),
        membrane.data_ptr(),
        0 if grad_spikes is None else grad_spikes.data_ptr(),
        0 if grad_membrane is None else grad_membrane.data_ptr(),
        carried.data_ptr(),
        grad_current.data_ptr(),
        sums.data_ptr(),
        0 if grad_gate is None else grad_gate.data_ptr(),
    )
    options = (
        current.shape[1],
        inputs.neurons,
        constants.shape[1],
        _RULES[settings.gate_rule],
        valid is not None,
        grad_spikes is not None,
        grad_membrane is not None,
        settings.detach_reset,
        sum_constants,
        grad_gate is not None,
        settings.surrogate_slope,
        settings.gate_slope,
    )
    over_lanes(state.numel(), current.numel(), lambda first, last: kernel(*addresses, first, last, *options))
    if not sum_constants:
        return Gradients(grad_current, carried, None, grad_gate)
    by_neuron = sums.reshape(-1, inputs.neurons, 5).sum(0)
    if constants.shape[1] == 1:
        by_neuron = by_neuron.sum(0, keepdim=True)
    return Gradients(grad_current, carried, by_neuron.t().to(torch.float32), grad_gate)


@functools.cache
def _kernels() -> Any:
    from speak_neuro.neuron.fused import numba_kernels

    return numba_kernels


def _dense(inputs: ScanInputs) -> ScanInputs:
    """The kernels take addresses of contiguous memory."""
    if all(tensor is None or tensor.is_contiguous() for tensor in inputs):
        return inputs
    current, gate_logit, state, valid, constants = inputs
    valid = None if valid is None else valid.contiguous()
    return ScanInputs(current.contiguous(), gate_logit.contiguous(), state.contiguous(), valid, constants.contiguous())


def over_lanes(lanes: int, size: int, call: Callable[[int, int], None]) -> None:
    """`call(first, last)` over all lanes; by several threads when the work repays starting them. A lane is computed
    by one thread alone, so the result does not depend on their number."""
    if size < THREAD_MINIMUM or (threads := min(torch.get_num_threads(), -(-lanes // _LANES))) <= 1:
        call(0, lanes)
        return
    # A pool per call: a lasting one would not survive a fork. Cuts fall between groups of lanes.
    groups = -(-lanes // _LANES)
    edges = [min(groups * part // threads * _LANES, lanes) for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(call, *edge) for edge in itertools.pairwise(edges)]:
            done.result()
