"""Checkpoint to the exported neuron: the readouts and the gated-reset neuron of a trained tokenizer.

    features (D) -> Affine [current; gate] (2N x D) -> GatedResetLIF (N) -> spikes

The graph begins at the encoder's features: the encoder itself (embedding, LayerNorm, GELU, a transformer) has no
counterpart in NIR. The reset mode is written into numbers, so that a reader needs no mode: modes that ignore the gate
get a constant gate (weights 0, bias +1 or -1), modes without a soft reset get reset_scale 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import UnsupportedExport
from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.inference.compile_table import refusals
from speak_neuro.neuron.resets import compiled_reset
from speak_neuro.systems.system import System
from speak_neuro.tokenizer.module import SpeakTokenizer


def export_neuron(system: System, metadata: dict[str, Any] | None = None) -> ExportedNeuron:
    """The boundary neuron and its readouts as plain float32 arrays."""
    reasons = refusals(system)
    if reasons:
        raise UnsupportedExport("cannot be exported exactly: " + "; ".join(reasons))
    tokenizer = system.tokenizer
    rows = tokenizer.readouts()
    weight = np.concatenate([row.detach().cpu().numpy() for row, _ in rows]).astype(np.float32)
    bias = np.concatenate([row.detach().cpu().numpy() for _, row in rows]).astype(np.float32)
    rule = compiled_reset(tokenizer.neuron.mode).gate_rule
    if rule is not None:
        weight[1], bias[1] = 0.0, 1.0 if rule else -1.0

    return ExportedNeuron(weight=weight, bias=bias, **constants_of(tokenizer), metadata=metadata or {})


def constants_of(tokenizer: SpeakTokenizer) -> dict[str, npt.NDArray[np.float32]]:
    """The neuron's constants by the names of ExportedNeuron, (1,) each, the reset mode written into them."""
    p = tokenizer.neuron.parameters_numpy()
    values = {
        "decay": p.decay,
        "gain": p.gain,
        "threshold": p.threshold,
        "reset_potential": p.reset_potential,
        "reset_scale": p.reset_scale if compiled_reset(p.mode).soft else 0.0,
        "gate_threshold": 0.0,
    }
    return {name: np.asarray(value, dtype=np.float32).reshape(1) for name, value in values.items()}
