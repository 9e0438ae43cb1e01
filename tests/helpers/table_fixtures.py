"""Tables and texts for the tests of the table tokenizer."""

from __future__ import annotations

import string

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from speak_neuro.neuron.reference import NeuronParameters, gated_lif_run
from speak_neuro.neuron.resets import RESETS, compiled_reset
from speak_neuro.table.table import CompiledTable
from speak_neuro.text.alphabet import Alphabet

CHARACTERS = string.ascii_lowercase + " .,\n\r\x00éßשלםאבгдежзий的一是不了𝔸👩😀\u200d\u0301\ud800\udfff"
LETTERS = st.sampled_from(CHARACTERS + "XYZ漢\ufeff\U0010ffff")
TEXTS = st.lists(LETTERS | st.characters(), max_size=120).map("".join)

NEURONS = {
    mode: NeuronParameters(mode=mode)  # type: ignore[arg-type]
    for mode in RESETS
} | {"leaky": NeuronParameters(decay=0.9, gain=1.3, threshold=0.7, reset_potential=-0.2, reset_scale=0.6)}


def make_table(neuron: NeuronParameters | None = None, taps: int = 1) -> CompiledTable:
    """Random currents that fire about every third character, and gates."""
    neuron = neuron or NeuronParameters()
    random = np.random.default_rng(0)
    alphabet = Alphabet(CHARACTERS)
    current = random.uniform(-0.1, 0.8, (taps, len(alphabet)))
    gate = random.normal(0, 1, (taps, len(alphabet)))
    current[1:] -= 0.35
    if (rule := compiled_reset(neuron.mode).gate_rule) is not None:
        gate[:] = 0
        gate[0] = 1 if rule else -1
    return CompiledTable(alphabet, current.astype(np.float32), gate.astype(np.float32), neuron)


def make_tables() -> dict[str, CompiledTable]:
    """Every reset mode, constants other than 1, and sums over several characters."""
    tables = {name: make_table(neuron) for name, neuron in NEURONS.items()}
    tables["below zero"] = make_table(NeuronParameters(threshold=-0.5, reset_potential=-1.5))
    tables["at zero"] = make_table(NeuronParameters(threshold=0.0, reset_potential=-1.0, mode="hard"))
    return tables | {"two taps": make_table(taps=2), "five taps": make_table(NEURONS["leaky"], taps=5)}


def oracle(table: CompiledTable, text: str) -> npt.NDArray[np.bool_]:
    """Spikes by the reference neuron, of sums that are added one by one."""
    ids = table.alphabet.encode(text)

    def summed(parts: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        totals = np.zeros(ids.size, dtype=np.float32)
        for t in range(ids.size):
            totals[t] = parts[0, ids[t]]
            for delay in range(1, len(parts)):
                totals[t] += parts[delay, ids[t - delay]] if t >= delay else 0
        return totals

    return gated_lif_run(summed(table.current)[None], summed(table.gate)[None], table.neuron).spikes[0]
