"""Metrics against values counted by hand."""

import math

import numpy as np
import pytest

from speak_neuro.text import metrics

TARGET = np.array([1, 0, 0, 1, 0, 1, 0, 0], dtype=bool)
GUESS = np.array([1, 1, 0, 0, 0, 1, 0, 0], dtype=bool)


def test_bits_per_character() -> None:
    assert metrics.bits_per_character(math.log(2)) == 1
    assert metrics.bits_per_character(math.log(27)) == pytest.approx(math.log2(27))


def test_shortening_factor() -> None:
    assert metrics.shortening_factor(10, 4) == 2.5
    assert metrics.shortening_factor(0, 0) == 0
    for characters, tokens in ((3, 0), (3, 4), (-1, 0)):
        with pytest.raises(ValueError, match="characters is"):
            metrics.shortening_factor(characters, tokens)


def test_boundary_scores() -> None:
    scores = metrics.boundary_scores(GUESS, TARGET)
    assert (scores.predicted, scores.target, scores.matched) == (3, 3, 2)
    assert scores.precision == scores.recall == scores.f1 == pytest.approx(2 / 3)
    wider = metrics.boundary_scores(np.ones(8), TARGET)
    assert (wider.precision, wider.recall, wider.f1) == (3 / 8, 1, 6 / 11)


def test_padding_is_left_out() -> None:
    valid = np.array([1, 0, 1, 1, 1, 0, 1, 1], dtype=bool)
    scores = metrics.boundary_scores(GUESS, TARGET, valid)
    assert (scores.precision, scores.recall, scores.target) == (1, 0.5, 2)


def test_a_share_of_nothing_is_zero_with_its_counts() -> None:
    none = np.zeros(4, dtype=bool)
    assert metrics.boundary_scores(none, none) == (0, 0, 0, 0, 0, 0)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"predicted has shape \(8,\), target \(7,\)"):
        metrics.boundary_scores(GUESS, TARGET[:-1])
    with pytest.raises(ValueError, match="valid has shape"):
        metrics.boundary_scores(GUESS, TARGET, TARGET[:-1])
