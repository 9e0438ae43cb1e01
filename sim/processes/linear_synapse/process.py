"""The synapses of a linear layer, one set of weights for all B sequences: y = W x + b, a step later.

Like Lava's Dense the process holds its result for one step and sends before it receives. Dense shares no weights among
sequences: B of them would need a block-diagonal matrix of B^2 times the size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from speak_neuro.sim.processes import base


class LinearSynapse(base.Process):
    """`layer` has `apply`, from (batch, inputs) to (batch, outputs). Ports (batch * inputs,) and (batch * outputs,).

    For its first `onset` steps it sends zeros, the bias too: nothing has arrived yet.
    """

    def __init__(self, *, layer: Any, batch: int, inputs: int, outputs: int, onset: int) -> None:
        super().__init__(layer=layer, batch=batch, onset=onset)
        self.s_in = base.InPort(shape=(batch * inputs,))
        self.a_out = base.OutPort(shape=(batch * outputs,))


@base.float32(LinearSynapse)
class LinearSynapseFloat32(base.Model):
    """In float32."""

    s_in: Any = base.receives(np.float32)
    a_out: Any = base.sends(np.float32)
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


@base.fixed(LinearSynapse)
class LinearSynapseFixed(LinearSynapseFloat32):
    """In integers: weights of 8 or 16 bits, graded spikes and sums of up to 32."""

    s_in: Any = base.receives(np.int32)
    a_out: Any = base.sends(np.int32)
    kind: Any = np.int64
