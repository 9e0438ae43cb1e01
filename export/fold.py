"""A checkpoint's tables: everything before the neuron as numbers by character, and the folded tokenizer made of them.

    linear        one table: the currents and gate logits of each character, exactly those that inference looks up
    convolution   its own k tables, one for each delay

What is more than a sum over single characters, as `window` and `hourglass` are, has none and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.export.files.folded_file import Folded
from speak_neuro.export.graph import UnsupportedExport, constants_of, refusals
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.neuron.reference import GATE_RULE
from speak_neuro.systems.system import System

AXON_LIMIT = 4096
"""Input axons of one Loihi core, one per character: nengo-loihi's MAX_IN_AXONS (nengo_loihi/block.py), a figure of the
first Loihi. Intel documents none for Loihi 2 in public, so there it is an assumption; --axon-limit changes it."""
DELAY_LIMIT = 63
"""Steps of the longest synaptic delay on Loihi 2, six bits, as Lava's fixed-point DelayDense says and checks."""


def no_tables(system: System) -> list[str]:
    """Why current and gate logit are no sums of tables over single characters; empty when they are."""
    reasons = refusals(system)
    if not system.is_speak:
        return reasons
    encoder = system.tokenizer.encoder
    if encoder.of_one_character:
        # Inside the table tanh is a number like any other.
        return [reason for reason in reasons if not reason.startswith("tanh ")]
    if encoder.why_no_table:
        reasons.insert(
            0,
            f"the {system.config.tokenizer.encoder} encoder is no sum of tables over single characters: "
            f"{encoder.why_no_table}; train with --encoder linear or --encoder convolution",
        )
    return reasons


def character_tables(engine: BoundaryEngine) -> npt.NDArray[np.float32]:
    """(k, 2, V) parts of current and gate logit by delay and character, of a system without `no_tables`.

    These are the very float32 values that inference computes with. Where the reset mode ignores the gate, the first
    table has it as +1 or -1 and the others have 0.
    """
    if engine.table is not None:
        _, current, gate = engine.table
        return np.stack([_numpy(current), _numpy(gate)])[None]
    tables, grid = engine.tokenizer.encoder.tables, engine.tokenizer.grid
    assert tables is not None  # `no_tables` refuses the others
    tables = tables if grid is None else grid.features(tables, parts=True)
    parts = np.ascontiguousarray(_numpy(tables).transpose(0, 2, 1))
    rule = GATE_RULE[engine.tokenizer.neuron.mode]
    if rule is not None:
        parts[:, 1] = 0.0
        parts[0, 1] = 1.0 if rule else -1.0
    return parts


def fold_refusals(engine: BoundaryEngine, axon_limit: int = AXON_LIMIT) -> list[str]:
    """Why this tokenizer cannot be folded; empty when it can."""
    reasons = no_tables(engine.system)
    characters, delay = engine.system.language_model.config.vocabulary, engine.tokenizer.encoder.left_context
    if characters > axon_limit:
        reasons.append(
            f"the alphabet has {characters} characters, one core takes {axon_limit} input axons "
            "(Loihi's figure, assumed for Loihi 2); use a smaller alphabet, or raise --axon-limit"
        )
    if not engine.tokenizer.encoder.why_no_table and delay > DELAY_LIMIT:
        reasons.append(
            f"the oldest of {delay + 1} characters is {delay} steps old, "
            f"a synapse delays by at most {DELAY_LIMIT}; train with a smaller --context"
        )
    return reasons


def fold(engine: BoundaryEngine, metadata: Mapping[str, Any] | None = None, axon_limit: int = AXON_LIMIT) -> Folded:
    """The tokenizer as tables and a neuron; with them every text has the boundaries that inference gives it."""
    reasons = fold_refusals(engine, axon_limit)
    if reasons:
        raise UnsupportedExport("cannot be folded: " + "; ".join(reasons))
    return Folded.of(character_tables(engine), constants_of(engine.tokenizer), metadata or {})


def _numpy(tensor: Any) -> npt.NDArray[np.float32]:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32)
