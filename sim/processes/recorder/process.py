"""A sink that writes what arrives, one row a time step, into an array its creator shares.

Reading a variable back through Lava costs a message per element, minutes for a wide run. An anonymous shared mapping
made before the simulation forks costs nothing, has no name and cannot be left behind.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class Recorder(AbstractProcess):
    """`data` of shape (steps, lanes) over shared memory; port `a_in` of shape (lanes,).

    `counter`, shared too and of shape (1,), holds the steps recorded so far.
    """

    def __init__(self, *, data: Any, counter: Any) -> None:
        super().__init__(data=data, counter=counter)
        self.a_in = InPort(shape=(data.shape[1],))


@implements(proc=Recorder, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class RecorderModel(PyLoihiProcessModel):
    """Declares the narrowest type, since a port adds what arrives to zeros of its own: the sender's type survives."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int8)

    def run_spk(self) -> None:
        """Record this step's row; more steps than rows, or a lossy change of kind, is an error."""
        step = self.time_step
        np.copyto(self.proc_params["data"][step - 1], self.a_in.recv(), casting="same_kind")
        self.proc_params["counter"][0] = step
