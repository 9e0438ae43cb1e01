"""Synapses from characters to the two inputs of a neuron, with delays: what a spike causes is looked up, not computed.

Per lane, with c_t the character whose spike arrives at step t, all in float32 and from left to right:

    a_out at t + 1 = ((T_0[c_t] + T_1[c_{t-1}]) + ...) + T_{k-1}[c_{t-k+1}]        current
    g_out at t + 1 = the same with the gate's tables

A step without a spike adds 0. That is a Dense with k delays and two rows for each lane, of whose V columns one is
active, and it holds its result for one step as Dense does: it sends before it receives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.sim.processes import base


class TableSynapse(base.Process):
    """`tables` of shape (k, 2, V), float32: delay, current or gate, character. Ports of shape (lanes,)."""

    def __init__(self, *, lanes: int, tables: Any) -> None:
        super().__init__(lanes=lanes, tables=tables)
        self.s_in = base.InPort(shape=(lanes,))
        self.a_out = base.OutPort(shape=(lanes,))
        self.g_out = base.OutPort(shape=(lanes,))


@base.float32(TableSynapse)
class TableSynapseFloat32(base.Model):
    """Keeps the last k events of each lane, newest first; an event of 0 is no spike and has the weight 0."""

    s_in: Any = base.receives(np.int32)
    a_out: Any = base.sends(np.float32)
    g_out: Any = base.sends(np.float32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        tables: npt.NDArray[np.float32] = proc_params["tables"]
        silent = np.zeros((*tables.shape[:2], 1), dtype=np.float32)
        self.weights = np.concatenate([silent, tables], axis=2)
        self.events = np.zeros((len(tables), proc_params["lanes"]), dtype=np.int32)
        self.held = np.zeros((2, proc_params["lanes"]), dtype=np.float32)

    def run_spk(self) -> None:
        """One time step."""
        self.a_out.send(self.held[0])
        self.g_out.send(self.held[1])
        self.events[1:] = self.events[:-1].copy()
        self.events[0] = self.s_in.recv()
        held = self.weights[0][:, self.events[0]]
        for weights, events in zip(self.weights[1:], self.events[1:], strict=True):
            held = held + weights[:, events]
        self.held = held
