"""The whole tokenizer as a Lava network: characters in as spikes, boundaries out. Imports Lava.

    characters -> synapses --current--> neuron -> recorder
                           ---gate---->

Nothing of the tokenizer runs outside: the synapses are tables (export.files.folded_file), and one lane is one text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.sim.child.network import MODELS, Network, aligned_latency, gated_neurons, shared
from speak_neuro.sim.processes.character_source.process import CharacterSource, CharacterSourceModel
from speak_neuro.sim.processes.recorder.process import Recorder
from speak_neuro.sim.processes.table_synapse.process import TableSynapse, TableSynapseFloat32


def character_network(
    events: npt.NDArray[np.int32], tables: npt.NDArray[np.float32], constants: Mapping[str, Any]
) -> Network:
    """`events` (T, lanes) as CharacterSource takes them, `tables` (k, 2, V), `constants` of `gated_neurons`."""
    steps, lanes = events.shape
    source = CharacterSource(data=events)
    synapse = TableSynapse(lanes=lanes, tables=tables)
    neuron = gated_neurons(lanes, constants)
    source.s_out.connect(synapse.s_in)
    synapse.a_out.connect(neuron.x_in)
    synapse.g_out.connect(neuron.g_in)
    latency = aligned_latency(neuron)
    neuron.proc_params.overwrite("onset", latency)
    counter = shared((1,), np.int64)
    data = shared((steps + latency, lanes), np.int8)
    recorder = Recorder(data=data, counter=counter)
    neuron.s_out.connect(recorder.a_in)
    models = {
        source: CharacterSourceModel,
        synapse: TableSynapseFloat32,
        **{process: MODELS[type(process)] for process in (neuron, recorder)},
    }
    return Network(neuron, models, steps + latency, steps, counter, {"spikes": (recorder, data)})
