"""A source that plays a time-major array, or two side by side, one row a time step, and zeros when they are over.

Two arrays from one process: in Lava every process costs a step more than its ports do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class ArraySource(AbstractProcess):
    """`data` of shape (steps, channels), float32 or int32, goes to `s_out`; `second`, if any, like it, to `g_out`."""

    def __init__(self, *, data: Any, second: Any = None) -> None:
        if second is not None and (second.shape != data.shape or second.dtype != data.dtype):
            raise ValueError(f"second is {second.dtype} of shape {second.shape}; allowed: {data.dtype}, {data.shape}")
        super().__init__(data=data, second=second)
        self.s_out = OutPort(shape=(data.shape[1],))
        self.g_out = OutPort(shape=(data.shape[1],))


@implements(proc=ArraySource, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class ArraySourceFloat32(PyLoihiProcessModel):
    """Sends row `time_step` (counting from 1)."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float32)
    g_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float32)

    def run_spk(self) -> None:
        """Send this step's row."""
        step = self.time_step - 1
        for port, data in ((self.s_out, self.proc_params["data"]), (self.g_out, self.proc_params["second"])):
            if data is not None:
                port.send(data[step] if step < len(data) else np.zeros(data.shape[1], dtype=data.dtype))


@implements(proc=ArraySource, protocol=LoihiProtocol)
@requires(CPU)
@tag("bit_accurate_loihi", "fixed_pt")
class ArraySourceInt32(ArraySourceFloat32):
    """Sends row `time_step` as 32-bit graded spikes."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    g_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
