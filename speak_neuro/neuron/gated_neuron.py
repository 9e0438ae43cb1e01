"""What GatedLeaky and GatedLeakyCell share: constants as parameters or buffers, options, and the checks of inputs.

It derives from `snntorch.LIF`, not from `snntorch.Leaky`, on purpose: snnTorch's exporter takes every `Leaky` for a
plain LIF and would drop the gate silently. docs/howto-neuron.md has the differences.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Collection, Sequence
from typing import Any, Literal, TypedDict, get_args

import numpy as np
import snntorch
import torch
from torch import Tensor

from speak_neuro.neuron.backends import backends
from speak_neuro.neuron.reference import CONSTANTS, NeuronParameters
from speak_neuro.neuron.resets import RESETS
from speak_neuro.neuron.surrogates import SpikeGradient, spike, with_surrogate

Value = float | Sequence[float] | Tensor
GateLearning = Literal["straight-through", "own-loss"]


class NeuronOptions(TypedDict, total=False):
    """What both calling styles take, by keyword."""

    decay: Value
    """gamma, in [0, 1]; 1 by default. A number for all neurons, or one for each, as the four that follow."""
    gain: Value
    """delta, 1."""
    threshold: Value
    """u_th, 1."""
    reset_potential: Value
    """u_reset, 0: after a hard reset and at the start."""
    reset_scale: Value
    """theta, 0.8: the share of the threshold that a soft reset subtracts."""
    mode: str
    """gated (default), hard, soft, none or hard/none: a name of `neuron.resets.RESETS`."""
    learn: Collection[str]
    """Names of the constants that are parameters rather than buffers."""
    learn_gate: GateLearning | None
    """"straight-through" or "own-loss"; None, the default, does nothing and says so once."""
    gate_slope: float
    """Of the straight-through gradient, 1."""
    surrogate_slope: float
    """Of the spike's gradient, 4."""
    spike_grad: SpikeGradient | None
    """A surrogate of one's own, a function of u - threshold as in `snntorch.surrogate`; step by step only."""
    detach_reset: bool
    """No gradient through the spike that resets."""
    backend: str
    """auto, loop, numba or triton."""


class GatedNeuron(snntorch.LIF):
    """What the two calling styles share: constants, options, checks."""

    leading: int
    """Axes before the neurons': batch, and time where there is one."""

    def __init__(
        self,
        neurons: int = 1,
        *,
        decay: Value = 1.0,
        gain: Value = 1.0,
        threshold: Value = 1.0,
        reset_potential: Value = 0.0,
        reset_scale: Value = 0.8,
        mode: str = "gated",
        learn: Collection[str] = (),
        learn_gate: GateLearning | None = None,
        gate_slope: float = 1.0,
        surrogate_slope: float = 4.0,
        spike_grad: SpikeGradient | None = None,
        detach_reset: bool = False,
        backend: str = "auto",
    ) -> None:
        if neurons < 1:
            raise ValueError(f"neurons is {neurons}; allowed: 1 or more")
        for name, slope in (("surrogate_slope", surrogate_slope), ("gate_slope", gate_slope)):
            if not slope > 0:
                raise ValueError(f"{name} is {slope}; allowed: above 0")
        if backend not in backends():
            raise ValueError(f"backend is {backend!r}; allowed: {', '.join(backends())}")
        if unknown := sorted(set(learn) - set(CONSTANTS)):
            raise ValueError(f"learn has {', '.join(unknown)}; allowed: {', '.join(CONSTANTS)}")
        if learn_gate not in (None, *get_args(GateLearning)):
            raise ValueError(f"learn_gate is {learn_gate!r}; allowed: None, {', '.join(get_args(GateLearning))}")
        values = (decay, gain, threshold, reset_potential, reset_scale)
        tensors = {name: _per_neuron(name, value, neurons) for name, value in zip(CONSTANTS, values, strict=True)}
        NeuronParameters(**{name: tensor.numpy() for name, tensor in tensors.items()}, mode=mode)  # checks the ranges

        super().__init__(
            beta=tensors["decay"],
            threshold=tensors["threshold"],
            spike_grad=spike_grad or functools.partial(spike, threshold=0.0, surrogate_slope=surrogate_slope),
            reset_mechanism="none",  # snnTorch's own reset is not used
        )
        # snnTorch keeps every neuron in a class-level list, for hidden states; this one has none there.
        instances = snntorch.SpikingNeuron.instances
        instances[:] = [instance for instance in instances if instance is not self]
        # snnTorch's names for what is unused or renamed here leave the state dict.
        for name in ("graded_spikes_factor", "reset_mechanism_val"):
            self.register_buffer(name, getattr(self, name), persistent=False)
        del self._buffers["beta"], self._buffers["threshold"]
        for name, tensor in tensors.items():
            if name in learn:
                self.register_parameter(name, torch.nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        self.neurons = neurons
        self.mode = mode
        self.learn_gate = learn_gate
        self.gate_slope = gate_slope
        self.surrogate_slope = surrogate_slope
        self.own_spike_grad = spike_grad
        self.detach_reset = detach_reset
        self.backend = backend
        self._warned = False

    @property
    def beta(self) -> Tensor:
        """snnTorch's name of `decay`."""
        return self.decay

    @property
    def reset_mechanism(self) -> str:
        """snnTorch's own reset: always "none". Set `mode` instead."""
        return "none"

    @property
    def reads_gate(self) -> bool:
        """Whether the mode asks the gate."""
        return RESETS[self.mode].reads_gate

    def split(self, lanes: Tensor) -> tuple[Tensor, Tensor]:
        """Current and gate logit of 2N lanes [I_1..I_N | e_1..e_N]: for a loss of one's own on the gate logit."""
        if lanes.dim() <= self.leading or lanes.shape[self.leading] != 2 * self.neurons:
            raise ValueError(f"lanes have shape {tuple(lanes.shape)}; allowed: {self._allowed(2 * self.neurons)}")
        current, gate_logit = torch.split(lanes, self.neurons, dim=self.leading)
        return current, gate_logit

    def fire(self, mem: Tensor) -> Tensor:
        """Spikes of the potential `mem`, 1. where mem >= threshold, with the surrogate's gradient."""
        if self.own_spike_grad is not None:
            return with_surrogate(mem - self.threshold, self.own_spike_grad)
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

    def _options(self, places: int = 1) -> dict[str, Any]:
        """For the scan or the step, with each neuron's constants repeated at its `places`."""
        constants = self._constants()
        if places > 1:
            constants = {name: value.repeat_interleave(places) for name, value in constants.items()}
        return {
            **constants,
            "mode": self.mode,
            "surrogate_slope": self.surrogate_slope,
            "spike_grad": self.own_spike_grad,
            "detach_reset": self.detach_reset,
            "gate_slope": self.gate_slope if self.learn_gate == "straight-through" else 0.0,
        }

    def _inputs(self, current: Tensor, gate_logit: Tensor | None) -> tuple[Tensor, Tensor]:
        """Current and gate logit of one shape, taken apart when they came as lanes; refuses anything else."""
        at = self.leading
        width = current.shape[at] if current.dim() > at else 1
        if self.reads_gate and gate_logit is None and current.dim() > at and width == 2 * self.neurons:
            current, gate_logit = self.split(current)
            width = self.neurons
        if width != self.neurons or current.dim() < at:
            raise ValueError(
                f"current has shape {tuple(current.shape)}, {width} neuron(s); this module has {self.neurons}, "
                f"allowed: {self._allowed(self.neurons)}"
            )
        if gate_logit is None:
            if self.reads_gate:
                raise ValueError(
                    f"mode {self.mode!r} reads a gate; allowed: a gate logit of the current's shape, or both as "
                    f"{2 * self.neurons} lanes [current | gate logit] on axis {at}, or mode 'hard', 'soft', 'none'"
                )
            return current, current.detach()  # never read
        if gate_logit.shape != current.shape:
            raise ValueError(
                f"gate_logit has shape {tuple(gate_logit.shape)}; allowed: the current's, {tuple(current.shape)}"
            )
        self._warn_of_an_idle_gate(gate_logit)
        return current, gate_logit

    def _warn_of_an_idle_gate(self, gate_logit: Tensor) -> None:
        learns = gate_logit.requires_grad and torch.is_grad_enabled() and self.training
        if self._warned or not (learns and self.reads_gate and self.learn_gate is None):
            return
        self._warned = True
        warnings.warn(
            "the gate of this neuron does not learn: no gradient reaches its logit. learn_gate='straight-through' "
            "trains it by what it does to later potentials, learn_gate='own-loss' says that a loss of yours does",
            stacklevel=4,
        )

    def _allowed(self, width: int) -> str:
        axes = ("batch", "time")[: self.leading]
        one = f" or ({', '.join(axes)})" if width == 1 else ""
        return f"({', '.join(axes)}, {width}, ...){one}"

    def extra_repr(self) -> str:
        return f"neurons={self.neurons}, mode={self.mode!r}, learn_gate={self.learn_gate!r}, backend={self.backend!r}"


def _per_neuron(name: str, value: Value, neurons: int) -> Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float32).detach().cpu().reshape(-1)
    if tensor.numel() not in (1, neurons):
        raise ValueError(f"{name} has {tensor.numel()} values; allowed: 1 or one for each of {neurons} neurons")
    return tensor.expand(neurons).clone()
