"""Words to mimic: those of texts and of UNER's sentences, how often each occurs, and where pieces open in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from speak_neuro.common.array_types import BoolArray, Float32Array
from speak_neuro.corpus.reader import read_text
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.tasks.uner import load
from speak_neuro.rtok.text.limits import openings
from speak_neuro.rtok.text.normalise import WORD, normalise

LONGEST = 48
"""Characters of a word; what is written without spaces is cut here."""
Words = Mapping[str, int]


def text_words(path: Path, characters: int) -> Words:
    """The words of the beginning of a text."""
    return words_of([read_text(path)[:characters]])


def uner_words(folder: str, part: str) -> Words:
    """The words of the sentences of SET:SPLIT, or of those from FIRST to before LAST."""
    name, _, rest = part.partition(":")
    split, *limits = rest.split(":")
    if not split or len(limits) not in (0, 2) or not all(limit.isdecimal() for limit in limits):
        raise SpeakError(f"part of UNER is {part!r}; allowed: SET:SPLIT or SET:SPLIT:FIRST:LAST")
    first, last = map(int, limits or ("0", str(10**9)))
    return Counter(word[:LONGEST] for example in load(folder, name, split)[first:last] for word in example.texts[0])


def words_of(texts: Iterable[str]) -> Words:
    """Normalised words with their sign in front."""
    found: Counter[str] = Counter()
    for text in texts:
        for line in text.split("\n"):
            found.update(WORD + word[: LONGEST - 1] for word in normalise(line).split(WORD) if word)
    return found


def opening_row(pieces: Sequence[str]) -> BoolArray:
    """Where pieces open, (L,)."""
    return openings([piece for piece in pieces if piece])


def value_row(pieces: Sequence[str], surprisal: Callable[[str], float]) -> Float32Array:
    """Surprisal of each piece at its first character, (L,), for the gate."""
    values = np.full(sum(map(len, pieces)), -np.inf, dtype=np.float32)
    start = 0
    for piece in pieces:
        values[start] = surprisal(piece)
        start += len(piece)
    return values
