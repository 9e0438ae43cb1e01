"""A sink that writes what arrives, one row a time step, into an array its creator shares.

Reading a variable back through Lava costs a message per element, minutes for a wide run. An anonymous shared mapping
made before the simulation forks costs nothing, has no name and cannot be left behind.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from speak_neuro.sim.processes import base


class Recorder(base.Process):
    """`data` of shape (steps, lanes) over shared memory; port `a_in` of shape (lanes,).

    `counter`, shared too and of shape (1,), holds the steps recorded so far.
    """

    def __init__(self, *, data: Any, counter: Any) -> None:
        super().__init__(data=data, counter=counter)
        self.a_in = base.InPort(shape=(data.shape[1],))


@base.float32(Recorder)
class RecorderModel(base.Model):
    """Declares the narrowest type, since a port adds what arrives to zeros of its own: the sender's type survives."""

    a_in: Any = base.receives(np.int8)

    def run_spk(self) -> None:
        """Record this step's row; more steps than rows, or a lossy change of kind, is an error."""
        step = self.time_step
        np.copyto(self.proc_params["data"][step - 1], self.a_in.recv(), casting="same_kind")
        self.proc_params["counter"][0] = step
