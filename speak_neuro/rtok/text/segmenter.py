"""Segmenter: what every tokenizer of the RTok experiments is, seen from the tasks.

    units of one sentence  ["▁Hello", "▁world!"]  ->  tokens of each unit  [["▁Hel", "lo"], ["▁world", "!"]]

A unit is a piece of normalised text (speak_neuro.rtok.text.normalise) in which tokens may not cross its ends: a word of
UNER, a whole sentence of XNLI. The tokens of a unit, joined, are the unit. Special tokens are never strings here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from speak_neuro.errors import SpeakError


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


def check_joined(batch: Sequence[Sequence[str]], tokens: Sequence[Sequence[Sequence[str]]], name: str) -> None:
    """Raise if the tokens of a unit do not give the unit back, or one is empty: a segmenter may lose nothing."""
    for units, parts in zip(batch, tokens, strict=True):
        for unit, pieces in zip(units, parts, strict=True):
            if "".join(pieces) != unit or not all(pieces):
                raise SpeakError(
                    f"segmenter {name}: tokens {list(pieces)[:8]!r} do not join to the unit {unit[:40]!r}; allowed: "
                    "non-empty tokens whose concatenation is the unit"
                )
