"""What a picture shows: one tokenizer's reading of one text, plain numpy.

A token closes with a hard reset, with a soft reset, without any spike of a neuron (another kind of tokenizer), or not
at all (the last one of a text that ends before its spike).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Ending = Literal["hard", "soft", "plain", "open"]

_JOINERS = ("\u200c", "\u200d")
_VIRAMA = 9
"""Canonical combining class of the sign that binds the next consonant of an Indic script to this one."""


@dataclass(frozen=True)
class NeuronRun:
    """The neuron over a text of L characters."""

    membrane: npt.NDArray[np.floating[Any]]
    """u before reset, (L,)."""
    spikes: npt.NDArray[np.bool_]
    gate_open: npt.NDArray[np.bool_]
    """(L,); a spike with an open gate is a hard reset."""
    threshold: float
    entropy: npt.NDArray[np.floating[Any]] | None = None
    """Bits of the next character, (L,), where a language model gave them."""


@dataclass(frozen=True)
class View:
    """One tokenizer's tokens of one text."""

    name: str
    text: str
    spans: npt.NDArray[np.int64]
    """(n, 2), half-open, in characters; they partition the text."""
    neuron: NeuronRun | None = None
    known_endings: tuple[Ending, ...] | None = None
    """How each token ends, where that is known without the neuron's run (a table)."""

    def __post_init__(self) -> None:
        spans = np.asarray(self.spans)
        edges = [0, *spans[:, 1].tolist()] if spans.ndim == 2 and spans.shape[1] == 2 else []
        if not edges or edges[:-1] != spans[:, 0].tolist() or edges[-1] != len(self.text):
            raise ValueError(f"spans of {self.name!r} do not partition the text; allowed: (n, 2), no gap, no overlap")
        if self.known_endings is not None and len(self.known_endings) != len(spans):
            raise ValueError(
                f"known_endings are {len(self.known_endings)}; allowed: one for each of {len(spans)} tokens"
            )

    @property
    def tokens(self) -> list[str]:
        """The tokens; joined they are the text."""
        return [self.text[start:end] for start, end in self.spans.tolist()]

    @property
    def endings(self) -> list[Ending]:
        """How each token ends."""
        if self.known_endings is not None:
            return list(self.known_endings)
        if self.neuron is None:
            return ["plain"] * len(self.spans)
        found: list[Ending] = []
        for end in self.spans[:, 1].tolist():
            if not self.neuron.spikes[end - 1]:
                found.append("open")
            else:
                found.append("hard" if self.neuron.gate_open[end - 1] else "soft")
        return found

    @property
    def summary(self) -> str:
        """Counts in words."""
        count = len(self.spans)
        each = f", {len(self.text) / count:.2f} characters a token" if count else ""
        return f"{count:,} token{'' if count == 1 else 's'}{each}"


def same_text(views: Sequence[View]) -> str:
    """The text that all views are of."""
    if not views:
        raise ValueError("views are none; allowed: at least one")
    if any(view.text != views[0].text for view in views):
        raise ValueError("the views are of different texts; allowed: the same text, read by several tokenizers")
    return views[0].text


def is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction of its own is of a right-to-left script."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


def clusters(text: str) -> list[tuple[int, int]]:
    """Spans of the characters that are drawn as one: a letter with its marks, consonants bound by a virama."""
    starts: list[int] = []
    for index, character in enumerate(text):
        before = text[index - 1] if index else ""
        mark = unicodedata.category(character) in ("Mn", "Mc", "Me") or character in _JOINERS
        bound = before and (before == "\u200d" or (unicodedata.combining(before) == _VIRAMA and character.isalpha()))
        if index == 0 or not (mark or bound):
            starts.append(index)
    return list(zip(starts, [*starts[1:], len(text)], strict=True)) if starts else []


def visible(character: str) -> str:
    """A stand-in for what would not be seen, one character for one; all others as they are."""
    if character == " ":
        return "·"
    if character == "\n":
        return "↵"
    if character == "\t":
        return "→"
    category = unicodedata.category(character)
    if category in ("Zs", "Zl", "Zp"):
        return "␣"
    return "�" if category in ("Cc", "Cs", "Cn", "Co") or character == "\ufeff" else character
