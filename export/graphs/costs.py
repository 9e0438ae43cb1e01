"""What a tokenizer costs on a neuromorphic chip, per character, by NeuroBench's definitions, and an energy estimate.

NeuroBench (Yik et al. 2025) counts, of the layers that are exported:

    dense synaptic operations       every weight, at every step, whatever the input
    effective synaptic operations   weights that are not zero, at inputs that are not zero: ACs where inputs are spikes
                                    (an addition each), MACs where they are numbers (a multiplication too); no biases
    activation sparsity             share of zeros among the neurons' outputs
    connection sparsity             share of zeros among the weights
    footprint                       bytes of weights, constants and state

Energy is an estimate: operations times published figures for the first Loihi. They were simulated before there was
silicon, leave out what the chip draws when idle, input and output, and the host, and no Loihi 2 was measured here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.export.files.folded_file import Folded
from speak_neuro.export.files.neuron_file import NEURON_FIELDS, ExportedNeuron


@dataclass(frozen=True)
class Figure:
    """A published number and where it is from."""

    picojoules: float
    operation: str
    source: str


PAPER = (
    "M. Davies et al., Loihi: A Neuromorphic Manycore Processor with On-Chip Learning, IEEE Micro 38(1), 2018, Table 2"
)
CAVEAT = "pre-silicon SDF and SPICE simulation, minimum, 14 nm"
LOIHI = {
    "synaptic": Figure(
        23.6, "one synaptic operation", f"{PAPER} ({CAVEAT}), as cited by KerasSpiking's ModelEnergy and by SANA-FE"
    ),
    "active": Figure(
        81.0, "update of a neuron that has input", f"{PAPER} ({CAVEAT}), as cited by KerasSpiking and by SANA-FE"
    ),
    "idle": Figure(52.0, "update of a neuron without input", f"{PAPER} ({CAVEAT}), as cited by SANA-FE"),
    "spike": Figure(1.7, "a spike within its tile", f"{PAPER} ({CAVEAT}), as cited by SANA-FE"),
}
"""The paper itself was not at hand: the figures are as two public tools that name it as their source have them."""


@dataclass(frozen=True)
class Costs:
    """Means per character, unless the name says otherwise."""

    characters: int
    """Length of the text they are means over."""
    dense_synops: float
    effective_acs: float
    effective_macs: float
    neuron_updates: float
    input_spikes: float
    """Non-zero inputs."""
    output_spikes: float
    activation_sparsity: float
    input_sparsity: float
    connection_sparsity: float
    synapses: int
    """In all."""
    footprint_bytes: int
    """In all."""
    picojoules: float
    """Estimated; see `LOIHI`."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def folded_costs(folded: Folded, texts: Iterable[npt.ArrayLike]) -> Costs:
    """Of a folded tokenizer over texts of character indices, each from its beginning."""
    present = np.count_nonzero(folded.taps, axis=1)  # (k, V): synapses that a character excites, by delay
    characters = operations = spikes = 0
    for text in texts:
        ids = np.asarray(text, dtype=np.int64)
        characters += ids.size
        spikes += int(folded.spikes(ids).sum()) if ids.size else 0
        for delay, counts in enumerate(present):
            operations += int(counts[ids[: max(0, ids.size - delay)]].sum())
    return _costs(
        characters=characters,
        dense=folded.taps.size,
        acs=operations,
        macs=0,
        inputs=characters,
        width=folded.characters,
        neurons=folded.neuron.neurons,
        spikes=spikes,
        weights=folded.taps,
        extra=0,
    )


def readout_costs(
    exported: ExportedNeuron, features: npt.NDArray[np.float32], spikes: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
) -> Costs:
    """Of readout and neuron over a trace, (B, L, D) features; the encoder before them runs on the host."""
    real = features[valid]
    by_feature = np.count_nonzero(real, axis=0)
    return _costs(
        characters=int(valid.sum()),
        dense=exported.weight.size,
        acs=0,
        macs=int(by_feature @ np.count_nonzero(exported.weight, axis=0)),
        inputs=int(by_feature.sum()),
        width=exported.features,
        neurons=exported.neurons,
        spikes=int(np.asarray(spikes)[valid].sum()),
        weights=exported.weight,
        extra=exported.bias.nbytes,
    )


def _costs(
    *,
    characters: int,
    dense: int,
    acs: int,
    macs: int,
    inputs: int,
    width: int,
    neurons: int,
    spikes: int,
    weights: npt.NDArray[np.float32],
    extra: int,
) -> Costs:
    each = max(characters, 1)
    state = 4 * neurons
    energy = (
        LOIHI["synaptic"].picojoules * (acs + macs)
        + LOIHI["active"].picojoules * neurons * characters  # every character brings every neuron an input
        + LOIHI["spike"].picojoules * (inputs + spikes)
    )
    return Costs(
        characters=characters,
        dense_synops=float(dense),
        effective_acs=acs / each,
        effective_macs=macs / each,
        neuron_updates=float(neurons),
        input_spikes=inputs / each,
        output_spikes=spikes / each,
        activation_sparsity=1 - spikes / (each * neurons),
        input_sparsity=1 - inputs / (each * width),
        connection_sparsity=1 - np.count_nonzero(weights) / weights.size,
        synapses=int(weights.size),
        footprint_bytes=weights.nbytes + extra + 4 * neurons * len(NEURON_FIELDS) + state,
        picojoules=energy / each,
    )
