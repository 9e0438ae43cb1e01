"""A source that plays a time-major array, or two side by side, one row a time step, and zeros when they are over.

Two arrays from one process: in Lava every process costs a step more than its ports do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from speak_neuro.sim.processes import base


class ArraySource(base.Process):
    """`data` of shape (steps, channels), float32 or int32, goes to `s_out`; `second`, if any, like it, to `g_out`."""

    def __init__(self, *, data: Any, second: Any = None) -> None:
        if second is not None and (second.shape != data.shape or second.dtype != data.dtype):
            raise ValueError(f"second is {second.dtype} of shape {second.shape}; allowed: {data.dtype}, {data.shape}")
        super().__init__(data=data, second=second)
        self.s_out = base.OutPort(shape=(data.shape[1],))
        self.g_out = base.OutPort(shape=(data.shape[1],))


@base.float32(ArraySource)
class ArraySourceFloat32(base.Model):
    """Sends row `time_step` (counting from 1)."""

    s_out: Any = base.sends(np.float32)
    g_out: Any = base.sends(np.float32)

    def run_spk(self) -> None:
        """Send this step's row."""
        step = self.time_step - 1
        for port, data in ((self.s_out, self.proc_params["data"]), (self.g_out, self.proc_params["second"])):
            if data is not None:
                port.send(data[step] if step < len(data) else np.zeros(data.shape[1], dtype=data.dtype))


@base.fixed(ArraySource)
class ArraySourceInt32(ArraySourceFloat32):
    """Sends row `time_step` as 32-bit graded spikes."""

    s_out: Any = base.sends(np.int32)
    g_out: Any = base.sends(np.int32)
