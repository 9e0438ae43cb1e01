"""The fused scan of the gated-reset neuron: one pass over the sequence forward, one reverse pass backward.

The arithmetic of the forward pass is that of `neuron.reference`, operation by operation, and gives the same bits:
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
    dL/de_t  = s_t (reset_potential - u_t + soft_reset) dL/dv_t g sig(g e_t) sig(-g e_t),  g = gate_slope (0: none)

At a masked position v and u are the carried state, so dL/dv_{t-1} = dL/dv_t + G^u_t and nothing else receives a
gradient.
Only the membrane is stored between the passes: spikes and carried states are recomputed from it, exactly.

`ENGINES` names the engines that do this, alike in shape: `numba_engine` on the CPU, `triton_kernels` on CUDA devices.
Each compiles on first use.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from speak_neuro.neuron.fused.interface import ScanInputs, Settings


class Engine(NamedTuple):
    """A fused engine: a module with `run_forward` and `run_backward`, loaded when it is first used."""

    module: str
    package: str
    """What has to be installed."""
    device: str
    """The type of device that `auto` takes it on."""
    place: str
    """That device in words."""
    installed: Callable[[], bool] = lambda: True
    """Whether torch was built for the device."""
    elsewhere: Callable[[], bool] = lambda: False
    """Whether it runs on other devices too, where it is asked for by name."""


def interpreting() -> bool:
    """Whether Triton, once imported, runs kernels in its interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


ENGINES: dict[str, Engine] = {
    "numba": Engine("speak_neuro.neuron.fused.numba_engine", "numba", "cpu", "the CPU"),
    "triton": Engine(
        "speak_neuro.neuron.fused.triton_kernels",
        "triton",
        "cuda",
        "CUDA devices",
        installed=lambda: bool(torch.version.cuda),
        elsewhere=interpreting,
    ),
}


@functools.cache
def available(package: str) -> bool:
    """Whether `package` is installed."""
    return importlib.util.find_spec(package) is not None


def fused_scan(
    current: Tensor, gate_logit: Tensor, state: Tensor, valid: Tensor | None, constants: Tensor, settings: Settings
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes and membrane (B, L) or (B, L, N) and the final state (B,) or (B, N), by the engine `settings` names."""
    result: tuple[Tensor, Tensor, Tensor]
    if torch.is_grad_enabled() and _wanted(current, gate_logit, state, constants, settings):
        result = _FusedScan.apply(current, gate_logit, state, valid, constants, settings)
        return result
    result = _engine(settings).run_forward(ScanInputs(current, gate_logit, state, valid, constants), settings)
    return result


def _wanted(current: Tensor, gate_logit: Tensor, state: Tensor, constants: Tensor, settings: Settings) -> bool:
    """Whether anything that a gradient goes to asks for one."""
    through_gate = bool(settings.gate_slope) and settings.gate_rule is None and gate_logit.requires_grad
    return through_gate or current.requires_grad or state.requires_grad or constants.requires_grad


class _FusedScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        settings: Settings = arguments[5]
        inputs = ScanInputs(*arguments[:5])
        spikes, membrane, carried = _engine(settings).run_forward(inputs, settings)
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, membrane)
        return spikes, membrane, carried

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        *given, membrane = ctx.saved_tensors
        inputs = ScanInputs(*given)
        settings: Settings = ctx.settings
        if not ctx.needs_input_grad[1] or settings.gate_rule is not None:
            settings = settings._replace(gate_slope=0.0)
        found = _engine(settings).run_backward(inputs, membrane, *outputs, settings, ctx.needs_input_grad[4])
        return found.current, found.gate_logit, found.state, None, found.constants, None


@functools.cache
def _module(name: str) -> Any:
    return importlib.import_module(name)


def _engine(settings: Settings) -> Any:
    """A module with the two passes: run_forward(inputs, settings) -> spikes, membrane, state, and
    run_backward(inputs, membrane, grad_spikes, grad_membrane, grad_state, settings, sum_constants) -> Gradients."""
    return _module(ENGINES[settings.backend].module)
