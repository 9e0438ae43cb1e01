"""What a system under comparison is: a module that cuts a text into tokens for the language model.

    h = pre(c)      b = segmenter(c, h)      logits = decode(h, b)      L = L_LM + segmenter's own loss

A system is one file beside this one and one line of `config.SYSTEMS`; its class says all that training, evaluation,
tables and pictures ask of it. b_t = 1 closes the token whose last character is t. B rows, L positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from speak_neuro.config import SYSTEMS, RunConfig
from speak_neuro.system_facts import SystemFacts
from speak_neuro.text.alphabet import Alphabet


class Segmentation(NamedTuple):
    """Where a system ends tokens, as inference does."""

    boundaries: Tensor
    """(B, L) bool."""
    hard: Tensor | None = None
    """(B, L) bool, SPEAK only: where a spike would reset the potential hard."""
    confidence: Tensor | None = None
    """(B, L), hnet only: how sure each decision is, which the language model reads too."""


class Cut(NamedTuple):
    """A training step's boundaries."""

    boundaries: Tensor
    """(B, L), 0 and 1; with a gradient where the language model's loss teaches the segmenter."""
    logit: Tensor
    """(B, L) of a learned boundary; the boundaries themselves where nothing is learned."""
    confidence: Tensor | None = None
    """(B, L), hnet only: how sure each decision is, with a gradient."""


class Lesson(NamedTuple):
    """What a segmenter's loss may use."""

    ids: Tensor
    exemplar: Tensor
    """(B, L), the exemplar's boundaries; all False without one."""
    logits: Tensor
    """(B, L, V) of the language model, without gradient."""
    prior: Callable[[Tensor], Tensor]
    """The prior of each row as the run's knob moves it."""


class Segmenter(nn.Module, SystemFacts):
    """The base: nothing is learned, and boundaries are a function of the characters."""

    needs_hidden: ClassVar[bool] = False
    """Whether it reads the language model's pre-layers."""

    @classmethod
    def build(cls, config: RunConfig, alphabet: Alphabet | None) -> Segmenter:
        """The segmenter that the settings describe; `alphabet` is the run's, where one is at hand."""
        return cls()

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(B, L) ids, and (B, L, D) pre-layer states where it `needs_hidden` -> (B, L) bool, as inference cuts."""
        raise NotImplementedError

    def segment(self, ids: Tensor, hidden: Tensor) -> Segmentation:
        """What `forward` says, with whatever else the language model reads."""
        return Segmentation(self(ids, hidden))

    def drawn(self, step: int) -> bool:
        """Whether the boundaries of this training step are drawn."""
        return False

    def taught(self, step: int) -> bool:
        """Whether this step teaches it given boundaries."""
        return False

    def cut(self, ids: Tensor, hidden: Tensor, step: int, uniform: Tensor | None) -> Cut:
        """This training step's boundaries, from the (B, L) numbers `uniform` where they are drawn."""
        boundaries = self(ids, hidden)
        return Cut(boundaries, boundaries)

    def loss(self, cut: Cut, lesson: Lesson, step: int) -> tuple[Tensor, Tensor | None]:
        """Its own loss, and the boundaries (B, L) that it was taught, if any."""
        return torch.zeros((), device=lesson.ids.device), None


def require_alphabet(config: RunConfig, alphabet: Alphabet | None) -> Alphabet:
    """The alphabet, for a system that knows characters."""
    if alphabet is None:
        raise ValueError(f"alphabet is None; allowed for {config.tokenizer.kind}: the run's alphabet")
    return alphabet


def build_segmenter(config: RunConfig, alphabet: Alphabet | None) -> Segmenter:
    """The segmenter that `config` names, for a tokenizer that is not SPEAK's."""
    segmenter: Segmenter = SYSTEMS.load(config.tokenizer.kind).build(config, alphabet)
    return segmenter
