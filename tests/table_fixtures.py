"""Tables and texts for the tests of the table tokenizer."""

from __future__ import annotations

import string

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from speak_neuro.alphabet import Alphabet
from speak_neuro.reference import RESET_MODES, NeuronParameters, gated_lif_run
from speak_neuro.table import CompiledTable

CHARACTERS = string.ascii_lowercase + " .,\n\r\x00éßשלםאבгдежзий的一是不了𝔸👩😀\u200d\u0301\ud800\udfff"
LETTERS = st.sampled_from(CHARACTERS + "XYZ漢\ufeff\U0010ffff")
TEXTS = st.lists(LETTERS | st.characters(), max_size=120).map("".join)

NEURONS = {
    mode: NeuronParameters(mode=mode)  # type: ignore[arg-type]
    for mode in RESET_MODES
} | {"leaky": NeuronParameters(decay=0.9, gain=1.3, threshold=0.7, reset_potential=-0.2, reset_scale=0.6)}


def make_table(neuron: NeuronParameters | None = None, seed: int = 0) -> CompiledTable:
    """Random currents that fire about every third character, and gates."""
    neuron = neuron or NeuronParameters()
    random = np.random.default_rng(seed)
    alphabet = Alphabet(CHARACTERS)
    current = random.uniform(-0.1, 0.8, len(alphabet)).astype(np.float32)
    hard = random.random(len(alphabet)) < 0.4
    if neuron.mode in ("hard", "soft", "none"):
        hard[:] = neuron.mode == "hard"
    return CompiledTable(alphabet, current, hard, neuron)


def oracle(table: CompiledTable, text: str) -> npt.NDArray[np.bool_]:
    """Spikes by the reference neuron."""
    ids = table.alphabet.encode(text)
    gate = np.where(table.hard[ids], 1, -1).astype(np.float32)
    return gated_lif_run(table.current[ids][None], gate[None], table.neuron).spikes[0]
