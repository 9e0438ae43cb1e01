"""An Hourglass of two levels: spikes end pieces, hard resets end words.

    pieces = layers(pool(hidden, spikes))                       one vector a piece
    pieces = pieces + read(layers(pool(pieces, words)), words)  the layers in the middle run once a word
    hidden = hidden + read(layers(pieces), spikes)              full resolution again

A word ends where a piece does. Everything stays causal: what a piece reads is the last word that has ended, with this
piece or before it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speak_neuro.config import RunConfig
from speak_neuro.model.hourglass import Hourglass, LayerStack
from speak_neuro.model.pooling import count_slots, downsample, is_boundary, upsample
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.tokenizer.module import Boundaries, SpeakTokenizer


class TwoLevels(Hourglass):
    """`decode` takes the words' ends (B, L) in the place of the confidence; without them there are no words."""

    def __init__(self, one: Hourglass) -> None:
        """Of the sizes of `one`, half of its layers on tokens in the middle of the others."""
        super().__init__(one.config)
        middle = one.config.shortened_layers // 2
        before = (one.config.shortened_layers - middle) // 2
        del self.shortened_stack
        counts = (before, middle, one.config.shortened_layers - middle - before)
        self.stacks = nn.ModuleList(LayerStack(count, one.config, "auto") for count in counts)
        self.word_norm = nn.LayerNorm(one.config.width)
        self.no_word = nn.Parameter(torch.empty(one.config.width))
        self.reset_parameters()
        nn.init.normal_(self.no_word, 0.0, 1.0)

    def decode(self, hidden: Tensor, boundaries: Tensor | None, confidence: Tensor | None = None) -> Tensor:
        assert boundaries is not None
        before, middle, after = self.stacks
        slots = count_slots(boundaries)
        pieces = self.pooled_norm(downsample(hidden, boundaries, self.null_group, slots))
        pieces = self._run(before, pieces)
        words = words_of_pieces(boundaries, confidence, slots)
        whole = self._run(middle, self.word_norm(downsample(pieces, words, self.no_word)))
        pieces = self._run(after, pieces + upsample(whole, words))
        return self.read_out(self._run(self.post_stack, hidden + upsample(pieces, boundaries)))


def words_of_pieces(boundaries: Tensor, ends: Tensor | None, slots: int) -> Tensor:
    """Which pieces end a word, by slot: (B, L), (B, L) -> (B, slots). Slot 0, what is read before any, ends none."""
    closes = is_boundary(boundaries)
    if ends is None:
        return closes.new_zeros(len(closes), slots)
    place = torch.where(closes, closes.cumsum(1), 0)
    found = closes.new_zeros(len(closes), slots).scatter(1, place, ends.bool() & closes)
    found[:, 0] = False
    return found


class WordTokenizer(SpeakTokenizer):
    """Tells the language model which spikes end a word: those of a hard reset, or every other one of a row."""

    by_gate = True

    def confidence(self, found: Boundaries) -> Tensor:
        if self.by_gate:
            return self.effective_gate(found.gate_logit.detach()) > 0
        return found.spikes.detach().cumsum(1) % 2 == 0


def two_levels(config: RunConfig, vocabulary: int, alphabet: Alphabet, by_gate: bool) -> System:
    """SPEAK before an Hourglass of two levels, at step 0."""
    system = System(config, vocabulary, alphabet)
    system.language_model = TwoLevels(system.language_model)
    system.tokenizer.__class__ = WordTokenizer
    system.tokenizer.by_gate = by_gate
    return system
