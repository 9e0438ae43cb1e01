"""A source that plays a time-major array, one row a time step, and zeros when the array is over."""

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
    """`data` of shape (steps, channels), float32 or int32; port `s_out` of shape (channels,)."""

    def __init__(self, *, data: Any) -> None:
        super().__init__(data=data)
        self.s_out = OutPort(shape=(data.shape[1],))


@implements(proc=ArraySource, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class ArraySourceFloat32(PyLoihiProcessModel):
    """Sends row `time_step` (counting from 1)."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float32)

    def run_spk(self) -> None:
        """Send this step's row."""
        data = self.proc_params["data"]
        step = self.time_step - 1
        self.s_out.send(data[step] if step < len(data) else np.zeros(data.shape[1], dtype=data.dtype))


@implements(proc=ArraySource, protocol=LoihiProtocol)
@requires(CPU)
@tag("bit_accurate_loihi", "fixed_pt")
class ArraySourceInt32(ArraySourceFloat32):
    """Sends row `time_step` as 32-bit graded spikes."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
