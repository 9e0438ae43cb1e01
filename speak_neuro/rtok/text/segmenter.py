"""Segmenter: what every tokenizer of the RTok experiments is, seen from the tasks.

    units of one sentence  ["▁Hello", "▁world!"]  ->  tokens of each unit  [["▁Hel", "lo"], ["▁world", "!"]]

A unit is a piece of normalised text (speak_neuro.rtok.text.normalise) in which tokens may not cross its ends: a word of
UNER, a whole sentence of XNLI. The tokens of a unit, joined, are the unit. Special tokens are never strings here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Segmenter(Protocol):
    """Cuts the units of a batch of sentences into tokens."""

    name: str

    def segment(self, batch: Sequence[Sequence[str]], language: str) -> list[list[list[str]]]:
        """For each sentence, for each of its units, the tokens; `"".join(tokens) == unit`.

        The batch is given whole, since batch-wise merges (DyTok) depend on it; other segmenters treat each unit alone.
        `language` is an ISO 639-1 code; segmenters that know one language only may refuse others.
        """
        ...
