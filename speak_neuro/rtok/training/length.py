"""A target length: a sentence's tokens, special ones included, as a share of XLM-R's, in training and on other text.

    price += step * (length / (target * XLM-R's length) - 1)        after each batch: dual ascent, as for --target-sf

A spike then pays where the proxy spikes with a probability above sigmoid(price). The price acts through what is
learned, with a lag, so an evaluation, and what is saved, has the current shifted by what makes the length on the
selecting split the target's: one number, found by bisection, added to the readout's bias. Training beside the encoder
begins with such a shift too, and with the price that keeps it.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from speak_neuro.rtok.text.limits import Limits, tokens_of
from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer
from speak_neuro.rtok.training.proxies import Segment
from speak_neuro.supervision.knob import Knob
from speak_neuro.training.rate import REACH, STEPS, restored, shift_to

POSITIONS = 1 << 14
"""Padded characters whose currents are computed at once."""
SPECIALS = 2
"""Special tokens of a text."""


class TargetLength:
    """The price of a spike, and what it is moved by."""

    def __init__(self, target: float, segment: Segment) -> None:
        self.target = target
        self.knob = Knob("price", target)
        self.pieces: Callable[[str], int] = functools.cache(lambda unit: len(segment(unit)))

    @property
    def price(self) -> Tensor | float:
        """0 without a target."""
        return self.knob.value if self.target else 0.0

    def wanted(self, units: Sequence[str], texts: int) -> float:
        """The tokens that `units` of so many texts should have, special ones included."""
        return self.target * (sum(map(self.pieces, units)) + SPECIALS * texts)

    def move(self, tokens: int, units: Sequence[str], texts: int) -> None:
        """Dual ascent after a batch with so many tokens."""
        if self.target:
            excess = (tokens + SPECIALS * texts) / self.wanted(units, texts) - 1
            self.knob.value.add_(STEPS["price"] * excess).clamp_(-REACH, REACH)

    @contextlib.contextmanager
    def reached(
        self, tokenizer: CharacterTokenizer, limits: Limits, units: Sequence[str], texts: int
    ) -> Iterator[None]:
        """The tokenizer with the target length on `units`; afterwards as it was."""
        if not self.target:
            yield
            return
        with restored([bias for bias, _ in offsets(tokenizer)]):
            self._shift(tokenizer, limits, units, texts)
            yield

    def begin(self, tokenizer: CharacterTokenizer, limits: Limits, units: Sequence[str], texts: int) -> None:
        """Shift a tokenizer to the target before it goes on to learn, and the price with it: what L_spike wants of the
        potential moves as the potential does.
        """
        if self.target:
            shift = self._shift(tokenizer, limits, units, texts)
            self.knob.value.sub_(tokenizer.boundary.neuron.surrogate_slope * shift).clamp_(-REACH, REACH)

    @torch.no_grad()
    def _shift(self, tokenizer: CharacterTokenizer, limits: Limits, units: Sequence[str], texts: int) -> float:
        shift = shift_for(tokenizer, limits, Counter(units), self.wanted(units, texts) - SPECIALS * texts)
        for bias, share in offsets(tokenizer):
            bias += share * shift
        return shift


def offsets(tokenizer: CharacterTokenizer) -> list[tuple[Tensor, float]]:
    """The parameters that a shift is added to, and how much of it each takes."""
    return tokenizer.boundary.encoder.offsets(tokenizer.boundary.current_readout)


@torch.no_grad()
def shift_for(tokenizer: CharacterTokenizer, limits: Limits, counts: Counter[str], wanted: float) -> float:
    """What to add to the current so that the units, so often each, have `wanted` tokens."""
    parts: list[tuple[list[str], Tensor, Tensor, Tensor]] = []
    group: list[str] = []
    training = tokenizer.training
    tokenizer.eval()
    for unit in [*sorted(counts, key=len), None]:
        if group and (unit is None or len(unit) * (len(group) + 1) > POSITIONS):
            parts.append((group, *tokenizer.drive(*tokenizer.rows(group))))
            group = []
        if unit is not None:
            group.append(unit)
    tokenizer.train(training)

    def tokens(shift: float) -> int:
        total = 0
        for units, current, gate_logit, steps in parts:
            spikes = tokenizer.boundary.neuron(current + shift, gate_logit, None, steps).spikes
            rows = spikes[:, tokenizer.look_ahead :].cpu().numpy() > 0
            total += sum(
                counts[unit] * len(tokens_of(unit, row[: len(unit)], limits))
                for unit, row in zip(units, rows, strict=True)
            )
        return total

    return shift_to(1.0, lambda shift: tokens(shift) / wanted)
