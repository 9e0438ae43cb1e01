"""The gated-reset leaky integrate-and-fire neuron as a Lava process, with a float32 and a fixed-point model.

Per lane, each time step, in this order:

    float32                                              integers (Loihi's widths)
    u = decay * v + gain * a_in                          u = sgn(v)(|v| decay >> 12) + (a_in << shift), 24 bits
    s = u >= threshold                                   the same; >=, where Lava's stock LIF has >
    m = g_in > gate_threshold                            the same
    v = u | reset_potential | u - soft_reset             no spike | spike with the gate open | spike with it closed

The float32 model rounds every operation (paper Eq. 1, 9-11); the fixed-point model saturates u and rounds nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

STATE_LIMIT = 2**23 - 1
DECAY_BITS = 12


class GatedResetLIF(AbstractProcess):
    """`lanes` independent neurons. Constants are numbers or arrays of shape (lanes,).

    Ports, all of shape (lanes,): `a_in` current, `g_in` gate logit, `s_out` spikes as 0 and 1, `u_out` the potential
    before reset. For its first `onset` steps the neuron holds its state and stays silent: the time its inputs need to
    arrive, so that their latency changes nothing whatever the constants are.

    For the fixed-point model `dtype` is int32, `decay` counts in 1/4096, `gain` is 1, `soft_reset` is given, and
    potentials are integers; `shift` aligns the current. For the float32 model `soft_reset` is the rounded product of
    `reset_scale` and `threshold`.
    """

    def __init__(
        self,
        *,
        lanes: int,
        decay: Any = 1.0,
        gain: Any = 1.0,
        threshold: Any = 1.0,
        reset_potential: Any = 0.0,
        reset_scale: Any = 0.8,
        gate_threshold: Any = 0.0,
        soft_reset: Any = None,
        shift: Any = 0,
        onset: int = 0,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(onset=onset)
        shape = (lanes,)
        self.a_in = InPort(shape=shape)
        self.g_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)
        self.u_out = OutPort(shape=shape)
        if soft_reset is None:
            soft_reset = np.multiply(np.float32(reset_scale), np.float32(threshold), dtype=np.float32)  # rounded once
        self.v = Var(shape=shape, init=_lanes(reset_potential, shape, dtype))
        self.decay = Var(shape=shape, init=_lanes(decay, shape, dtype))
        self.gain = Var(shape=shape, init=_lanes(gain, shape, dtype))
        self.threshold = Var(shape=shape, init=_lanes(threshold, shape, dtype))
        self.reset_potential = Var(shape=shape, init=_lanes(reset_potential, shape, dtype))
        self.soft_reset = Var(shape=shape, init=_lanes(soft_reset, shape, dtype))
        self.gate_threshold = Var(shape=shape, init=_lanes(gate_threshold, shape, dtype))
        self.shift = Var(shape=shape, init=_lanes(shift, shape, np.int32))


def _lanes(value: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    return np.broadcast_to(np.asarray(value, dtype=dtype), shape).copy()


@implements(proc=GatedResetLIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class GatedResetLIFFloat32(PyLoihiProcessModel):
    """The float32 equations in numpy; inputs are cast, since a port delivers its sender's type."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float32)
    g_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int8)
    u_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float32)
    v: npt.NDArray[np.float32] = LavaPyType(np.ndarray, np.float32)
    decay: npt.NDArray[np.float32] = LavaPyType(np.ndarray, np.float32)
    gain: npt.NDArray[np.float32] = LavaPyType(np.ndarray, np.float32)
    threshold: npt.NDArray[np.float32] = LavaPyType(np.ndarray, np.float32)
    reset_potential: npt.NDArray[np.float32] = LavaPyType(np.ndarray, np.float32)
    soft_reset: npt.NDArray[np.float32] = LavaPyType(np.ndarray, np.float32)
    gate_threshold: npt.NDArray[np.float32] = LavaPyType(np.ndarray, np.float32)
    shift: npt.NDArray[np.int32] = LavaPyType(np.ndarray, np.int32)

    def run_spk(self) -> None:
        """One time step; `time_step` counts from 1."""
        current = self.a_in.recv().astype(np.float32, copy=False)
        gate_logit = self.g_in.recv().astype(np.float32, copy=False)
        if self.time_step <= self.proc_params["onset"]:
            self.s_out.send(np.zeros(self.v.shape, dtype=np.int8))
            self.u_out.send(self.v)
            return
        membrane = self.decay * self.v
        membrane += self.gain * current
        fired = membrane >= self.threshold
        self.s_out.send(fired.view(np.int8))
        self.u_out.send(membrane)  # copied into the channel, so that v may share its memory
        self.v = membrane
        after_spike = np.where(gate_logit > self.gate_threshold, self.reset_potential, membrane - self.soft_reset)
        np.copyto(self.v, after_spike, where=fired)


@implements(proc=GatedResetLIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("bit_accurate_loihi", "fixed_pt")
class GatedResetLIFFixed(PyLoihiProcessModel):
    """The integer equations: int32 storage, wider only between two of its operations."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    g_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int8)
    u_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    v: npt.NDArray[np.int32] = LavaPyType(np.ndarray, np.int32, precision=24)
    decay: npt.NDArray[np.int32] = LavaPyType(np.ndarray, np.int32, precision=12)
    gain: npt.NDArray[np.int32] = LavaPyType(np.ndarray, np.int32)
    threshold: npt.NDArray[np.int32] = LavaPyType(np.ndarray, np.int32, precision=24)
    reset_potential: npt.NDArray[np.int32] = LavaPyType(np.ndarray, np.int32, precision=24)
    soft_reset: npt.NDArray[np.int32] = LavaPyType(np.ndarray, np.int32, precision=24)
    gate_threshold: npt.NDArray[np.int32] = LavaPyType(np.ndarray, np.int32)
    shift: npt.NDArray[np.int32] = LavaPyType(np.ndarray, np.int32)

    def run_spk(self) -> None:
        """One time step; `time_step` counts from 1."""
        current = self.a_in.recv()
        gate = self.g_in.recv()
        if self.time_step <= self.proc_params["onset"]:
            self.s_out.send(np.zeros(self.v.shape, dtype=np.int8))
            self.u_out.send(self.v)
            return
        # A 32-bit current shifted by 6 and a 24-bit potential times 4096 both need more than 32 bits.
        magnitude = np.multiply(np.abs(self.v), self.decay, dtype=np.int64) >> DECAY_BITS  # truncates toward zero
        wide = np.where(self.v < 0, -magnitude, magnitude)
        wide += np.left_shift(current, self.shift, dtype=np.int64)
        membrane = np.clip(wide, -STATE_LIMIT, STATE_LIMIT).astype(np.int32)
        fired = membrane >= self.threshold
        self.s_out.send(fired.view(np.int8))
        self.u_out.send(membrane)
        self.v = membrane
        after_spike = np.where(gate > self.gate_threshold, self.reset_potential, membrane - self.soft_reset)
        np.copyto(self.v, after_spike, where=fired)
