"""GatedLeaky: the gated-reset neuron as an snnTorch module, for whole sequences; GatedLeakyCell: the same, step by
step.

    u_t = decay * v_{t-1} + gain * I_t;  a spike where u_t >= threshold;  v_t by `mode`, as in `neuron.functional`

    GatedLeaky(32, output="spikes")                  (B, L, 32) -> spikes: in nn.Sequential
    GatedLeaky(32)                                   (B, L, 32) -> spikes, membrane, state
    GatedLeakyCell(32)                               spk, mem = lif(cur, mem) with (B, 32), as snnTorch's Leaky
    GatedLeakyCell(32, init_hidden=True)             spk = lif(cur), the state kept until reset_mem(): in nn.Sequential

The class says how many axes come before the neurons, so (B, N) is never taken for (B, L). After the neurons any axes
may follow, as height and width after channels; the constants hold for all of them. Modes that read a gate (gated,
hard/none) take it as a second input of the same shape, or as lanes: 2N values [I_1..I_N | e_1..e_N] on the neurons'
axis, as one Linear gives them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from speak_neuro.neuron.functional import GatedLIFOutput, gated_lif_scan, gated_lif_step
from speak_neuro.neuron.gated_neuron import GatedNeuron, NeuronOptions
from speak_neuro.neuron.reference import CONSTANTS

if TYPE_CHECKING:
    from typing_extensions import Unpack


class GatedLeaky(GatedNeuron):
    """N gated-reset neurons over a sequence; each constant is a buffer (N,), or a parameter where `learn` names it.

    A constant given as one number holds for all `neurons`. `decay` is clamped to [0, 1] while it is learned, as
    snnTorch does. The state dict holds the five constants and nothing else; `mode` and the options are plain
    attributes. `output` is "all" (spikes, membrane, state) or "spikes". A `spike_grad` of one's own, a surrogate of
    snnTorch's for instance, runs step by step; the sigmoid of `surrogate_slope` is in the fused kernels.

    `learn_gate`, in the modes that read a gate: "straight-through" sends a gradient with the slope of sig(gate_slope e)
    into the gate logit, "own-loss" none, because a loss of the user's does; None the same, with a warning.
    """

    leading = 2

    def __init__(
        self, neurons: int = 1, *, output: Literal["all", "spikes"] = "all", **options: Unpack[NeuronOptions]
    ) -> None:
        if output not in ("all", "spikes"):
            raise ValueError(f"output is {output!r}; allowed: all, spikes")
        super().__init__(neurons, **options)
        self.returns = output

    def forward(
        self,
        current: Tensor,
        gate_logit: Tensor | None = None,
        state: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Any:
        """A GatedLIFOutput, or the spikes alone, of (B, L, N, ...) inputs, or (B, L) for one neuron, from `state`
        (default: the reset potential). `valid` (B, L) is False at padding."""
        output = self._scan(*self._inputs(current, gate_logit), state, valid)
        return output.spikes if self.returns == "spikes" else output

    def _scan(self, current: Tensor, gate_logit: Tensor, state: Tensor | None, valid: Tensor | None) -> GatedLIFOutput:
        shape = current.shape
        if len(shape) <= 3:
            return gated_lif_scan(current, gate_logit, state, valid, **self._options(), backend=self.backend)
        flat = (*shape[:2], -1)
        output = gated_lif_scan(
            current.reshape(flat),
            gate_logit.reshape(flat),
            None if state is None else state.reshape(shape[0], -1),
            valid,
            **self._options(shape[3:].numel()),
            backend=self.backend,
        )
        return GatedLIFOutput(
            output.spikes.reshape(shape), output.membrane.reshape(shape), output.state.reshape(shape[0], *shape[2:])
        )

    def step(self, current: Tensor, gate_logit: Tensor | None = None, state: Tensor | None = None) -> GatedLIFOutput:
        """One position of (B, N, ...) inputs, or (B,) for one neuron."""
        return self.cell()._advance(current, gate_logit, state)

    def cell(self, *, init_hidden: bool = False) -> GatedLeakyCell:
        """A cell with the same constants, the same tensors: what this one learns, the cell has learnt."""
        cell = GatedLeakyCell(
            self.neurons,
            mode=self.mode,
            learn_gate=self.learn_gate,
            gate_slope=self.gate_slope,
            surrogate_slope=self.surrogate_slope,
            spike_grad=self.own_spike_grad,
            detach_reset=self.detach_reset,
            backend=self.backend,
            init_hidden=init_hidden,
        )
        for name in CONSTANTS:
            del cell._buffers[name]
            value = getattr(self, name)
            if isinstance(value, torch.nn.Parameter):
                cell.register_parameter(name, value)
            else:
                cell.register_buffer(name, value)
        cell.train(self.training)
        return cell


class GatedLeakyCell(GatedNeuron):
    """GatedLeaky one step at a time: `spk, mem = lif(cur, mem)`, in snnTorch's way.

    `mem` is the potential after the reset, None at the start; nothing is kept between calls. With `init_hidden` the
    module keeps it, takes no `mem` and returns the spikes alone, until `reset_mem()` forgets it; a batch of another
    shape is an error rather than a new start.
    """

    leading = 1
    mem: Tensor | None

    def __init__(self, neurons: int = 1, *, init_hidden: bool = False, **options: Unpack[NeuronOptions]) -> None:
        super().__init__(neurons, **options)
        self.init_hidden = init_hidden
        self.register_buffer("mem", None, persistent=False)

    def forward(self, current: Tensor, mem: Tensor | None = None, gate_logit: Tensor | None = None) -> Any:
        """Spikes and the next `mem` of (B, N, ...) inputs, or (B,) for one neuron."""
        if not self.init_hidden:
            output = self._advance(current, gate_logit, mem)
            return output.spikes, output.state
        if mem is not None:
            raise ValueError("this cell keeps its own state (init_hidden=True); allowed: no mem")
        output = self._advance(current, gate_logit, self.mem)
        self.mem = output.state
        return output.spikes

    def reset_mem(self) -> None:
        """Forget the state that `init_hidden` keeps: before each sequence."""
        self.mem = None

    def detach_mem(self) -> None:
        """Cut the gradient that would go back through the kept state: for truncated backpropagation."""
        if self.mem is not None:
            self.mem = self.mem.detach()

    def _advance(self, current: Tensor, gate_logit: Tensor | None, state: Tensor | None) -> GatedLIFOutput:
        current, gate_logit = self._inputs(current, gate_logit)
        shape = current.shape
        if state is None:
            start = self.reset_potential.reshape(-1, *(1,) * max(0, len(shape) - 2))
            state = start.expand(shape[1:]).expand(shape) if len(shape) > 1 else start.expand(shape)
            state = state.to(current.dtype)
        elif state.shape != shape:
            raise ValueError(f"the state has shape {tuple(state.shape)}; allowed: the current's, {tuple(shape)}")
        if len(shape) <= 2:
            return gated_lif_step(current, gate_logit, state, **self._options())
        flat = (shape[0], -1)
        output = gated_lif_step(
            current.reshape(flat), gate_logit.reshape(flat), state.reshape(flat), **self._options(shape[2:].numel())
        )
        return GatedLIFOutput(*(values.reshape(shape) for values in output))
