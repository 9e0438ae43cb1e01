"""What a hard decision is in the backward pass: a spike, and the resets that a spike and the gate choose.

    s = [u >= threshold],   ds/du = -ds/d threshold = k sig(x) sig(-x),   x = k (u - threshold),   k = surrogate_slope

Each function gives its input, or the decision, forward unchanged; `neuron.functional` says where each stands.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SpikeGradient = Callable[[Tensor], Tensor]
Parameter = float | Tensor
"""A number, or a tensor of shape () or (N,); differentiable when it requires a gradient."""


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


class ThroughSpike(torch.autograd.Function):
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


# torch reads the signature of such a function at every call, a sixth of a step's time: it is made once.
for _kind in (_Spike, ThroughSpike):
    setattr(_kind.forward, "__signature__", inspect.signature(_kind.forward))  # noqa: B010  (mypy knows no such name)


class ThroughGate(torch.autograd.Function):
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
