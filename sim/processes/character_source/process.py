"""A source that plays text as events: one spike a lane and time step, named by the character that it stands for.

A one-hot row of V lines with one spike in it and the address of that spike say the same. The address is what a chip
sends (address-event representation), and here it keeps a step as small as the number of lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from speak_neuro.sim.processes import base


class CharacterSource(base.Process):
    """`data` of shape (steps, lanes), int32: 0 for no spike, 1 + index for a character's. Port `s_out` (lanes,)."""

    def __init__(self, *, data: Any) -> None:
        super().__init__(data=data)
        self.s_out = base.OutPort(shape=(data.shape[1],))


@base.float32(CharacterSource)
class CharacterSourceModel(base.Model):
    """Sends row `time_step` (counting from 1), and no spikes when the text is over."""

    s_out: Any = base.sends(np.int32)

    def run_spk(self) -> None:
        """Send this step's events."""
        data = self.proc_params["data"]
        step = self.time_step - 1
        self.s_out.send(data[step] if step < len(data) else np.zeros(data.shape[1], dtype=np.int32))
