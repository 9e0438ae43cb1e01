"""The fused GPU kernels of the gated-reset neuron, forward and backward; `speak_neuro.neuron.fused.dispatch` says what
they compute.

A program advances 32 lanes (one for each row and neuron), one per thread of a warp, through the whole sequence. What
it reads does not depend on the potential: the loads of `STEPS` positions are issued together, and memory's latency is
paid once for them all. Lanes lie side by side in memory, so each load is one transaction: sequences of few neurons are
turned to time-major order first.

The forward kernel is compiled without contraction (`enable_fp_fusion=False`: a product and a sum are two roundings), so
its bits are the reference's. The interpreter (TRITON_INTERPRET=1 before triton is imported) runs both on the CPU.
Importing this module imports triton.
"""

# Triton compiles these functions from their source, in which mypy would see calls that Python never makes.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from speak_neuro.neuron.fused.interface import Gradients, ScanInputs, Settings

LANES = 32
STEPS = tl.constexpr(16)
ADJACENT = 32
"""Neurons from which the lanes of a row lie side by side often enough without time-major order."""

HARD, SOFT, GATED = tl.constexpr(1), tl.constexpr(0), tl.constexpr(-1)


@triton.jit
def load_steps(pointer, place, first, length, stride, live):
    """Positions first..first+STEPS of every lane, as a tuple; 0 beyond the sequence."""
    values = ()
    for i in tl.static_range(STEPS):
        value = tl.load(pointer + place + (first + i) * stride, live & (first + i < length), 0)
        values = values + (value,)  # type: ignore[assignment]  # noqa: RUF005  (triton knows no unpacking)
    return values


@triton.jit
def load_constant(constants, which: tl.constexpr, columns, lane, live):
    return tl.load(constants + which * columns + lane % columns, live, 0.0)


@triton.jit
def forward_kernel(
    current, gate, valid, constants, state, spikes, membrane, carried,
    lanes, length, neurons, columns, row_stride, time_stride,
    RULE: tl.constexpr, MASKED: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = lane < lanes
    row = (lane // neurons).to(tl.int64)
    place = row * row_stride + lane % neurons
    decay = load_constant(constants, 0, columns, lane, live)
    gain = load_constant(constants, 1, columns, lane, live)
    threshold = load_constant(constants, 2, columns, lane, live)
    reset_potential = load_constant(constants, 3, columns, lane, live)
    soft_reset = load_constant(constants, 4, columns, lane, live)
    v = tl.load(state + lane, live, 0.0)
    for first in range(0, length, STEPS):
        drive = load_steps(current, place, first, length, time_stride, live)
        if RULE == GATED:
            logits = load_steps(gate, place, first, length, time_stride, live)
        if MASKED:
            real = load_steps(valid, row * length, first, length, 1, live)
        for i in tl.static_range(STEPS):
            inside = live & (first + i < length)
            u = decay * v + gain * drive[i]
            fired = u >= threshold
            if RULE == GATED:
                after = tl.where(logits[i] > 0, reset_potential, u - soft_reset)
            elif RULE == HARD:
                after = reset_potential
            else:
                after = u - soft_reset
            after = tl.where(fired, after, u)
            if MASKED:
                here = real[i] != 0
                fired = fired & here
                u = tl.where(here, u, v)
                after = tl.where(here, after, v)
            v = tl.where(inside, after, v)
            at = place + (first + i) * time_stride
            tl.store(membrane + at, u, inside)
            tl.store(spikes + at, tl.where(fired, 1.0, 0.0), inside)
    tl.store(carried + lane, v, live)


@triton.jit
def backward_kernel(
    current, gate, valid, constants, initial, membrane, grad_spikes, grad_membrane, carried, grad_current, sums,
    grad_gate, lanes, length, neurons, columns, row_stride, time_stride, slope, gate_slope,
    RULE: tl.constexpr, MASKED: tl.constexpr, FROM_SPIKES: tl.constexpr, FROM_MEMBRANE: tl.constexpr,
    DETACHED: tl.constexpr, SUM_CONSTANTS: tl.constexpr, THROUGH_GATE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """`carried` holds the final state's gradient and gets the initial one's; `sums` (lanes, 5) is float64."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = lane < lanes
    row = (lane // neurons).to(tl.int64)
    place = row * row_stride + lane % neurons
    decay = load_constant(constants, 0, columns, lane, live)
    gain = load_constant(constants, 1, columns, lane, live)
    threshold = load_constant(constants, 2, columns, lane, live)
    reset_potential = load_constant(constants, 3, columns, lane, live)
    soft_reset = load_constant(constants, 4, columns, lane, live)
    grad_state = tl.load(carried + lane, live, 0.0)
    nothing = tl.zeros([LANES], tl.float32)
    following = nothing  # dL/du at the next real position
    sum_decay = tl.zeros([LANES], tl.float64)
    sum_gain, sum_threshold, sum_reset, sum_soft = sum_decay, sum_decay, sum_decay, sum_decay
    for block in range(tl.cdiv(length, STEPS)):
        first = (tl.cdiv(length, STEPS) - 1 - block) * STEPS
        potentials = load_steps(membrane, place, first, length, time_stride, live)
        if RULE == GATED:
            logits = load_steps(gate, place, first, length, time_stride, live)
        if FROM_SPIKES:
            of_spikes = load_steps(grad_spikes, place, first, length, time_stride, live)
        if FROM_MEMBRANE:
            of_membrane = load_steps(grad_membrane, place, first, length, time_stride, live)
        if SUM_CONSTANTS:
            drive = load_steps(current, place, first, length, time_stride, live)
        if MASKED:
            real = load_steps(valid, row * length, first, length, 1, live)
        for i in tl.static_range(STEPS - 1, -1, -1):
            inside = live & (first + i < length)
            here = inside
            if MASKED:
                here = inside & (real[i] != 0)
            u = potentials[i]
            fired = u >= threshold
            if RULE == GATED:
                hard = logits[i] > 0
            else:
                hard = tl.full([LANES], RULE == HARD, tl.int1)
            decayed = tl.exp(-tl.abs(slope * (u - threshold)))
            sigma = slope * decayed / ((1.0 + decayed) * (1.0 + decayed))
            jump = tl.where(hard, reset_potential - u, -soft_reset)
            of_spike = of_spikes[i] if FROM_SPIKES else nothing
            outer = of_membrane[i] if FROM_MEMBRANE else nothing
            # dL/du = direct + factor * dL/dv
            direct = sigma * of_spike + outer
            factor = tl.where(hard & fired, 0.0, 1.0)
            if not DETACHED:
                factor = factor + sigma * jump
            total = direct + factor * grad_state
            at = place + (first + i) * time_stride
            tl.store(grad_current + at, tl.where(here, gain * total, 0.0), inside)
            if THROUGH_GATE:
                steep = tl.exp(-tl.abs(gate_slope * logits[i]))
                steep = gate_slope * steep / ((1.0 + steep) * (1.0 + steep))
                by_gate = (reset_potential - (u - soft_reset)) * steep * grad_state
                tl.store(grad_gate + at, tl.where(here & fired, by_gate, 0.0), inside)
            if SUM_CONSTANTS:
                v = tl.where(fired, tl.where(hard, reset_potential, u - soft_reset), u)
                if not DETACHED:
                    of_spike = of_spike + jump * grad_state
                of_reset = tl.where(fired, grad_state, 0.0)
                sum_decay += tl.where(here, v * following, 0.0).to(tl.float64)
                sum_gain += tl.where(here, drive[i] * total, 0.0).to(tl.float64)
                sum_threshold -= tl.where(here, sigma * of_spike, 0.0).to(tl.float64)
                sum_reset += tl.where(here & hard, of_reset, 0.0).to(tl.float64)
                sum_soft -= tl.where(here & (hard == 0), of_reset, 0.0).to(tl.float64)
                following = tl.where(here, total, following)
            held = grad_state + outer if MASKED else grad_state
            grad_state = tl.where(here, decay * total, tl.where(inside, held, grad_state))
    tl.store(carried + lane, grad_state, live)
    if SUM_CONSTANTS:
        sum_decay += (tl.load(initial + lane, live, 0.0) * following).to(tl.float64)
        tl.store(sums + lane * 5, sum_decay, live)
        tl.store(sums + lane * 5 + 1, sum_gain, live)
        tl.store(sums + lane * 5 + 2, sum_threshold, live)
        tl.store(sums + lane * 5 + 3, sum_reset, live)
        tl.store(sums + lane * 5 + 4, sum_soft, live)


_RULES = {None: GATED.value, True: HARD.value, False: SOFT.value}


class _Order(NamedTuple):
    """How (B, L, N) values lie in memory for the kernels: their own order, or time-major (L, B, N)."""

    shape: torch.Size
    time_major: bool

    @staticmethod
    def of(inputs: ScanInputs) -> _Order:
        return _Order(inputs.current.shape, inputs.neurons < ADJACENT)

    def lay(self, values: Tensor) -> Tensor:
        return (values.transpose(0, 1) if self.time_major else values).contiguous()

    def empty(self, like: Tensor) -> Tensor:
        rows, length, *rest = self.shape
        return like.new_empty((length, rows, *rest) if self.time_major else self.shape)

    def restore(self, values: Tensor) -> Tensor:
        return values.transpose(0, 1).contiguous() if self.time_major else values

    def strides(self, neurons: int) -> tuple[int, int]:
        """From row to row, and from position to position."""
        rows, length = self.shape[:2]
        return (neurons, rows * neurons) if self.time_major else (length * neurons, neurons)


def run_forward(inputs: ScanInputs, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    order = _Order.of(inputs)
    current, state = order.lay(inputs.current.detach()), inputs.state.detach().contiguous()
    constants = inputs.constants.detach().contiguous()
    spikes, membrane, carried = order.empty(current), order.empty(current), torch.empty_like(state)
    masked, gated = inputs.valid is not None, settings.gate_rule is None
    if state.numel():
        forward_kernel[(triton.cdiv(state.numel(), LANES),)](
            current,
            order.lay(inputs.gate_logit.detach()) if gated else current,  # what is not read may be anything
            _bytes(inputs.valid) if masked else current,
            constants,
            state,
            spikes,
            membrane,
            carried,
            state.numel(),
            inputs.current.shape[1],
            inputs.neurons,
            constants.shape[1],
            *order.strides(inputs.neurons),
            RULE=_RULES[settings.gate_rule],
            MASKED=masked,
            LANES=LANES,
            num_warps=1,
            enable_fp_fusion=False,
        )
    return order.restore(spikes), order.restore(membrane), carried


def run_backward(
    inputs: ScanInputs,
    membrane: Tensor,
    grad_spikes: Tensor | None,
    grad_membrane: Tensor | None,
    grad_state: Tensor | None,
    settings: Settings,
    sum_constants: bool,
) -> Gradients:
    order = _Order.of(inputs)
    membrane, state = order.lay(membrane), inputs.state.contiguous()
    constants = inputs.constants.contiguous()
    carried = torch.zeros_like(state) if grad_state is None else grad_state.clone(memory_format=torch.contiguous_format)
    grad_current = order.empty(membrane)
    grad_gate = order.empty(membrane) if settings.gate_slope else None
    sums = state.new_empty((state.numel(), 5) if sum_constants else (1, 5), dtype=torch.float64)
    masked, gated = inputs.valid is not None, settings.gate_rule is None
    if state.numel():
        backward_kernel[(triton.cdiv(state.numel(), LANES),)](
            order.lay(inputs.current) if sum_constants else membrane,
            order.lay(inputs.gate_logit) if gated else membrane,
            _bytes(inputs.valid) if masked else membrane,
            constants,
            state,
            membrane,
            membrane if grad_spikes is None else order.lay(grad_spikes),
            membrane if grad_membrane is None else order.lay(grad_membrane),
            carried,
            grad_current,
            sums,
            grad_current if grad_gate is None else grad_gate,
            state.numel(),
            inputs.current.shape[1],
            inputs.neurons,
            constants.shape[1],
            *order.strides(inputs.neurons),
            settings.surrogate_slope,
            settings.gate_slope,
            RULE=_RULES[settings.gate_rule],
            MASKED=masked,
            FROM_SPIKES=grad_spikes is not None,
            FROM_MEMBRANE=grad_membrane is not None,
            DETACHED=settings.detach_reset,
            SUM_CONSTANTS=sum_constants,
            THROUGH_GATE=grad_gate is not None,
            LANES=LANES,
            num_warps=1,
            enable_fp_fusion=False,
        )
    found = None
    if sum_constants:
        found = sums[: state.numel()].reshape(-1, inputs.neurons, 5).sum(0)
        found = (found.sum(0, keepdim=True) if constants.shape[1] == 1 else found).t().to(torch.float32)
    of_gate = None if grad_gate is None else order.restore(grad_gate)
    return Gradients(order.restore(grad_current), carried, found, of_gate)


def _bytes(valid: Tensor | None) -> Tensor:
    assert valid is not None
    return valid.contiguous().view(torch.uint8)
