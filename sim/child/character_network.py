"""The whole tokenizer as a Lava network: characters in as spikes, boundaries out. Imports Lava.

    characters -> synapses --current--> neuron -> recorder
                           ---gate---->

Nothing of the tokenizer runs outside: the synapses are tables (export.files.folded_file), and one lane is one text. A
character is an event, one spike a lane and time step: a one-hot row of V lines with one spike in it and the address of
that spike say the same. The address is what a chip sends (address-event representation), and here it keeps a step as
small as the number of lanes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.sim.child.network import MODELS, Network, gated_neurons, recorded
from speak_neuro.sim.processes.array_source.process import ArraySource, ArraySourceInt32
from speak_neuro.sim.processes.table_synapse.process import TableSynapse, TableSynapseFloat32


def character_network(
    events: npt.NDArray[np.int32], tables: npt.NDArray[np.float32], constants: Mapping[str, Any]
) -> Network:
    """`events` (T, lanes) are 0 for no spike, 1 + index for a character's; `tables` (k, 2, V), `constants` of
    `gated_neurons`."""
    steps, lanes = events.shape
    source = ArraySource(data=events)
    synapse = TableSynapse(lanes=lanes, tables=tables)
    neuron = gated_neurons(lanes, constants)
    source.s_out.connect(synapse.s_in)
    synapse.a_out.connect(neuron.x_in)
    synapse.g_out.connect(neuron.g_in)
    models = {**MODELS, ArraySource: ArraySourceInt32, TableSynapse: TableSynapseFloat32}
    return recorded(neuron, [source, synapse], {}, steps, models=models, potential=False)
