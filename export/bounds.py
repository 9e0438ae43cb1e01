"""How large a current a trained tokenizer can give, whatever the text.

linear        the largest entry of its table
convolution   the sum over delays of each table's largest entry
window        LayerNorm's output has at most norm sqrt(D), so feature i is GELU of a number within |w_i| sqrt(D) of b_i
hourglass     nothing: a transformer's states have no bound that is worth writing down
"""

from __future__ import annotations

import math

import numpy as np

from speak_neuro.encoder import ConvolutionEncoder, WindowEncoder
from speak_neuro.inference import BoundaryEngine

GELU_LEAST = -0.1701
"""GELU's minimum, rounded away from zero."""
SLACK = 1 + 1e-4
"""Covers the float32 rounding of up to a thousand terms."""


def largest_current(engine: BoundaryEngine) -> float | None:
    """No |current| exceeds this; None when nothing can be said."""
    tokenizer = engine.tokenizer
    if tokenizer.tanh:
        return 1.0
    if engine.table is not None:
        return float(engine.table[1].detach().abs().max()) * SLACK
    encoder = tokenizer.encoder
    if isinstance(encoder, ConvolutionEncoder):
        return float(encoder.tables.detach()[..., 0].abs().amax(dim=1).double().sum()) * SLACK
    if not isinstance(encoder, WindowEncoder):
        return None

    def numbers(tensor: object) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.asarray(tensor.detach().cpu().double().numpy()).reshape(-1)  # type: ignore[attr-defined]

    weight, bias = numbers(encoder.norm.weight), numbers(encoder.norm.bias)
    high = np.maximum(np.abs(weight) * math.sqrt(weight.size) + bias, 0.0)
    readout = numbers(tokenizer.current_readout.weight)
    offset = float(numbers(tokenizer.current_readout.bias)[0])
    up = np.maximum(readout * high, readout * GELU_LEAST).sum() + offset
    down = np.minimum(readout * high, readout * GELU_LEAST).sum() + offset
    return max(abs(float(up)), abs(float(down))) * SLACK
