"""The alphabet of a run: characters of its training text that occur at least twice.

A character seen once teaches nothing that the unknown character does not. U+2581 is always in, as every text has it.
Padding needs no character: padded positions are masked, and the neuron holds its potential there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.text.normalise import WORD
from speak_neuro.text.alphabet import Alphabet


def learn_characters(units: Iterable[str], at_least: int = 2) -> Alphabet:
    """The alphabet of normalised text, by descending frequency, ties by code point; id 0 is the unknown character."""
    counts: Counter[str] = Counter()
    for unit in units:
        counts.update(unit)
    kept = {character: count for character, count in counts.items() if count >= at_least or character == WORD}
    if not set(kept) - {WORD}:
        raise SpeakError(f"no character occurs {at_least} times in the training text; give more text")
    kept.setdefault(WORD, 0)
    return Alphabet("".join(sorted(kept, key=lambda character: (-kept[character], character))))
