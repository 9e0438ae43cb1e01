"""Span F1 on cases made by hand, and against seqeval on random tags."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speak_neuro.rtok.tasks.span_f1 import score, spans
from speak_neuro.rtok.tasks.uner import LABELS

SENTENCES = st.lists(
    st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS), st.booleans()), min_size=1, max_size=12),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-PER I-PER O", [("PER", 0, 1)]),
        ("B-PER B-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("I-PER I-PER", [("PER", 0, 1)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
        ("B-PER O I-PER", [("PER", 0, 0), ("PER", 2, 2)]),
    ],
)
def test_spans(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert spans(tags.split()) == expected


def test_score_by_hand() -> None:
    gold = ["B-PER I-PER O B-LOC".split(), "O O".split()]
    found = score(gold, ["B-PER I-PER O B-ORG".split(), "B-LOC O".split()])
    assert (found.right, found.predicted, found.gold) == (1, 3, 2)
    assert (found.precision, found.recall, found.f1) == (1 / 3, 1 / 2, 2 / 5)


def test_nothing_anywhere_is_zero() -> None:
    found = score([["O"]], [["O"]])
    assert (found.precision, found.recall, found.f1) == (0, 0, 0)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"2 gold and 1 predicted tags"):
        score([["O", "O"]], [["O"]])


@given(SENTENCES)
def test_equal_to_seqeval(sentences: list[list[tuple[str, str, bool]]]) -> None:
    metrics = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    gold = [[word[0] for word in sentence] for sentence in sentences]
    guess = [[word[0] if word[2] else word[1] for word in sentence] for sentence in sentences]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where a count is 0
        expected = [f(gold, guess) for f in (metrics.precision_score, metrics.recall_score, metrics.f1_score)]
    found = score(gold, guess)
    assert [found.precision, found.recall, found.f1] == pytest.approx(expected, abs=1e-12)
