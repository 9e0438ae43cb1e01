"""What a task's loader gives and everything after it reads: texts as units of normalised text, and labels.

A text is a list of units. A unit is a normalised string that begins with U+2581: a word of UNER, the whole sentence of
XNLI. Segmenters cut units into tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speak_neuro.errors import SpeakError

LONGEST_WORD = 1000
"""Characters. The longest in UNER, a web address, has 473."""
IGNORED = -100
"""Label of a position that no loss and no score counts."""


@dataclass(frozen=True)
class Example:
    """One sentence of UNER, or one pair of XNLI."""

    identifier: int
    """Its number in the split, from 0: what proxies are stored by."""
    texts: tuple[tuple[str, ...], ...]
    """UNER: one text of one unit per word. XNLI: premise and hypothesis, one unit each."""
    labels: tuple[int, ...]
    """UNER: one per word. XNLI: one."""


def check_words(words: Sequence[str], where: str) -> None:
    """Refuse a text without words, and a word too long to be one."""
    if not words:
        raise SpeakError(f"{where}: the sentence is empty; remove it, or give it words")
    for number, word in enumerate(words, start=1):
        if len(word) > LONGEST_WORD:
            raise SpeakError(
                f"{where}: word {number} has {len(word):,} characters; allowed: at most {LONGEST_WORD:,}; cut it, or "
                "remove the sentence"
            )


def units_of(example: Example) -> list[str]:
    """All units of an example, text after text."""
    return [unit for text in example.texts for unit in text]
