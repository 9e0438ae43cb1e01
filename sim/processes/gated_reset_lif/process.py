"""The gated-reset leaky integrate-and-fire neuron as a Lava process with a float32 model.

Per lane, each time step, in this order, every operation rounded to float32:

    u = decay * v + gain * a_in                          potential before reset (paper Eq. 1)
    s = u >= threshold                                   spike; >=, where Lava's stock LIF has >
    m = g_in > gate_threshold                            gate (Eq. 9)
    v = u | reset_potential | u - soft_reset             no spike | spike with the gate open | spike with it closed
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


class GatedResetLIF(AbstractProcess):
    """`lanes` independent neurons. Constants are numbers or arrays of shape (lanes,).

    Ports, all of shape (lanes,): `a_in` current, `g_in` gate logit, `s_out` spikes as 0 and 1, `u_out` the potential
    before reset. For its first `onset` steps the neuron holds its state and stays silent: the time its inputs need to
    arrive, so that their latency changes nothing whatever the constants are.
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
        onset: int = 0,
    ) -> None:
        super().__init__(onset=onset)
        shape = (lanes,)
        self.a_in = InPort(shape=shape)
        self.g_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)
        self.u_out = OutPort(shape=shape)
        soft_reset = np.multiply(np.float32(reset_scale), np.float32(threshold), dtype=np.float32)  # rounded once
        self.v = Var(shape=shape, init=_lanes(reset_potential, shape))
        self.decay = Var(shape=shape, init=_lanes(decay, shape))
        self.gain = Var(shape=shape, init=_lanes(gain, shape))
        self.threshold = Var(shape=shape, init=_lanes(threshold, shape))
        self.reset_potential = Var(shape=shape, init=_lanes(reset_potential, shape))
        self.soft_reset = Var(shape=shape, init=_lanes(soft_reset, shape))
        self.gate_threshold = Var(shape=shape, init=_lanes(gate_threshold, shape))


def _lanes(value: Any, shape: tuple[int, ...]) -> Any:
    return np.broadcast_to(np.asarray(value, dtype=np.float32), shape).copy()


@implements(proc=GatedResetLIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class GatedResetLIFFloat32(PyLoihiProcessModel):
    """The equations above in numpy float32; inputs are cast, since a port delivers its sender's type."""

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

    def run_spk(self) -> None:
        """One time step; `time_step` counts from 1."""
        current = self.a_in.recv().astype(np.float32)
        gate_logit = self.g_in.recv().astype(np.float32)
        if self.time_step <= self.proc_params["onset"]:
            self.s_out.send(np.zeros(self.v.shape, dtype=np.int8))
            self.u_out.send(self.v)
            return
        leaked = self.decay * self.v
        driven = self.gain * current
        membrane = leaked + driven
        fired = membrane >= self.threshold
        after_spike = np.where(gate_logit > self.gate_threshold, self.reset_potential, membrane - self.soft_reset)
        self.v = np.where(fired, after_spike, membrane)
        self.s_out.send(fired.astype(np.int8))
        self.u_out.send(membrane)
