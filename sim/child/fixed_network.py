"""Lava networks in fixed point, the integer counterparts of `network`. Imports Lava: the child interpreter only.

    neuron level     source a, g -> neuron -> recorders
    readout level    source x -> Dense, high part -> neuron -> recorders     two Dense on one port where a lane's
                              -> Dense, low part  ->                         weights need more than 8 bits
                              -> ... the same for the gate

All ports carry 32-bit integers. Each Dense gets its weights as they are to be, its sign mode and its message bits said
explicitly: left alone, Lava infers the signs from the data and reads any graded spike as 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lava.proc.dense.models import PyDenseModelBitAcc
from lava.proc.dense.process import Dense
from lava.utils.weightutils import SignMode

from speak_neuro.common.array_types import Array
from speak_neuro.sim.child.network import GRADED, Network, gated_neurons, recorded
from speak_neuro.sim.processes.array_source.process import ArraySource, ArraySourceInt32
from speak_neuro.sim.processes.neuron_layer.process import NeuronLayer, NeuronLayerFixed
from speak_neuro.sim.processes.recorder.process import Recorder, RecorderModel

MODELS: dict[type, type] = {
    ArraySource: ArraySourceInt32,
    Dense: PyDenseModelBitAcc,
    NeuronLayer: NeuronLayerFixed,
    Recorder: RecorderModel,
}


def fixed_neuron_network(current: Array, gate: Array, constants: Mapping[str, Any]) -> Network:
    """The neuron alone: integers `current` and `gate` of shape (T, lanes), `constants` as IntegerNeuron's fields."""
    source = ArraySource(data=current.astype(np.int32), second=gate.astype(np.int32))
    neuron = gated_neurons(current.shape[1], constants, integers=True)
    source.s_out.connect(neuron.x_in)
    source.g_out.connect(neuron.g_in)
    return recorded(neuron, [source], {}, len(current), dtype=np.int32, models=MODELS)


def fixed_readout_network(
    payload: Array, parts: Sequence[tuple[int, Array, int]], constants: Mapping[str, Any]
) -> Network:
    """Readout and neuron: `payload` (T, lanes, D); each part is port (0 current, 1 gate), weights (D,) and exponent."""
    steps, lanes, _ = payload.shape
    source = ArraySource(data=payload.reshape(steps, -1).astype(np.int32))
    neuron = gated_neurons(lanes, constants, integers=True)
    ports = (neuron.x_in, neuron.g_in)
    dense, outputs = [], {"current": [], "gate_logit": []}  # type: ignore[var-annotated]
    for port, weight, exponent in parts:
        signs = SignMode.MIXED if (weight < 0).any() else SignMode.EXCITATORY
        connection = Dense(
            weights=np.kron(np.eye(lanes, dtype=np.int32), weight[None, :].astype(np.int32)),
            weight_exp=int(exponent),
            num_weight_bits=8,
            sign_mode=signs,
            num_message_bits=GRADED,
        )
        source.s_out.connect(connection.s_in)
        connection.a_out.connect(ports[port])
        dense.append(connection)
        outputs[("current", "gate_logit")[port]].append(connection.a_out)
    return recorded(neuron, [source, *dense], outputs, steps, dtype=np.int32, models=MODELS)
