"""Paired tests against their formulas and against counting, and seeds for which there is no test."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from speak_neuro.common import seeds


def test_sample() -> None:
    found = seeds.sample([1.0, 2.0, 4.0])
    assert (found.n, found.mean) == (3, pytest.approx(7 / 3))
    assert found.deviation == pytest.approx(np.std([1.0, 2.0, 4.0], ddof=1))
    assert seeds.sample([1.5]).deviation is None
    with pytest.raises(ValueError, match="at least one"):
        seeds.sample([])


def student(t: float, freedom: int) -> float:
    """Two-sided p by integrating Student's density, written out."""
    x = np.linspace(0, abs(t), 200_001)
    constant = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
    density = constant * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    return 1 - 2 * float(((density[1:] + density[:-1]) / 2).sum() * (x[1] - x[0]))


def test_the_paired_t_test_by_its_formula() -> None:
    """Over the seeds of both; the seed that only one has counts in the mean alone."""
    a = {1: 1.120, 2: 1.124, 3: 1.118, 5: 1.127}
    b = {5: 1.131, 3: 1.129, 2: 1.125, 1: 1.133, 4: 1.3}
    d = np.array([a[s] - b[s] for s in a])
    found = seeds.compare(a, b)
    assert found.pairs == 4
    assert found.difference == pytest.approx(d.mean())
    assert found.p == pytest.approx(student(d.mean() / (d.std(ddof=1) / 2), 3), abs=1e-8)
    assert found.why is None
    assert found.relative == pytest.approx(np.mean(list(a.values())) / np.mean(list(b.values())) - 1)
    assert seeds.compare(b, a).p == pytest.approx(found.p)


def test_sleep_after_two_drugs() -> None:
    """Student's own example (1908): hours gained by ten patients; t 4.0621 with 9 degrees of freedom, p 0.002833."""
    first = dict(enumerate([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]))
    second = dict(enumerate([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))
    found = seeds.compare(first, second)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    # Nine differences have a sign, all the same; the tenth is 0 and says nothing.
    assert found.sign == pytest.approx(2 / 2**9)


@pytest.mark.parametrize("signs", [(1, 1, 1), (1, 1, 1, -1, 1, 1), (1, -1, 1, -1), (1, 1, 1, 1, 1, -1, -1)])
def test_the_sign_test_by_counting(signs: tuple[int, ...]) -> None:
    """p is the share of all throws of a fair coin that are no likelier than what was seen."""
    size = (0.3, 0.11, 0.7, 0.21, 0.05, 0.4, 0.9)
    a = {seed: 2.0 + sign * size[seed] for seed, sign in enumerate(signs)}
    seen = math.comb(len(signs), signs.count(1))
    throws = list(itertools.product((1, -1), repeat=len(signs)))
    rare = sum(math.comb(len(signs), throw.count(1)) <= seen for throw in throws)
    assert seeds.compare(a, dict.fromkeys(a, 2.0)).sign == pytest.approx(rare / len(throws))


def test_what_two_systems_share_is_no_noise() -> None:
    """A shift that is equal in every seed but small beside the seeds' spread: paired it is seen."""
    common = np.random.default_rng(0).normal(2.0, 0.01, 6)
    own = np.random.default_rng(1).normal(0.0, 0.0005, 6)
    a, b = dict(enumerate(common - 0.004 + own)), dict(enumerate(common))
    assert seeds.compare(a, b).p < 0.001
    shuffled = {(seed + 1) % 6: value for seed, value in b.items()}
    assert seeds.compare(a, shuffled).p > 0.1, "the same numbers, paired with other seeds"


@pytest.mark.parametrize(
    ("a", "b", "pairs", "why"),
    [
        ({1: 1.0}, {1: 1.1}, 1, "no test: 1 common seed"),
        ({1: 1.0}, {1: 1.1, 2: 1.2}, 1, "no test: 1 common seed"),
        ({1: 1.0, 2: 1.1}, {3: 1.1, 4: 1.2}, 0, "no test: no common seed"),
        ({1: 1.0, 2: 1.2}, {1: 1.0, 2: 1.2}, 2, "no spread"),
        ({1: 1.0, 2: 1.1, 3: 0.9}, {1: 1.3, 2: 1.4, 3: 1.2}, 3, "no spread"),
    ],
)
def test_no_test(a: dict[int, float], b: dict[int, float], pairs: int, why: str) -> None:
    found = seeds.compare(a, b)
    assert found.p is found.sign is None
    assert found.pairs == pairs
    assert why in found.why


def test_holm_by_stepping_down() -> None:
    """Rejected at level a exactly when it and every smaller p are below a / (what is left): Holm's own procedure."""
    values = {"a": 0.011, "b": 0.04, "c": 0.012, "d": 0.6, "e": 0.0004, "f": 0.04}
    adjusted = seeds.holm(values)
    for level in (0.001, 0.0023, 0.0025, 0.01, 0.04, 0.05, 0.054, 0.056, 0.1, 0.13, 0.5, 0.7):
        rejected, left = set(), len(values)
        for name in sorted(values, key=values.__getitem__):
            if values[name] > level / left:
                break
            rejected.add(name)
            left -= 1
        assert {name for name, p in adjusted.items() if p <= level} == rejected
    assert seeds.holm({}) == {}


def test_text_error_is_the_standard_error_over_blocks() -> None:
    drawn = np.random.default_rng(3).normal(2.0, 0.3, (2, 3, 50))
    a, b = ({seed: list(part) for seed, part in enumerate(each)} for each in drawn)
    expected = stats.sem((drawn[0] - drawn[1]).mean(axis=0))
    assert seeds.text_error(a, b) == pytest.approx(expected)
    assert seeds.text_error({0: a[0], 9: a[1]}, b) == pytest.approx(stats.sem(drawn[0, 0] - drawn[1, 0]))
    assert seeds.text_error({9: a[0]}, b) is None
    assert seeds.text_error({0: a[0][:-1]}, b) is None
