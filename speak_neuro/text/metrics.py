"""What is measured about tokens and spikes. Arrays are numpy; `valid` (same shape) leaves padding out.

A share of nothing is reported as 0, and every result carries its counts, so that "none right" and "none there" differ.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import BoolArray


class BoundaryScores(NamedTuple):
    """Predicted boundaries against a target's, position by position."""

    precision: float
    recall: float
    f1: float
    predicted: int
    target: int
    matched: int


def bits_per_character(nats: float) -> float:
    """BPC of a mean next-character loss in nats: nats / ln 2."""
    return nats / math.log(2)


def shortening_factor(characters: int, tokens: int) -> float:
    """SF = characters / tokens, the mean token length; 0 for an empty text."""
    if characters < 0 or not (0 <= tokens <= characters) or (characters > 0 and tokens == 0):
        raise ValueError(f"characters is {characters}, tokens {tokens}; allowed: 1 <= tokens <= characters, or 0 and 0")
    return characters / tokens if tokens else 0.0


def boundary_scores(
    predicted: npt.ArrayLike, target: npt.ArrayLike, valid: npt.ArrayLike | None = None
) -> BoundaryScores:
    """Precision, recall and F1 of boundaries, both in the same convention."""
    guess, truth = _pair(predicted, target, valid)
    matched, n_guess, n_truth = (int(np.count_nonzero(a)) for a in (guess & truth, guess, truth))
    return BoundaryScores(
        precision=_share(matched, n_guess),
        recall=_share(matched, n_truth),
        f1=_share(2 * matched, n_guess + n_truth),
        predicted=n_guess,
        target=n_truth,
        matched=matched,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _pair(predicted: npt.ArrayLike, target: npt.ArrayLike, valid: npt.ArrayLike | None) -> tuple[BoolArray, BoolArray]:
    a, b = np.asarray(predicted, dtype=np.bool_), np.asarray(target, dtype=np.bool_)
    if a.shape != b.shape:
        raise ValueError(f"predicted has shape {a.shape}, target {b.shape}; allowed: the same shape")
    if valid is None:
        return a, b
    real = np.asarray(valid, dtype=np.bool_)
    if real.shape != a.shape:
        raise ValueError(f"valid has shape {real.shape}; allowed: {a.shape}")
    return a & real, b & real
