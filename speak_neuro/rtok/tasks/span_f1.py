"""Micro F1 of labelled spans: seqeval's default, which is CoNLL-2000's.

A span is a maximal run of one type. It begins at a B- tag, and at an I- tag after O or after another type; the end of
the sentence closes it. A predicted span is right when a gold span has its type, first and last word.

    precision = right / predicted      recall = right / gold
    F1 = 2 right / (predicted + gold), 0 when that is 0 / 0
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Span = tuple[str, int, int]
"""Type, first word, last word."""


@dataclass(frozen=True)
class SpanScore:
    """Counts over all sentences, and what follows from them."""

    right: int
    predicted: int
    gold: int

    @property
    def precision(self) -> float:
        return self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        both = self.predicted + self.gold
        return 2 * self.right / both if both else 0.0


def spans(tags: Sequence[str]) -> list[Span]:
    """The spans of one sentence's tags (O, B-TYPE, I-TYPE)."""
    found: list[Span] = []
    for at, tag in enumerate(tags):
        place, _, kind = tag.partition("-")
        if place == "O":
            continue
        previous = found[-1] if found and found[-1][2] == at - 1 else None
        if place == "I" and previous is not None and previous[0] == kind:
            found[-1] = (kind, previous[1], at)
        else:
            found.append((kind, at, at))
    return found


def score(gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]) -> SpanScore:
    """Score of predicted against gold tags, sentence by sentence."""
    right = n_predicted = n_gold = 0
    for truth, guess in zip(gold, predicted, strict=True):
        if len(truth) != len(guess):
            raise ValueError(f"a sentence has {len(truth)} gold and {len(guess)} predicted tags; allowed: equally many")
        expected, got = set(spans(truth)), set(spans(guess))
        right, n_predicted, n_gold = right + len(expected & got), n_predicted + len(got), n_gold + len(expected)
    return SpanScore(right, n_predicted, n_gold)
