"""The gated-reset neuron as differentiable torch functions: one step, and a scan over a sequence.

Per sequence, at each position t, with the rounding of `speak_neuro.neuron.reference` (paper Eq. 1, 9-11):

    u_t = decay * v_{t-1} + gain * I_t
    s_t = [u_t >= threshold],   m_t = [e_t > 0]
    v_t = u_t where s_t = 0;   reset_potential where s_t = m_t = 1;   u_t - reset_scale * threshold elsewhere

Gradients: ds_t/du_t = -ds_t/d threshold = k sig(x) sig(-x), x = k (u_t - threshold), k = surrogate_slope (the sigmoid
surrogate). The same slope carries gradient through the s_t that selects v_t, unless `detach_reset`. The gate m_t
carries none (the gate logit is trained by a loss of its own), unless `gate_slope` g is above 0: then it goes straight
through, dm_t/de_t = g sig(g e_t) sig(-g e_t), and what the gate did to later potentials trains the gate logit.

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
import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from speak_neuro.neuron.fused import dispatch as kernels
from speak_neuro.neuron.fused.interface import Settings
from speak_neuro.neuron.reference import GATE_RULE, RESET_MODES, SOFT_RESETS, ResetMode
from speak_neuro.neuron.watched import watcher

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "loop", "numba", "triton")
SpikeGradient = Callable[[Tensor], Tensor]
Parameter = float | Tensor
"""A number, or a tensor of shape () or (N,); differentiable when it requires a gradient."""


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
    mode: ResetMode = "gated",
    surrogate_slope: float = 4.0,
    detach_reset: bool = False,
    gate_slope: float = 0.0,
    spike_grad: SpikeGradient | None = None,
) -> GatedLIFOutput:
    """One position: `current`, `gate_logit` and `state` (v_{t-1}) of shape (B,) or (B, N).

    `spike_grad`, a function of u - threshold such as snnTorch's surrogates, gives the spike's gradient in place of the
    sigmoid; the spike itself stays [u >= threshold].
    """
    _check_mode(mode)
    if current.shape != gate_logit.shape or current.shape != state.shape:
        raise ValueError(
            f"current has shape {_shape(current)}, gate_logit {_shape(gate_logit)}, state {_shape(state)}; "
            "allowed: all (B,) or all (B, N)"
        )
    neurons = current.shape[1] if current.dim() == 2 else 1
    constants = _constants(
        decay, gain, threshold, reset_potential, reset_scale, mode, neurons, current.dtype, current.device
    )
    settings = Settings(GATE_RULE[mode], float(surrogate_slope), detach_reset, "loop", float(gate_slope))
    return _advance(current, gate_logit, state, _lanes(constants, current.dim()), settings, spike_grad)


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
    mode: ResetMode = "gated",
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
    _check_mode(mode)
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
    constants = _constants(
        decay, gain, threshold, reset_potential, reset_scale, mode, neurons, current.dtype, current.device
    )
    chosen = _backend_under(watcher(current, gate_logit, state, valid, constants), current, backend)
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

    settings = Settings(GATE_RULE[mode], float(surrogate_slope), detach_reset, chosen, float(gate_slope))
    if chosen != "loop":
        return GatedLIFOutput(*kernels.fused_scan(current, gate_logit, state, valid, constants, settings))
    return _loop_scan(current, gate_logit, state, valid, constants, settings, spike_grad)


def choose_backend(device: torch.device, dtype: torch.dtype, backend: str = "auto") -> str:
    """The backend that serves `device` and `dtype`: the one asked for, or for "auto" the fastest."""
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; allowed: {', '.join(BACKENDS)}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"current has type {dtype}; allowed: torch.float32, torch.float64 and half precision")
    fused = dtype == torch.float32
    if backend == "auto":
        chosen = "loop"
        if fused and device.type == "cpu" and kernels.numba_available():
            chosen = "numba"
        elif fused and device.type == "cuda" and torch.version.cuda and kernels.triton_available():
            chosen = "triton"
        _log_choice(chosen, device.type, str(dtype))
        return chosen
    if backend == "numba":
        if not (fused and device.type == "cpu"):
            raise ValueError(
                f"backend 'numba' serves float32 on the CPU, not {dtype} on {device}; use 'loop' or 'auto'"
            )
        if not kernels.numba_available():
            raise ValueError("backend 'numba' needs the package numba: pip install numba, or use 'loop'")
    if backend == "triton":
        if not (fused and (device.type == "cuda" or _interpreting())):
            raise ValueError(
                f"backend 'triton' serves float32 on CUDA devices, not {dtype} on {device}; use 'loop' or 'auto'"
            )
        if not kernels.triton_available():
            raise ValueError("backend 'triton' needs the package triton: pip install triton, or use 'loop'")
    return backend


def _backend_under(watching: str | None, current: Tensor, backend: str) -> str:
    """The backend where torch watches: the loop, or a refusal."""
    if watching is None:
        return choose_backend(current.device, current.dtype, backend)
    if watching == "torch.jit.trace":
        raise ValueError(
            "torch.jit.trace would keep the length of its example for every later input of the scan; "
            "use torch.export, or trace GatedLeaky.step"
        )
    if backend not in ("auto", "loop"):
        raise ValueError(f"backend {backend!r} computes where {watching} cannot follow; use 'loop' or 'auto'")
    return choose_backend(current.device, current.dtype, "loop")


def _interpreting() -> bool:
    """Whether Triton, once imported, runs kernels in its interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


@functools.cache
def _log_choice(chosen: str, device: str, dtype: str) -> None:
    logger.info("gated LIF scan on %s, %s: backend %s", device, dtype, chosen)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _check_mode(mode: str) -> None:
    if mode not in RESET_MODES:
        raise ValueError(f"mode is {mode!r}; allowed: {', '.join(RESET_MODES)}")


def _constants(
    decay: Parameter,
    gain: Parameter,
    threshold: Parameter,
    reset_potential: Parameter,
    reset_scale: Parameter,
    mode: str,
    neurons: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Rows decay, gain, threshold, reset_potential, soft_reset; (5, 1) when no parameter is per neuron, else (5, N).

    soft_reset = reset_scale * threshold is rounded here, once.
    """
    given = (decay, gain, threshold, reset_potential, reset_scale)
    soft = SOFT_RESETS[mode]
    if not any(isinstance(value, Tensor) for value in given):
        return _constants_of_numbers(tuple(float(value) for value in given), soft, dtype, device)
    columns = []
    for name, value in zip(("decay", "gain", "threshold", "reset_potential", "reset_scale"), given, strict=True):
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


class _Spike(torch.autograd.Function):
    """[u >= threshold], with the slope of sig(k (u - threshold)) as its derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(membrane: Tensor, threshold: Tensor, slope: float) -> Tensor:
        return (membrane >= threshold).to(membrane.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        membrane, threshold, ctx.slope = inputs
        ctx.save_for_backward(membrane, threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        membrane, threshold = ctx.saved_tensors
        x = ctx.slope * (membrane - threshold)
        # sig(-x) rather than 1 - sig(x), which cancels
        through = grad * (ctx.slope * torch.sigmoid(x) * torch.sigmoid(-x))
        return through, -through, None


class _ThroughSpike(torch.autograd.Function):
    """v unchanged; backward also sends grad * jump to the spike that chose it (v = u + s * jump)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(state: Tensor, spikes: Tensor, jump: Tensor) -> Tensor:
        return state.view_as(state)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (jump,) = ctx.saved_tensors
        return grad, grad * jump, None


class _ThroughGate(torch.autograd.Function):
    """v unchanged; backward also sends grad * jump * g sig(g e) sig(-g e) to the gate logit e that chose it."""

    @staticmethod
    def forward(ctx: Any, state: Tensor, gate_logit: Tensor, jump: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(gate_logit, jump)
        ctx.slope = slope
        return state.view_as(state)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        gate_logit, jump = ctx.saved_tensors
        x = ctx.slope * gate_logit
        return grad, grad * jump * (ctx.slope * torch.sigmoid(x) * torch.sigmoid(-x)), None, None


def spike(membrane: Tensor, threshold: Parameter = 1.0, surrogate_slope: float = 4.0) -> Tensor:
    """1. where membrane >= threshold, else 0., with the sigmoid surrogate's gradient to both."""
    threshold = torch.as_tensor(threshold, dtype=membrane.dtype, device=membrane.device).expand_as(membrane)
    fired: Tensor = _Spike.apply(membrane, threshold, surrogate_slope)
    return fired


def with_surrogate(shifted: Tensor, spike_grad: SpikeGradient) -> Tensor:
    """[shifted >= 0] with the gradient of `spike_grad`, whatever that function says at 0."""
    smooth = spike_grad(shifted)
    return smooth + ((shifted >= 0).to(smooth.dtype) - smooth).detach()


def _advance(
    current: Tensor,
    gate_logit: Tensor,
    state: Tensor,
    constants: tuple[Tensor, ...],
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
    softly = membrane - soft_reset
    if settings.gate_rule is None:
        hard = gate_logit > 0
        after = torch.where(hard, reset_potential, softly)
        jump = torch.where(hard, reset_potential - membrane, -soft_reset)
    elif settings.gate_rule:
        after, jump = reset_potential, reset_potential - membrane
    else:
        after, jump = softly, -soft_reset
    carried = torch.where(fired, after, membrane)
    if not settings.detach_reset:
        jump = jump.detach().expand_as(carried)
        carried = _ThroughSpike.apply(carried, spikes, jump)
    if settings.gate_slope and settings.gate_rule is None:
        between = torch.where(fired, reset_potential - softly, torch.zeros_like(membrane)).detach()
        carried = _ThroughGate.apply(carried, gate_logit, between, settings.gate_slope)
    return GatedLIFOutput(spikes, membrane, carried)


def _loop_scan(
    current: Tensor,
    gate_logit: Tensor,
    state: Tensor,
    valid: Tensor | None,
    constants: Tensor,
    settings: Settings,
    spike_grad: SpikeGradient | None = None,
) -> GatedLIFOutput:
    if current.shape[1] == 0:
        return GatedLIFOutput(torch.zeros_like(current), torch.zeros_like(current), state.clone())
    lanes = _lanes(constants, state.dim())
    spikes, membrane = [], []
    for t in range(current.shape[1]):
        output = _advance(current[:, t], gate_logit[:, t], state, lanes, settings, spike_grad)
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
