"""What the host does to the neuron's tokens: cuts at words and at lengths, which the potential never feels.

    opening     where a token begins: a unit's first character, every U+2581, every spike
    forced      where a token longer than `characters`, or of more than `pieces` vocabulary pieces, is cut again

Words cannot merge (paper, appendix D.3), and the hypernetwork reads at most seven pieces of a token. Forced cuts take
the longest beginning that is allowed, then again from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import BoolArray
from speak_neuro.rtok.text.normalise import WORD

MOST_AHEAD = 4
"""The longest look-ahead: characters that the neuron reads after the one that it decides."""
SENTENCE_CHARACTERS = 512
"""Characters of a text that a run reads; what follows is dropped before tokenization (`clip`)."""


@dataclass(frozen=True)
class Limits:
    """Longest tokens. `count_pieces` says how many vocabulary pieces a string has; without it only characters count."""

    characters: int = 32
    pieces: int = 7
    count_pieces: Callable[[str], int] | None = None

    def __post_init__(self) -> None:
        # One character can take as many pieces as it has bytes, and cannot be cut.
        for name, least in (("characters", 1), ("pieces", 4)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: at least {least}")

    def fits(self, token: str) -> bool:
        """Whether `token` may stand as it is."""
        if len(token) > self.characters:
            return False
        if self.count_pieces is None or len(token.replace(WORD, " ").encode("utf-8")) <= self.pieces:
            return True
        return len(token) == 1 or self.count_pieces(token) <= self.pieces

    def cut(self, token: str) -> list[str]:
        """`token` in parts that fit."""
        parts = []
        while token:
            end = min(len(token), self.characters)
            while not self.fits(token[:end]):
                end -= 1
            parts.append(token[:end])
            token = token[end:]
        return parts


def tokens_of(unit: str, spikes: npt.ArrayLike, limits: Limits | None = None) -> list[str]:
    """The tokens of a unit of L characters from its spikes (L,)."""
    limits = limits or Limits()
    fired = np.asarray(spikes, dtype=np.bool_)
    if fired.shape != (len(unit),):
        raise ValueError(f"spikes have shape {fired.shape}, the unit {len(unit)} characters; allowed: one for each")
    tokens: list[str] = []
    start = 0
    for end in range(1, len(unit) + 1):
        if end == len(unit) or fired[end] or unit[end] == WORD:
            token = unit[start:end]
            tokens += [token] if limits.fits(token) else limits.cut(token)
            start = end
    return tokens


def openings(tokens: Sequence[str]) -> BoolArray:
    """True at the first character of each token, (L,) over the joined tokens."""
    opens = np.zeros(sum(map(len, tokens)), dtype=np.bool_)
    if tokens:
        opens[np.cumsum([0, *map(len, tokens[:-1])])] = True
    return opens


def clip(units: Sequence[str], characters: int = SENTENCE_CHARACTERS) -> list[str]:
    """The units that begin within the first `characters`, the last of them cut there."""
    kept, left = [], characters
    for unit in units:
        if left <= 0:
            break
        kept.append(unit[:left])
        left -= len(unit)
    return kept
