"""A checkpoint's tables: everything before the neuron as numbers by character, and the folded tokenizer made of them.

    linear        one table: the currents and gate logits of each character, exactly those that inference looks up
    convolution   its own k tables, one for each delay

What is more than a sum over single characters, as `window` and `hourglass` are, has none and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speak_neuro.errors import UnsupportedExport
from speak_neuro.export.files.folded_file import Folded
from speak_neuro.export.graph import constants_of
from speak_neuro.inference.compile_table import character_tables, no_tables
from speak_neuro.inference.engine import BoundaryEngine

AXON_LIMIT = 4096
"""Input axons of one Loihi core, one per character: nengo-loihi's MAX_IN_AXONS (nengo_loihi/block.py), a figure of the
first Loihi. Intel documents none for Loihi 2 in public, so there it is an assumption; --axon-limit changes it."""
DELAY_LIMIT = 63
"""Steps of the longest synaptic delay on Loihi 2, six bits, as Lava's fixed-point DelayDense says and checks."""


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
