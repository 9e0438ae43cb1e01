"""The gated-reset neuron as differentiable torch functions: one step, and a scan over a sequence.

Per sequence, at each position t, with the rounding of `speak_neuro.neuron.reference` (paper Eq. 1, 9-11):

    u_t = decay * v_{t-1} + gain * I_t
    s_t = [u_t >= threshold],   m_t = [e_t > 0]
    v_t = u_t where s_t = 0;   reset_potential where s_t = m_t = 1;   u_t - reset_scale * threshold elsewhere

Gradients: ds_t/du_t = -ds_t/d threshold = k sig(x) sig(-x), x = k (u_t - threshold), k = surrogate_slope (the sigmoid
surrogate). The same slope carries gradient through the s_t that selects v_t, unless `detach_reset`. The gate m_t
carries none (the gate logit is trained by a loss of its own), unless `gate_slope` g is above 0: then it goes straight
through, dm_t/de_t = g sig(g e_t) sig(-g e_t), and what the gate did to later potentials trains the gate logit.

Other reset modes (`neuron.resets`) put other actions in the place of the two resets.

Backends of the scan, equal bit for bit in the forward pass:

    loop    torch operations step by step; any device, float32 or float64
    numba   one fused kernel for the whole sequence; CPU, float32
    triton  the same on CUDA devices, float32 (on the CPU only in Triton's interpreter, TRITON_INTERPRET=1)
    auto    the fused kernel of the device, else the loop; logs what it chose

Where torch watches the operations (torch.export, torch.func's transforms, make_fx), auto is the loop, which it can
follow: a fused kernel computes outside torch. torch.jit.trace is refused: of a loop it keeps the length of its example.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from speak_neuro.neuron.backends import backend_of
from speak_neuro.neuron.fused import dispatch as kernels
from speak_neuro.neuron.fused.interface import Settings
from speak_neuro.neuron.reference import CONSTANTS
from speak_neuro.neuron.resets import RESETS, Action, Reset, check_mode, compiled_reset
from speak_neuro.neuron.surrogates import Parameter, SpikeGradient, ThroughGate, ThroughSpike, spike, with_surrogate
from speak_neuro.neuron.watched import watcher


class GatedLIFOutput(NamedTuple):
    """Shapes (B, L) or (B, L, N) after a scan; one position after a step."""

    spikes: Tensor
    """s, 0. or 1., with the surrogate's gradient."""
    membrane: Tensor
    """u, the potential before reset; at a padding position the carried potential."""
    state: Tensor
    """v after the last position, (B,) or (B, N)."""


def gated_lif_step(
    current: Tensor,
    gate_logit: Tensor,
    state: Tensor,
    *,
    decay: Parameter = 1.0,
    gain: Parameter = 1.0,
    threshold: Parameter = 1.0,
    reset_potential: Parameter = 0.0,
    reset_scale: Parameter = 0.8,
    mode: str = "gated",
    surrogate_slope: float = 4.0,
    detach_reset: bool = False,
    gate_slope: float = 0.0,
    spike_grad: SpikeGradient | None = None,
) -> GatedLIFOutput:
    """One position: `current`, `gate_logit` and `state` (v_{t-1}) of shape (B,) or (B, N).

    `spike_grad`, a function of u - threshold such as snnTorch's surrogates, gives the spike's gradient in place of the
    sigmoid; the spike itself stays [u >= threshold].
    """
    check_mode(mode)
    if current.shape != gate_logit.shape or current.shape != state.shape:
        raise ValueError(
            f"current has shape {_shape(current)}, gate_logit {_shape(gate_logit)}, state {_shape(state)}; "
            "allowed: all (B,) or all (B, N)"
        )
    neurons = current.shape[1] if current.dim() == 2 else 1
    given = (decay, gain, threshold, reset_potential, reset_scale)
    constants = _constants(given, mode, neurons, current)
    settings = Settings(None, float(surrogate_slope), detach_reset, "loop", float(gate_slope))
    return _advance(current, gate_logit, state, _lanes(constants, current.dim()), RESETS[mode], settings, spike_grad)


def gated_lif_scan(
    current: Tensor,
    gate_logit: Tensor,
    state: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    decay: Parameter = 1.0,
    gain: Parameter = 1.0,
    threshold: Parameter = 1.0,
    reset_potential: Parameter = 0.0,
    reset_scale: Parameter = 0.8,
    mode: str = "gated",
    surrogate_slope: float = 4.0,
    detach_reset: bool = False,
    gate_slope: float = 0.0,
    spike_grad: SpikeGradient | None = None,
    backend: str = "auto",
) -> GatedLIFOutput:
    """All positions of (B, L) or (B, L, N) inputs, from `state` (default: the reset potential).

    Where `valid` (B, L) is False the neuron holds its state and never spikes. Half-precision inputs are computed in
    float32. A `spike_grad` of one's own (as in `gated_lif_step`) needs the backend loop.
    """
    check_mode(mode)
    if spike_grad is not None:
        if backend not in ("auto", "loop"):
            raise ValueError(
                f"backend {backend!r} has the sigmoid surrogate built in; a spike_grad needs 'loop' or 'auto'"
            )
        backend = "loop"
    if current.shape != gate_logit.shape or current.dim() not in (2, 3):
        raise ValueError(
            f"current has shape {_shape(current)}, gate_logit {_shape(gate_logit)}; "
            "allowed: both (B, L) or both (B, L, N)"
        )
    if current.dtype in (torch.float16, torch.bfloat16):
        current = current.float()
    if gate_logit.dtype != current.dtype:
        gate_logit = gate_logit.to(current.dtype)
    lanes = current.shape[:1] + current.shape[2:]
    neurons = current.shape[2] if current.dim() == 3 else 1
    given = (decay, gain, threshold, reset_potential, reset_scale)
    constants = _constants(given, mode, neurons, current)
    chosen = backend_of(watcher(current, gate_logit, state, valid, constants), current, mode, backend)
    if state is None:
        # One value per neuron: (M,) -> (B, N); without a neuron axis (1,) -> (B,).
        state = constants[3].expand(lanes)
    elif state.shape != lanes:
        raise ValueError(f"state has shape {_shape(state)}; allowed: {tuple(lanes)}")
    elif state.dtype != current.dtype:
        state = state.to(current.dtype)
    if valid is not None and (valid.shape != current.shape[:2] or valid.dtype != torch.bool):
        raise ValueError(
            f"valid has shape {_shape(valid)} and type {valid.dtype}; allowed: {tuple(current.shape[:2])}, torch.bool"
        )

    rule = None if chosen == "loop" else compiled_reset(mode).gate_rule
    settings = Settings(rule, float(surrogate_slope), detach_reset, chosen, float(gate_slope))
    if chosen != "loop":
        return GatedLIFOutput(*kernels.fused_scan(current, gate_logit, state, valid, constants, settings))
    return _loop_scan(current, gate_logit, state, valid, constants, RESETS[mode], settings, spike_grad)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _constants(given: tuple[Parameter, ...], mode: str, neurons: int, current: Tensor) -> Tensor:
    """Rows decay, gain, threshold, reset_potential, soft_reset; (5, 1) when no parameter is per neuron, else (5, N).

    `given` are CONSTANTS, which get the type and device of `current`. soft_reset = reset_scale * threshold is rounded
    here, once.
    """
    dtype, device, soft = current.dtype, current.device, RESETS[mode].subtracts
    if not any(isinstance(value, Tensor) for value in given):
        return _constants_of_numbers(tuple(float(value) for value in given), soft, dtype, device)
    columns = []
    for name, value in zip(CONSTANTS, given, strict=True):
        column = torch.as_tensor(value, dtype=dtype, device=device)
        if column.dim() > 1 or column.numel() not in (1, neurons):
            raise ValueError(
                f"{name} has shape {_shape(column)}; allowed: a number or one value for each of {neurons} neurons"
            )
        columns.append(column.reshape(-1))
    soft_reset = columns[4] * columns[2] if soft else torch.zeros(1, dtype=dtype, device=device)
    columns[4] = soft_reset
    width = max(column.numel() for column in columns)
    return torch.stack([column.expand(width) for column in columns])


@functools.lru_cache(maxsize=64)
def _constants_of_numbers(values: tuple[float, ...], soft: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    columns = torch.tensor(values, dtype=dtype)
    columns[4] = columns[4] * columns[2] if soft else 0.0
    return columns.reshape(5, 1).to(device)


def _lanes(constants: Tensor, dimensions: int) -> tuple[Tensor, ...]:
    """The five constants as tensors that broadcast against (B,) or (B, N)."""
    return tuple(constants.squeeze(1) if dimensions == 1 else constants)


def _advance(
    current: Tensor,
    gate_logit: Tensor,
    state: Tensor,
    constants: tuple[Tensor, ...],
    reset: Reset,
    settings: Settings,
    spike_grad: SpikeGradient | None = None,
) -> GatedLIFOutput:
    decay, gain, threshold, reset_potential, soft_reset = constants
    # Three roundings: torch.add(alpha=) or addcmul could fuse a product with the sum and skip one.
    membrane = decay * state + gain * current
    fired = membrane >= threshold
    if spike_grad is None:
        spikes = spike(membrane, threshold, settings.surrogate_slope)
    else:
        spikes = with_surrogate(membrane - threshold, spike_grad).to(membrane.dtype)
    at = (membrane, reset_potential, soft_reset)
    after = opened = reset.open.after(*at)
    jump = _change(reset.open, opened, *at)
    if reset.reads_gate:
        is_open, closed = gate_logit > 0, reset.closed.after(*at)
        after = torch.where(is_open, opened, closed)
        jump = torch.where(is_open, jump, _change(reset.closed, closed, *at))
    carried = torch.where(fired, after, membrane)
    if not settings.detach_reset:
        carried = ThroughSpike.apply(carried, spikes, jump.detach().expand_as(carried))
    if settings.gate_slope and reset.reads_gate:
        between = torch.where(fired, opened - closed, torch.zeros_like(membrane)).detach()
        carried = ThroughGate.apply(carried, gate_logit, between, settings.gate_slope)
    return GatedLIFOutput(spikes, membrane, carried)


def _change(action: Action, after: Tensor, *at: Tensor) -> Tensor:
    """v - u of an action, as it writes it itself or as the difference."""
    found: Tensor = after - at[0] if action.change is None else action.change(*at)
    return found


def _loop_scan(
    current: Tensor,
    gate_logit: Tensor,
    state: Tensor,
    valid: Tensor | None,
    constants: Tensor,
    reset: Reset,
    settings: Settings,
    spike_grad: SpikeGradient | None = None,
) -> GatedLIFOutput:
    if current.shape[1] == 0:
        return GatedLIFOutput(torch.zeros_like(current), torch.zeros_like(current), state.clone())
    lanes = _lanes(constants, state.dim())
    spikes, membrane = [], []
    for t in range(current.shape[1]):
        output = _advance(current[:, t], gate_logit[:, t], state, lanes, reset, settings, spike_grad)
        if valid is not None:
            real = valid[:, t].reshape((-1,) + (1,) * (state.dim() - 1))
            output = GatedLIFOutput(
                torch.where(real, output.spikes, torch.zeros_like(output.spikes)),
                torch.where(real, output.membrane, state),
                torch.where(real, output.state, state),
            )
        spikes.append(output.spikes)
        membrane.append(output.membrane)
        state = output.state
    return GatedLIFOutput(torch.stack(spikes, 1), torch.stack(membrane, 1), state)
