"""Stage 1: the neuron learns to open tokens where another tokenizer does (paper Table 7).

    L = L_mem(proxy = the other tokenizer's openings) + L_reset(top share of its tokens by information), without a task

Spike accuracy is the share of the other tokenizer's openings at which the neuron spikes, non-spike accuracy the share
of other characters at which it does not. Every character counts, also the first of each unit, which opens a token
without a spike and so always counts as missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from speak_neuro.common.array_types import BoolArray, Float32Array
from speak_neuro.rtok.text.limits import tokens_of
from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer
from speak_neuro.rtok.training.learn import gate_loss, mimicry_loss, padded
from speak_neuro.rtok.training.proxies import Segment, piece_openings

POSITIONS = 4096
"""Padded characters of a batch: about 32 sentences."""


class Accuracy(NamedTuple):
    """Agreement with the other tokenizer, in percent, and the length of tokens."""

    spike: float
    rest: float
    shortening_factor: float
    """Characters per token, the host's cuts at words and lengths included."""

    @property
    def total(self) -> float:
        """Spike and non-spike accuracy together, at most 200; a constant answer has 100."""
        return self.spike + self.rest


def information(unit: str, segment: Segment, score: Callable[[str], float]) -> Float32Array:
    """-score of each piece at its first character, (L,), -inf elsewhere: surprisal in nats when scores are log
    probabilities. It stands in for token entropy where no language model is at hand.
    """
    values = np.full(len(unit), -np.inf, dtype=np.float32)
    start = 0
    for piece in segment(unit):
        values[start] = -score(piece)
        start += len(piece)
    return values


def mimic(
    tokenizer: CharacterTokenizer,
    units: Sequence[str],
    targets: Sequence[BoolArray],
    values: Sequence[Float32Array] | None = None,
    *,
    epochs: int = 20,
    learning_rate: float = 1e-3,
    positions: int = POSITIONS,
    seed: int = 0,
    progress: Callable[[dict[str, float]], object] | None = None,
) -> None:
    """Train `tokenizer` in place: Adam, cosine schedule, batches of units of similar length in random order.

    `targets` are openings (L,) of each unit (`proxies.piece_openings`); `values` (L,) the information of the token that
    each opening begins, which trains the gate of a gated neuron. `progress` gets the losses of each epoch.
    """
    if not units or not all(units) or len(units) != len(targets):
        raise ValueError(f"{len(units)} units, {len(targets)} targets; allowed: as many of each, no unit empty")
    t = tokenizer.train().config.training
    generator = np.random.default_rng(seed)
    parameters = [*tokenizer.boundary.parameters(), *(p for p in tokenizer.mixes.parameters() if p.requires_grad)]
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    fraction = 0.0
    for epoch in range(epochs):
        batches = list(_batches(units, positions, generator))
        total = np.zeros(2)
        for index, rows in enumerate(batches):
            fraction = (epoch + index / len(batches)) / epochs
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * fraction))
            ids, valid = tokenizer.rows([units[row] for row in rows])
            proxy = padded([targets[row] for row in rows], valid, False)
            found = tokenizer(ids, valid)
            counted = valid.clone()
            counted[:, 0] = False
            membrane = mimicry_loss(tokenizer, found, proxy, counted)
            loss, reset = t.membrane_weight * membrane, torch.zeros(())
            if values is not None:
                value = padded([values[row] for row in rows], valid, -np.inf)
                value[:, 0] = -torch.inf
                reset = gate_loss(tokenizer, found, value, proxy & counted, valid)
                loss = loss + t.reset_weight * reset
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            # The first potentials run far away in long units; unclipped, their gradients fill Adam's second moments,
            # and the next thousand steps are too small to leave a bad start.
            torch.nn.utils.clip_grad_norm_(parameters, t.tokenizer_clip)
            optimiser.step()
            tokenizer.mixes.project()
            total += [float(membrane.detach()), float(reset.detach())]
        if progress is not None:
            mean = total / len(batches)
            progress({"epoch": epoch + 1, "loss_membrane": float(mean[0]), "loss_reset": float(mean[1])})


def accuracy(tokenizer: CharacterTokenizer, units: Sequence[str], targets: Sequence[BoolArray]) -> Accuracy:
    """How well the neuron's spikes on `units` agree with the openings `targets`."""
    rows = tokenizer.spikes(units)
    spikes, wanted = np.concatenate(rows), np.concatenate(targets)
    tokens = sum(len(tokens_of(unit, row)) for unit, row in zip(units, rows, strict=True))
    return Accuracy(
        spike=100.0 * float(spikes[wanted].mean()) if wanted.any() else math.nan,
        rest=100.0 * float((~spikes[~wanted]).mean()) if not wanted.all() else math.nan,
        shortening_factor=len(spikes) / tokens,
    )


def piece_targets(units: Sequence[str], segment: Segment) -> list[BoolArray]:
    """The openings of each unit's pieces."""
    return [piece_openings(unit, segment) for unit in units]


def _batches(units: Sequence[str], positions: int, generator: np.random.Generator) -> Iterator[list[int]]:
    """Rows of batches in random order; each holds units of similar length, at most `positions` when padded."""
    shuffled = generator.permutation(len(units))
    lengths = np.array([len(units[row]) for row in shuffled])
    # Sorted within parts of the shuffled order, so that batches differ from epoch to epoch.
    part = np.arange(len(shuffled)) // 2048
    order = shuffled[np.lexsort([lengths, part])]
    batches: list[list[int]] = [[]]
    for row in order.tolist():
        last = batches[-1]
        longest = max(len(units[row]), max((len(units[other]) for other in (last[:1] + last[-1:])), default=0))
        if last and longest * (len(last) + 1) > positions:
            batches.append(last := [])
        last.append(row)
    for index in generator.permutation(len(batches)).tolist():
        yield batches[index]
