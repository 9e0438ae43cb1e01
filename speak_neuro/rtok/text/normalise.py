"""XLM-R's normalisation: any text to the characters that its vocabulary is made of.

    "Hello\\u200bworld ﬁne"  ->  "▁Hello▁world▁fine"

In this order: 45 characters that SentencePiece's nmt_nfkc treats in its own way (control characters are deleted; tabs,
line ends, zero-width and directional marks, U+2581 and U+FFFD become spaces), NFKC, white space collapsed, U+2581 in
front of each word. The full-width tilde U+FF5E stays, though NFKC would make it "~". A lone surrogate, which no
encoder can take, becomes a space as U+FFFD does.

Python's Unicode tables are newer than SentencePiece's: characters that came later are composed here and not there, but
no piece of the vocabulary has them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError

WORD = "\u2581"
"""Stands for the space before a word."""

_DELETED = [0x00, *range(0x01, 0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F]
_SPACES = [0x09, 0x0A, 0x0C, 0x0D, 0x1680, *range(0x200B, 0x2010), 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD]
_RULES: dict[int, str | None] = {**dict.fromkeys(_DELETED), **dict.fromkeys([*_SPACES, *range(0xD800, 0xE000)], " ")}
_KEPT = "\uff5e"


def normalise(text: str) -> str:
    """`text` as XLM-R sees it, each word after a U+2581; empty when nothing is left."""
    return _words(_composed(text.translate(_RULES)))


def normalise_words(words: Sequence[str]) -> list[str]:
    """Each word by itself, as data sets of words give them. A word that holds white space becomes several words in one
    string; one of which nothing is left is an error.
    """
    found = [normalise(word) for word in words]
    for index, (word, normalised) in enumerate(zip(words, found, strict=True)):
        if not normalised:
            raise SpeakError(
                f"word {index} is {word!r}: nothing is left of it after normalisation; allowed: at least one character "
                "that is no white space, control or zero-width character"
            )
    return found


def normalise_with_spans(text: str) -> tuple[str, npt.NDArray[np.int64]]:
    """`normalise(text)`, and for each of its L characters the span (L, 2) of `text` that it comes from.

    The spans of neighbours may be equal: one character can become several ("½"), and several can become one (a letter
    and its accents). The span of a U+2581 is that of the white space before the word, empty at the text's start.
    """
    characters: list[str] = []
    sources: list[tuple[int, int]] = []
    space: tuple[int, int] | None = (0, 0)
    for start, end in _clusters(text):
        for character in _composed(text[start:end].translate(_RULES)):
            if character == " ":
                space = (space[0] if space else start, end)
                continue
            if space is not None:
                characters.append(WORD)
                sources.append(space)
                space = None
            characters.append(character)
            sources.append((start, end))
    return "".join(characters), np.array(sources, dtype=np.int64).reshape(-1, 2)


def _words(text: str) -> str:
    return "".join(WORD + word for word in text.split(" ") if word)


def _composed(text: str) -> str:
    return _KEPT.join(unicodedata.normalize("NFKC", part) for part in text.split(_KEPT))


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Cuts of `text` across which nothing composes or is reordered: normalising the parts normalises the whole."""
    start = 0
    for position in range(1, len(text)):
        if _begins(text[position]):
            yield start, position
            start = position
    if text:
        yield start, len(text)


def _begins(character: str) -> bool:
    """Whether no character before this one can change with it, and it is not deleted from within a cluster."""
    if character < "\u0300":
        return ord(character) not in _RULES or _RULES[ord(character)] is not None
    first = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.combining(first) == 0 and first not in _second_starters()


_SECONDS: set[str] = set()


def _second_starters() -> set[str]:
    """Characters of combining class 0 that compose with one before them: vowels and finals of Hangul, some vowel signs
    of Indic scripts.
    """
    if not _SECONDS:
        for point in range(0xA0, 0x110000):
            parts = unicodedata.decomposition(chr(point)).split()
            if len(parts) == 2 and not parts[0].startswith("<"):
                _SECONDS.add(chr(int(parts[1], 16)))
        _SECONDS.update(map(chr, [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]))
    return _SECONDS
