"""GatedLeaky: the gated-reset neuron as an snnTorch module with explicit state.

    u_t = decay * v_{t-1} + gain * I_t;  a spike where u_t >= threshold;  v_t by `mode`, as in `neuron.functional`

It derives from `snntorch.LIF`, not from `snntorch.Leaky`, on purpose: snnTorch's exporter takes every `Leaky` for a
plain LIF and would drop the gate silently. Where it differs from `Leaky`:

    Leaky                                              GatedLeaky
    fires where u > threshold                          fires where u >= threshold
    keeps its last membrane, even without init_hidden  no hidden state: state in, state out
    reset one step later by default                    reset at once
    one step per call                                  a whole sequence per call, or `step`
    kept alive by a class-level list                   freed like any module
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import snntorch
import torch
from torch import Tensor

from speak_neuro.neuron.functional import BACKENDS, GatedLIFOutput, gated_lif_scan, gated_lif_step, spike
from speak_neuro.neuron.reference import NeuronParameters, ResetMode

Value = float | Sequence[float] | Tensor
CONSTANTS = ("decay", "gain", "threshold", "reset_potential", "reset_scale")


class GatedLeaky(snntorch.LIF):
    """N gated-reset neurons; each constant is a buffer of shape (N,), or a parameter if the flag says so.

    A constant given as one number holds for all `neurons`. `decay` is clamped to [0, 1] while it is learned, as
    snnTorch does. The state dict holds the five constants and nothing else; `mode`, `surrogate_slope`, `detach_reset`
    and `backend` are plain attributes.
    """

    def __init__(
        self,
        neurons: int = 1,
        *,
        decay: Value = 1.0,
        gain: Value = 1.0,
        threshold: Value = 1.0,
        reset_potential: Value = 0.0,
        reset_scale: Value = 0.8,
        mode: ResetMode = "gated",
        surrogate_slope: float = 4.0,
        detach_reset: bool = False,
        learn_decay: bool = False,
        learn_gain: bool = False,
        learn_threshold: bool = False,
        learn_reset_potential: bool = False,
        learn_reset_scale: bool = False,
        backend: str = "auto",
    ) -> None:
        if neurons < 1:
            raise ValueError(f"neurons is {neurons}; allowed: 1 or more")
        if not surrogate_slope > 0:
            raise ValueError(f"surrogate_slope is {surrogate_slope}; allowed: above 0")
        if backend not in BACKENDS:
            raise ValueError(f"backend is {backend!r}; allowed: {', '.join(BACKENDS)}")
        values = (decay, gain, threshold, reset_potential, reset_scale)
        tensors = {name: _per_neuron(name, value, neurons) for name, value in zip(CONSTANTS, values, strict=True)}
        NeuronParameters(**{name: tensor.numpy() for name, tensor in tensors.items()}, mode=mode)  # checks the ranges

        super().__init__(
            beta=tensors["decay"],
            threshold=tensors["threshold"],
            spike_grad=functools.partial(spike, threshold=0.0, surrogate_slope=surrogate_slope),
            reset_mechanism="none",  # snnTorch's own reset is not used
        )
        # snnTorch keeps every neuron in a class-level list, for hidden states; this one has none.
        instances = snntorch.SpikingNeuron.instances
        instances[:] = [instance for instance in instances if instance is not self]
        # snnTorch's names for what is unused or renamed here leave the state dict.
        for name in ("graded_spikes_factor", "reset_mechanism_val"):
            self.register_buffer(name, getattr(self, name), persistent=False)
        del self._buffers["beta"], self._buffers["threshold"]
        learned = (learn_decay, learn_gain, learn_threshold, learn_reset_potential, learn_reset_scale)
        for (name, tensor), learn in zip(tensors.items(), learned, strict=True):
            if learn:
                self.register_parameter(name, torch.nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        self.neurons = neurons
        self.mode: ResetMode = mode
        self.surrogate_slope = surrogate_slope
        self.detach_reset = detach_reset
        self.backend = backend

    @property
    def beta(self) -> Tensor:
        """snnTorch's name of `decay`."""
        return self.decay

    @property
    def reset_mechanism(self) -> str:
        """snnTorch's own reset: always "none". Set `mode` instead."""
        return "none"

    def forward(
        self, current: Tensor, gate_logit: Tensor, state: Tensor | None = None, valid: Tensor | None = None
    ) -> GatedLIFOutput:
        """(B, L, N) inputs, or (B, L) for one neuron, from `state` (default: the reset potential).

        `valid` (B, L) is False at padding.
        """
        self._check_width(current, 3)
        return gated_lif_scan(current, gate_logit, state, valid, **self._options(), backend=self.backend)

    def step(self, current: Tensor, gate_logit: Tensor, state: Tensor | None = None) -> GatedLIFOutput:
        """One position of (B, N) inputs, or (B,) for one neuron."""
        self._check_width(current, 2)
        if state is None:
            state = self.reset_potential.expand(current.shape).to(current.dtype)
        return gated_lif_step(current, gate_logit, state, **self._options())

    def fire(self, mem: Tensor) -> Tensor:
        """Spikes of the potential `mem`, 1. where mem >= threshold, with the surrogate's gradient."""
        return spike(mem, self.threshold, self.surrogate_slope)

    def parameters_numpy(self) -> NeuronParameters:
        """The constants for the numpy reference and the exporter: float32 arrays (N,), or numbers for one neuron."""
        shape = (self.neurons,) if self.neurons > 1 else ()
        arrays: dict[str, Any] = {
            name: tensor.detach().cpu().numpy().astype(np.float32).reshape(shape)
            for name, tensor in self._constants().items()
        }
        return NeuronParameters(**arrays, mode=self.mode)

    def _constants(self) -> dict[str, Tensor]:
        constants = {name: getattr(self, name) for name in CONSTANTS}
        if isinstance(self.decay, torch.nn.Parameter):
            constants["decay"] = constants["decay"].clamp(0, 1)
        return constants

    def _options(self) -> dict[str, Any]:
        return {
            **self._constants(),
            "mode": self.mode,
            "surrogate_slope": self.surrogate_slope,
            "detach_reset": self.detach_reset,
        }

    def _check_width(self, current: Tensor, with_neurons: int) -> None:
        width = current.shape[-1] if current.dim() == with_neurons else 1
        if width != self.neurons:
            raise ValueError(
                f"current has shape {tuple(current.shape)}, {width} neuron(s); this module has {self.neurons}"
            )

    def extra_repr(self) -> str:
        return f"neurons={self.neurons}, mode={self.mode!r}, backend={self.backend!r}"


def _per_neuron(name: str, value: Value, neurons: int) -> Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float32).detach().cpu().reshape(-1)
    if tensor.numel() not in (1, neurons):
        raise ValueError(f"{name} has {tensor.numel()} values; allowed: 1 or one for each of {neurons} neurons")
    return tensor.expand(neurons).clone()
