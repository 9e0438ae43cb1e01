"""How large a current a trained tokenizer can give, whatever the text.

linear        the largest entry of its table
convolution   the sum over delays of each table's largest entry
window        LayerNorm's output has at most norm sqrt(D), so feature i is GELU of a number within |w_i| sqrt(D) of b_i
hourglass     nothing: a transformer's states have no bound that is worth writing down
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from speak_neuro.inference.engine import BoundaryEngine

SLACK = 1 + 1e-4
"""Covers the float32 rounding of up to a thousand terms."""


def largest_current(engine: BoundaryEngine) -> float | None:
    """No |current| exceeds this; None when nothing can be said."""
    tokenizer = engine.tokenizer
    if tokenizer.tanh:
        return 1.0
    if engine.table is not None:
        return float(engine.table[1].detach().abs().max()) * SLACK
    encoder, grid = tokenizer.encoder, tokenizer.grid
    if (tables := encoder.tables) is not None:
        tables = tables if grid is None else grid.features(tables, parts=True)
        return float(tables.detach()[..., 0].abs().amax(dim=1).double().sum()) * SLACK
    if (found := encoder.feature_range()) is None:
        return None
    low, high = found

    def numbers(tensor: Tensor) -> npt.NDArray[np.float64]:
        return np.asarray(tensor.detach().cpu().double().numpy()).reshape(-1)

    if grid is not None:
        scale = 2.0**grid.feature_bits
        high, low = high * scale + 0.5, low * scale - 0.5
    readout, offset = (numbers(tensor) for tensor in tokenizer.readouts()[0])
    up = np.maximum(readout * high, readout * low).sum() + offset[0]
    down = np.minimum(readout * high, readout * low).sum() + offset[0]
    return max(abs(float(up)), abs(float(down))) * SLACK
