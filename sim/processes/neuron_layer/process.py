"""A layer of N neurons over B sequences as a Lava process: one port in, spikes and potentials out.

Per neuron of each sequence, each time step, in this order:

    float32                                               integers (Loihi's widths)
    i = syn_decay * i + syn_gain * x                      i = sgn(i)(|i| syn_decay >> 12) + syn_gain * x
    u = decay * v + (gain * i + bias)                     u = sgn(v)(|v| decay >> 12) + gain * i + bias, 24 bits
    s = u >= threshold                                    the same; NIR's and Lava's u > T is u >= the next number
    v = u | reset_potential | u - soft_reset              no spike | spike, gate open | spike, gate closed

Without a synaptic current of its own i is x. The gate is always open, always closed, or lanes of its own, open where
e > gate_threshold: the second half of the input lanes [I_1..I_N | e_1..e_N], or what comes to a port of the gate. A
layer that does not spike sends u for its spikes. The float32 model rounds every operation (paper Eq. 1, 9-11), the
fixed-point model saturates u and rounds nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.sim.processes import base

STATE_LIMIT = 2**23 - 1
DECAY_BITS = 12
CONSTANTS = "decay gain bias threshold reset_potential soft_reset gate_threshold syn_decay syn_gain".split()


class NeuronLayer(base.Process):
    """`layer` has the constants, arrays (N,), as `speak_neuro.export.graphs.layers.Neurons` does.

    Ports: `x_in` (batch * width,), `s_out` and `u_out` (batch * N,), sequence by sequence. With `apart` gate lanes come
    to `g_in` (batch * N,), else unconnected, and `x_in` has currents alone. For its first `onset` steps the layer holds
    its state, stays silent and sends the state as potential: the time its inputs need to arrive, so that their latency
    changes nothing whatever the constants are.
    """

    def __init__(self, *, layer: Any, batch: int, onset: int, apart: bool = False) -> None:
        super().__init__(layer=layer, batch=batch, onset=onset, apart=apart)
        self.x_in = base.InPort(shape=(batch * (layer.size if apart else layer.width),))
        self.g_in = base.InPort(shape=(batch * layer.size,))
        self.s_out = base.OutPort(shape=(batch * layer.size,))
        self.u_out = base.OutPort(shape=(batch * layer.size,))


class _Model(base.Model):
    """What both models do around a step."""

    kind: Any

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        layer, batch = proc_params["layer"], proc_params["batch"]
        self.layer, self.batch, self.lanes, self.apart = layer, batch, layer.gate == 0, proc_params["apart"]
        # Constants of every sequence side by side: at each step flat arrays, and no broadcasting.
        for name in CONSTANTS:
            setattr(self, name, np.tile(getattr(layer, name), batch).astype(self.kind))
        self.v = np.tile(layer.initial, batch).astype(self.kind)
        self.i = np.zeros_like(self.v) if layer.syn_decay.size else None
        self.biased = bool(layer.bias.any())
        self.plain = bool((layer.gain == 1).all())
        self.silent = np.zeros(self.v.shape, dtype=np.int8)

    def inputs(self) -> tuple[Any, Any]:
        """Currents and where the gate is open."""
        x = self.x_in.recv().astype(self.kind, copy=False)  # a port delivers its sender's type
        if self.apart:
            return x, self.g_in.recv().astype(self.kind, copy=False) > self.gate_threshold
        if not self.lanes:
            return x, None
        halves = x.reshape(self.batch, 2, -1)
        return halves[:, 0].reshape(-1), halves[:, 1].reshape(-1) > self.gate_threshold

    def finish(self, membrane: Any, opened: Any) -> None:
        """Send spikes and potentials and reset where a neuron fired."""
        if not self.layer.spiking:
            self.s_out.send(membrane)
            self.u_out.send(membrane)
            self.v = membrane
            return
        fired = membrane >= self.threshold
        self.s_out.send(fired.view(np.int8))
        self.u_out.send(membrane)  # copied into the channel, so that v may share its memory
        if opened is None:
            after = self.reset_potential if self.layer.gate > 0 else membrane - self.soft_reset
        else:
            after = np.where(opened, self.reset_potential, membrane - self.soft_reset)
        self.v = np.where(fired, after, membrane)

    def waiting(self) -> bool:
        """Whether the inputs are still on their way."""
        if self.time_step > self.proc_params["onset"]:
            return False
        self.x_in.recv()
        if self.apart:
            self.g_in.recv()
        self.s_out.send(self.silent)
        self.u_out.send(self.v)
        return True


@base.float32(NeuronLayer)
class NeuronLayerFloat32(_Model):
    """The float32 equations in numpy, each operation rounded."""

    x_in: Any = base.receives(np.float32)
    g_in: Any = base.receives(np.float32)
    s_out: Any = base.sends(np.int8)
    u_out: Any = base.sends(np.float32)
    kind = np.float32

    def run_spk(self) -> None:
        """One time step; `time_step` counts from 1."""
        if self.waiting():
            return
        current, opened = self.inputs()
        if self.i is not None:
            self.i = self.syn_decay * self.i + self.syn_gain * current
            current = self.i
        if not self.plain:
            current = self.gain * current
        if self.biased:
            current = current + self.bias
        membrane: npt.NDArray[np.float32] = self.decay * self.v
        membrane += current
        self.finish(membrane, opened)


@base.float32(NeuronLayer)
class LeakyLayerFloat32(NeuronLayerFloat32):
    """The same for a layer that sends its potential."""

    s_out: Any = base.sends(np.float32)


@base.fixed(NeuronLayer)
class NeuronLayerFixed(_Model):
    """The integer equations."""

    x_in: Any = base.receives(np.int32)
    g_in: Any = base.receives(np.int32)
    s_out: Any = base.sends(np.int8)
    u_out: Any = base.sends(np.int32)
    kind = np.int64

    def run_spk(self) -> None:
        """One time step; `time_step` counts from 1."""
        if self.waiting():
            return
        current, opened = self.inputs()
        if self.i is not None:
            self.i = _decayed(self.i, self.syn_decay) + self.syn_gain * current
            current = self.i
        wide = _decayed(self.v, self.decay) + self.gain * current + self.bias
        self.finish(np.clip(wide, -STATE_LIMIT, STATE_LIMIT), opened)


@base.fixed(NeuronLayer)
class LeakyLayerFixed(NeuronLayerFixed):
    """The same for a layer that sends its potential."""

    s_out: Any = base.sends(np.int32)


def _decayed(state: npt.NDArray[np.int64], decay: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    magnitude = (np.abs(state) * decay) >> DECAY_BITS  # truncates toward zero
    return np.where(state < 0, -magnitude, magnitude)
