"""Checkpoint to the folded tokenizer: everything before the neuron becomes tables over the alphabet.

    linear        one table: the currents and gate logits of each character, exactly those that inference looks up
    convolution   its own k tables, one for each delay

A `window` or `hourglass` encoder is a function of more than the sum of single characters and does not fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.export.files.folded_file import Folded
from speak_neuro.export.graph import UnsupportedExport, constants_of, refusals
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.neuron.reference import GATE_RULE
from speak_neuro.tokenizer.encoder import ConvolutionEncoder

AXON_LIMIT = 4096
"""Input axons of one Loihi core, one per character: nengo-loihi's MAX_IN_AXONS (nengo_loihi/block.py), a figure of the
first Loihi. Intel documents none for Loihi 2 in public, so there it is an assumption; --axon-limit changes it."""
DELAY_LIMIT = 63
"""Steps of the longest synaptic delay on Loihi 2, six bits, as Lava's fixed-point DelayDense says and checks."""


def fold_refusals(engine: BoundaryEngine, axon_limit: int = AXON_LIMIT) -> list[str]:
    """Why this tokenizer cannot be folded; empty when it can."""
    encoder = engine.tokenizer.encoder
    convolution = isinstance(encoder, ConvolutionEncoder)
    reasons = refusals(engine.system)
    if engine.table is not None:
        # Inside the table tanh is a number like any other.
        reasons = [reason for reason in reasons if not reason.startswith("tanh ")]
    elif not convolution:
        what = "a transformer" if encoder.needs_hidden else "LayerNorm and GELU over a window of characters"
        reasons.append(
            f"the {engine.encoder_name} encoder has {what}, which no sum of tables equals; "
            "train with --encoder linear or --encoder convolution"
        )
    characters = engine.system.language_model.config.vocabulary
    if characters > axon_limit:
        reasons.append(
            f"the alphabet has {characters} characters, one core takes {axon_limit} input axons "
            "(Loihi's figure, assumed for Loihi 2); use a smaller alphabet, or raise --axon-limit"
        )
    if convolution and encoder.left_context > DELAY_LIMIT:
        reasons.append(
            f"the oldest of {encoder.left_context + 1} characters is {encoder.left_context} steps old, "
            f"a synapse delays by at most {DELAY_LIMIT}; train with a smaller --context"
        )
    return reasons


def fold(engine: BoundaryEngine, metadata: Mapping[str, Any] | None = None, axon_limit: int = AXON_LIMIT) -> Folded:
    """The tokenizer as tables and a neuron; with them every text has the boundaries that inference gives it."""
    reasons = fold_refusals(engine, axon_limit)
    if reasons:
        raise UnsupportedExport("cannot be folded: " + "; ".join(reasons))
    if engine.table is not None:
        _, current, gate = engine.table
        taps = np.stack([_numpy(current), _numpy(gate)])[None]
    else:
        encoder = engine.tokenizer.encoder
        if not isinstance(encoder, ConvolutionEncoder):
            raise SpeakError(f"a {type(encoder).__name__} does not fold")
        grid = engine.tokenizer.grid
        tables = encoder.tables if grid is None else grid.features(encoder.tables, parts=True)
        taps = np.ascontiguousarray(_numpy(tables).transpose(0, 2, 1))
        rule = GATE_RULE[engine.tokenizer.neuron.mode]
        if rule is not None:
            taps[:, 1] = 0.0
            taps[0, 1] = 1.0 if rule else -1.0
    return Folded.of(taps, constants_of(engine.tokenizer), metadata or {})


def _numpy(tensor: Any) -> npt.NDArray[np.float32]:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32)
