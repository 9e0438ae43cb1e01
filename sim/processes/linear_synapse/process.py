"""The synapses of a linear layer, one set of weights for all B sequences: y = W x + b, a step later.

Like Lava's Dense the process holds its result for one step and sends before it receives. Dense shares no weights among
sequences: B of them would need a block-diagonal matrix of B^2 times the size.
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


class LinearSynapse(AbstractProcess):
    """`layer` has `apply`, from (batch, inputs) to (batch, outputs). Ports (batch * inputs,) and (batch * outputs,).

    For its first `onset` steps it sends zeros, the bias too: nothing has arrived yet.
    """

    def __init__(self, *, layer: Any, batch: int, inputs: int, outputs: int, onset: int) -> None:
        super().__init__(layer=layer, batch=batch, onset=onset)
        self.s_in = InPort(shape=(batch * inputs,))
        self.a_out = OutPort(shape=(batch * outputs,))


@implements(proc=LinearSynapse, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class LinearSynapseFloat32(PyLoihiProcessModel):
    """In float32."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float32)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float32)
    kind: Any = np.float32

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.held: Any = None

    def run_spk(self) -> None:
        """One time step; `time_step` counts from 1."""
        silent = self.held is None or self.time_step <= self.proc_params["onset"]
        self.a_out.send(np.zeros(self.a_out.shape, dtype=self.kind) if silent else self.held)
        rows = self.s_in.recv().astype(self.kind, copy=False).reshape(self.proc_params["batch"], -1)
        self.held = self.proc_params["layer"].apply(rows).reshape(-1)


@implements(proc=LinearSynapse, protocol=LoihiProtocol)
@requires(CPU)
@tag("bit_accurate_loihi", "fixed_pt")
class LinearSynapseFixed(LinearSynapseFloat32):
    """In integers: weights of 8 or 16 bits, graded spikes and sums of up to 32."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    kind: Any = np.int64
