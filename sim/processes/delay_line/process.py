"""A delay of whole steps, one for each element: zeros before the first value comes through.

With every delay above 0 it sends before it receives, so that a loop through it goes on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from speak_neuro.sim.processes import base


class DelayLine(base.Process):
    """`steps` (elements,), the delay of each element of a sequence. Ports of shape (batch * elements,)."""

    def __init__(self, *, steps: Any, batch: int) -> None:
        super().__init__(steps=np.tile(steps, batch))
        self.s_in = base.InPort(shape=(batch * len(steps),))
        self.s_out = base.OutPort(shape=(batch * len(steps),))


@base.float32(DelayLine)
class DelayLineFloat32(base.Model):
    """Of float32 values; exact for any spike and number."""

    s_in: Any = base.receives(np.float32)
    s_out: Any = base.sends(np.float32)
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


@base.fixed(DelayLine)
class DelayLineFixed(DelayLineFloat32):
    """Of 32-bit integers."""

    s_in: Any = base.receives(np.int32)
    s_out: Any = base.sends(np.int32)
    kind: Any = np.int32
