"""Held-out evaluation: bits per character over the whole of a text, shortening factor, gate and boundary statistics.

A window of W characters slides by half of itself; each character is scored once, with at least W/2 characters before
it (except at the text's start), by the segmentation that inference would use in that window.

    BPC = (sum of next-character losses in nats) / (number of predicted characters) / ln 2
    SF  = characters / tokens
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from speak_neuro.checkpoint import System
from speak_neuro.metrics import bits_per_character, boundary_scores, shortening_factor


@dataclass(frozen=True)
class Evaluation:
    """What a text says about a system."""

    bpc: float
    shortening_factor: float
    characters: int
    tokens: int
    gate_rate: float
    """Share of hard resets among SPEAK's spikes; 0 for other systems."""
    boundary_f1: float
    """Against the exemplar's boundaries; NaN-free: 0 when none were given."""
    unknown_characters: int


@torch.no_grad()
def evaluate(
    system: System,
    ids: npt.NDArray[np.int32],
    window: int,
    exemplar: npt.NDArray[np.bool_] | None = None,
    batch: int = 32,
) -> Evaluation:
    """Score a contiguous text of at least two characters. The system's mode is restored afterwards."""
    if ids.size < 2:
        raise ValueError(f"text has {ids.size} characters; allowed: at least 2")
    device = next(system.parameters()).device
    training = system.training
    system.eval()
    stride = max(1, window // 2)
    size = int(ids.size)
    starts = list(range(0, max(size - (window - stride), 1), stride))
    padded = np.zeros(starts[-1] + window + 1, dtype=np.int64)
    padded[:size] = ids

    nats = 0.0
    spikes = np.zeros(size, dtype=np.bool_)
    hard = np.zeros(size, dtype=np.bool_)
    for first in range(0, len(starts), batch):
        part = starts[first : first + batch]
        rows = torch.from_numpy(np.stack([padded[s : s + window + 1] for s in part])).to(device)
        hidden = system.language_model.pre(rows[:, :-1])
        found = system.segment(rows[:, :-1], hidden)
        logits = system.language_model.decode(hidden, found.boundaries)
        loss = nn.functional.cross_entropy(logits.float().transpose(1, 2), rows[:, 1:], reduction="none").double()
        gate = None if found.hard is None else found.hard.cpu().numpy()
        fired = found.boundaries.cpu().numpy()
        for row, start in enumerate(part):
            low = 0 if start == 0 else window - stride
            high = min(window, size - start)
            spikes[start + low : start + high] = fired[row, low:high]
            if gate is not None:
                hard[start + low : start + high] = gate[row, low:high]
            nats += float(loss[row, low : min(high, size - 1 - start)].sum())
    system.train(training)
    tokens = int(spikes.sum()) + int(not spikes[-1])
    f1 = boundary_scores(spikes, exemplar).f1 if exemplar is not None else 0.0
    return Evaluation(
        bpc=bits_per_character(nats / (size - 1)),
        shortening_factor=shortening_factor(size, tokens),
        characters=size,
        tokens=tokens,
        gate_rate=float((hard & spikes).sum() / max(int(spikes.sum()), 1)),
        boundary_f1=f1,
        unknown_characters=int((ids == 0).sum()),
    )
