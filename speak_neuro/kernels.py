"""The fused scan of the gated-reset neuron: one pass over the sequence forward, one reverse pass backward.

The arithmetic of the forward pass is that of `speak_neuro.reference`, operation by operation, and gives the same bits:
no kernel contracts a product and a sum into one rounding, or reassociates.

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

Two engines do this: `numba_kernels` on the CPU, `triton_kernels` on CUDA devices. Each is imported on first use.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

THREAD_MINIMUM = 1 << 20
"""Positions x neurons from which starting threads pays; a call below it takes a millisecond on one core."""


_RULES = {None: -1, True: 1, False: 0}
"""A gate rule as the kernels' number; -1 is `numba_kernels.GATED`, the others are gate logits that say the same."""
_LANES = 16
"""`numba_lanes.LANES`, not imported for its own sake: numba takes a second to load."""


class Settings(NamedTuple):
    """What the scan needs besides tensors."""

    gate_rule: bool | None
    """None: the gate logit decides between the resets; True: always hard; False: never hard."""
    surrogate_slope: float
    detach_reset: bool
    backend: str = "numba"


class ScanInputs(NamedTuple):
    """What both passes read, on one device; contiguous where the engine asks for it."""

    current: Tensor
    """I, (B, L) or (B, L, N) float32, as is the gate."""
    gate_logit: Tensor
    state: Tensor
    """v before the first position, (B,) or (B, N)."""
    valid: Tensor | None
    """(B, L) bool, False at padding."""
    constants: Tensor
    """Rows decay, gain, threshold, reset_potential, soft_reset; (5, 1), or (5, N) with one column per neuron."""

    @property
    def neurons(self) -> int:
        return self.current.shape[2] if self.current.dim() == 3 else 1


class Gradients(NamedTuple):
    """Of the inputs."""

    current: Tensor
    state: Tensor
    constants: Tensor | None
    """(5, 1) or (5, N); None when not asked for."""


@functools.cache
def numba_available() -> bool:
    return importlib.util.find_spec("numba") is not None


@functools.cache
def triton_available() -> bool:
    return importlib.util.find_spec("triton") is not None


def fused_scan(
    current: Tensor, gate_logit: Tensor, state: Tensor, valid: Tensor | None, constants: Tensor, settings: Settings
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes and membrane (B, L) or (B, L, N) and the final state (B,) or (B, N), by the engine `settings` names."""
    if torch.is_grad_enabled() and (current.requires_grad or state.requires_grad or constants.requires_grad):
        result: tuple[Tensor, Tensor, Tensor] = _FusedScan.apply(current, gate_logit, state, valid, constants, settings)
        return result
    return _engine(settings)[0](ScanInputs(current, gate_logit, state, valid, constants), settings)


class _FusedScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        settings: Settings = arguments[5]
        inputs = ScanInputs(*arguments[:5])
        spikes, membrane, carried = _engine(settings)[0](inputs, settings)
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, membrane)
        return spikes, membrane, carried

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        *given, membrane = ctx.saved_tensors
        inputs = ScanInputs(*given)
        found = _engine(ctx.settings)[1](inputs, membrane, *outputs, ctx.settings, ctx.needs_input_grad[4])
        return found.current, None, found.state, None, found.constants, None


def _engine(settings: Settings) -> tuple[Callable[..., tuple[Tensor, Tensor, Tensor]], Callable[..., Gradients]]:
    """The two passes: (inputs, settings) -> spikes, membrane, state, and
    (inputs, membrane, grad_spikes, grad_membrane, grad_state, settings, sum_constants) -> Gradients."""
    if settings.backend == "numba":
        return _numba_forward, _numba_backward
    from speak_neuro import triton_kernels

    return triton_kernels.run_forward, triton_kernels.run_backward


def _numba_forward(inputs: ScanInputs, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    kernel = _numba_kernels().forward
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
    _over_lanes(carried.numel(), current.numel(), lambda first, last: kernel(*addresses, first, last, *sizes))
    return spikes, membrane, carried


def _numba_backward(
    inputs: ScanInputs,
    membrane: Tensor,
    grad_spikes: Tensor | None,
    grad_membrane: Tensor | None,
    grad_state: Tensor | None,
    settings: Settings,
    sum_constants: bool,
) -> Gradients:
    kernel = _numba_kernels().backward
    current, gate_logit, state, valid, constants = _dense(inputs)
    grad_spikes, grad_membrane = (None if g is None else g.contiguous() for g in (grad_spikes, grad_membrane))
    carried = torch.zeros_like(state) if grad_state is None else grad_state.clone(memory_format=torch.contiguous_format)
    grad_current = torch.empty_like(current)
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
        settings.surrogate_slope,
    )
    _over_lanes(state.numel(), current.numel(), lambda first, last: kernel(*addresses, first, last, *options))
    if not sum_constants:
        return Gradients(grad_current, carried, None)
    by_neuron = sums.reshape(-1, inputs.neurons, 5).sum(0)
    if constants.shape[1] == 1:
        by_neuron = by_neuron.sum(0, keepdim=True)
    return Gradients(grad_current, carried, by_neuron.t().to(torch.float32))


@functools.cache
def _numba_kernels() -> Any:
    from speak_neuro import numba_kernels

    return numba_kernels


def _dense(inputs: ScanInputs) -> ScanInputs:
    """The kernels take addresses of contiguous memory."""
    if all(tensor is None or tensor.is_contiguous() for tensor in inputs):
        return inputs
    current, gate_logit, state, valid, constants = inputs
    valid = None if valid is None else valid.contiguous()
    return ScanInputs(current.contiguous(), gate_logit.contiguous(), state.contiguous(), valid, constants.contiguous())


def _over_lanes(lanes: int, size: int, call: Callable[[int, int], None]) -> None:
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
