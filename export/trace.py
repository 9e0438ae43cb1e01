"""The training device's own run on a text, for a simulator to be compared with.

Every line of the text is a row that begins at the reset potential; a longer line is cut into rows of `row_length`.
Rows are computed as `speak-tokenize` computes them (inference.engine), so a line's spikes here are its tokens
there. Positions beyond a row's length are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from speak_neuro.errors import SpeakError
from speak_neuro.export.files.trace_file import Trace, encode_texts
from speak_neuro.export.graph import constants_of
from speak_neuro.inference.speak import Speak
from speak_neuro.inference.views import entropy_bits

FEATURE_LIMIT = 2**28
"""Numbers in the trace's feature array (1 GiB) beyond which the text is refused rather than the memory used up."""


def trace_rows(text: str, row_length: int) -> list[str]:
    """The non-empty lines of `text`, cut to `row_length` characters."""
    return [line[start : start + row_length] for line in text.split("\n") for start in range(0, len(line), row_length)]


def run_trace(
    speak: Speak,
    rows: list[str],
    meta: Mapping[str, object],
    progress: Callable[[int], object] | None = None,
    *,
    entropy: bool = False,
) -> Trace:
    """Run the tokenizer over each row; with `entropy` also the language model, for pictures."""
    if not rows:
        raise SpeakError("the text has no line with a character in it; give a text with --text")
    width = speak.engine.tokenizer.current_readout.in_features
    length = np.array([len(row) for row in rows], dtype=np.int64)
    shape = (len(rows), int(length.max()))
    if shape[0] * shape[1] * width > FEATURE_LIMIT:
        raise SpeakError(
            f"a trace of {shape[0]} rows of {shape[1]} characters with {width} features each is too large; "
            "give a smaller --rows or --row-length"
        )
    features = np.zeros((*shape, width), dtype=np.float32)
    current, gate_logit, membrane = (np.zeros(shape, dtype=np.float32) for _ in range(3))
    spikes, bits = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.float32)
    for index, row in enumerate(rows):
        run = speak.trace(row)
        n = len(row)
        features[index, :n], current[index, :n], gate_logit[index, :n] = run.features, run.current, run.gate_logit
        membrane[index, :n], spikes[index, :n] = run.membrane, run.spikes
        if entropy:
            # In thousandths of a bit: nobody sees more, and it compresses.
            bits[index, :n] = entropy_bits(speak.engine, speak.alphabet.encode(row), run.spikes).round(3)
        if progress is not None:
            progress(1)
    text_utf8, text_offsets = encode_texts(rows)
    constants = constants_of(speak.engine.tokenizer)
    return Trace(
        current=current,
        gate_logit=gate_logit,
        membrane=membrane,
        spikes=spikes,
        length=length,
        features=features,
        decay=constants["decay"][0],
        gain=constants["gain"][0],
        threshold=constants["threshold"][0],
        reset_potential=constants["reset_potential"][0],
        reset_scale=constants["reset_scale"][0],
        text_utf8=text_utf8,
        text_offsets=text_offsets,
        meta=dict(meta),
        entropy=bits if entropy else None,
    )
