"""A delay of whole steps, one for each element: zeros before the first value comes through.

With every delay above 0 it sends before it receives, so that a loop through it goes on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class DelayLine(AbstractProcess):
    """`steps` (elements,), the delay of each element of a sequence. Ports of shape (batch * elements,)."""

    def __init__(self, *, steps: Any, batch: int) -> None:
        super().__init__(steps=np.tile(steps, batch))
        self.s_in = InPort(shape=(batch * len(steps),))
        self.s_out = OutPort(shape=(batch * len(steps),))


@implements(proc=DelayLine, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class DelayLineFloat32(PyLoihiProcessModel):
    """Of float32 values; exact for any spike and number."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float32)
    kind: Any = np.float32

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.steps = proc_params["steps"]
        self.past = np.zeros((int(self.steps.max(initial=0)) + 1, self.steps.size), dtype=self.kind)
        self.columns = np.arange(self.steps.size)

    def run_spk(self) -> None:
        """One time step; row 0 of the past is the newest."""
        self.past[1:] = self.past[:-1].copy()
        if self.steps.min(initial=1) > 0:
            self.s_out.send(self.past[self.steps, self.columns])
            self.past[0] = self.s_in.recv()
        else:
            self.past[0] = self.s_in.recv()
            self.s_out.send(self.past[self.steps, self.columns])


@implements(proc=DelayLine, protocol=LoihiProtocol)
@requires(CPU)
@tag("bit_accurate_loihi", "fixed_pt")
class DelayLineFixed(DelayLineFloat32):
    """Of 32-bit integers."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    kind: Any = np.int32
