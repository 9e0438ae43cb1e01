"""Held-out evaluation: bits per character over the whole of a text, shortening factor, gate and boundary statistics.

A window of W characters slides on by S, half of itself unless told otherwise (`training.sliding`); each character is
scored once, with at least W - S characters before it (except at the text's start), by the segmentation that inference
would use in that window.

    BPC = (sum of next-character losses in nats) / (number of predicted characters) / ln 2
    SF  = characters / tokens
    token dependence = BPC without any boundary - BPC with the system's own

Without a boundary no position reads a token, so the token dependence says how much of its text the language model
learned to read through its tokens. At zero it does without them, and its BPC says nothing about the tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from speak_neuro.common.device import choose_precision
from speak_neuro.model.hourglass import Hourglass
from speak_neuro.systems.system import System
from speak_neuro.text.metrics import bits_per_character, boundary_scores, shortening_factor
from speak_neuro.training.distributed import ALONE, Ranks
from speak_neuro.training.sliding import views

BLOCKS = 100


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
    token_dependence: float
    """In bits per character; 0 where the model has no layers on tokens."""
    block_bpc: tuple[float, ...]
    """BPC of up to `BLOCKS` consecutive parts of the text, by which a difference between systems varies within it."""


@torch.no_grad()
def evaluate(
    system: System,
    ids: npt.NDArray[np.int32],
    window: int,
    exemplar: npt.NDArray[np.bool_] | None = None,
    batch: int = 32,
    stride: int | None = None,
    growing: bool = False,
    ranks: Ranks = ALONE,
    precision: str = "float32",
) -> Evaluation:
    """Score a contiguous text of at least two characters. The system's mode is restored afterwards.

    `window`, `stride` and `growing` say which windows read the text (`sliding.views`). `batch` windows are computed
    together, which changes a result by no more than rounding. Several processes take turns with the batches, which
    stay the same; all return the same result. A `precision` of bfloat16 is
    faster, and a little off.
    """
    if ids.size < 2:
        raise ValueError(f"text has {ids.size} characters; allowed: at least 2")
    device = next(system.parameters()).device
    cuda = [device] if device.type == "cuda" else []
    sampled = getattr(system.boundary_module, "sampled", False)
    training, low = system.training, choose_precision(precision, device) == "bfloat16"
    system.eval()
    size = int(ids.size)
    plan = views(size, window, stride, growing)
    # Nats of the text, under the system's boundaries and, where that is another computation, under none.
    nats = np.zeros((2 if system.language_model.config.shortened_layers else 1, len(plan)))
    spikes = np.zeros(size, dtype=np.bool_)
    hard = np.zeros(size, dtype=np.bool_)
    for first in range(ranks.rank * batch, len(plan), ranks.world * batch):
        part = plan[first : first + batch]
        # Always of the same width: zeros after a window's end reach nothing before it.
        padded = np.zeros((len(part), window + 1), dtype=np.int64)
        for row, view in enumerate(part):
            seen = ids[view.start : view.end + 1]
            padded[row, : len(seen)] = seen
        rows = torch.from_numpy(padded).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            hidden = system.language_model.pre(rows[:, :-1])
        with torch.random.fork_rng(cuda, enabled=sampled):
            if sampled:  # boundaries that are drawn are the same whenever and in whichever process
                torch.manual_seed(first)
            found = system.segment(rows[:, :-1], hidden.float())
        none = torch.zeros_like(found.boundaries)
        scored_under = [(found.boundaries, found.confidence), (none, None)][: len(nats)]
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            losses = [_losses(system.language_model, hidden, *each, rows[:, 1:]) for each in scored_under]
        gate = None if found.hard is None else found.hard.cpu().numpy()
        fired = found.boundaries.cpu().numpy()
        for row, view in enumerate(part):
            scored = slice(view.first - view.start, view.end - view.start)
            spikes[view.first : view.end] = fired[row, scored]
            if gate is not None:
                hard[view.first : view.end] = gate[row, scored]
            # The text's last character has no next one.
            for total, loss in zip(nats, losses, strict=True):
                total[first + row] = float(loss[row, scored][: size - 1 - view.first].sum())
    system.train(training)
    # Each place was filled by one process; the others hold zero there.
    nats, spikes, hard = (ranks.sum(torch.from_numpy(part)).numpy() for part in (nats, spikes, hard))
    tokens = int(spikes.sum()) + int(not spikes[-1])
    f1 = boundary_scores(spikes, exemplar).f1 if exemplar is not None else 0.0
    bpc = [bits_per_character(sum(each.tolist()) / (size - 1)) for each in nats]
    return Evaluation(
        bpc=bpc[0],
        shortening_factor=shortening_factor(size, tokens),
        characters=size,
        tokens=tokens,
        gate_rate=float((hard & spikes).sum() / max(int(spikes.sum()), 1)),
        boundary_f1=f1,
        unknown_characters=int((ids == 0).sum()),
        token_dependence=bpc[-1] - bpc[0],
        block_bpc=blocks(nats[0], [min(view.end, size - 1) - view.first for view in plan]),
    )


def blocks(nats: npt.NDArray[np.float64], counts: list[int]) -> tuple[float, ...]:
    """BPC of consecutive groups of views, as equal in number as can be; nats and characters of each view."""
    groups = zip(
        np.array_split(nats, min(BLOCKS, len(nats))), np.array_split(counts, min(BLOCKS, len(nats))), strict=True
    )
    return tuple(round(bits_per_character(float(part.sum()) / max(int(count.sum()), 1)), 6) for part, count in groups)


def _losses(
    model: Hourglass, hidden: Tensor, boundaries: Tensor, confidence: Tensor | None, following: Tensor
) -> npt.NDArray[np.float64]:
    """Nats of each following character (B, L) under a segmentation."""
    logits = model.decode(hidden, boundaries, confidence)
    flat = nn.functional.cross_entropy(logits.float().flatten(0, 1), following.flatten(), reduction="none")
    return flat.view(following.shape).double().cpu().numpy()
