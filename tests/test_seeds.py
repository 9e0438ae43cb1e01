"""Welch's test against its formula, and groups for which there is no test."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    return importlib.import_module("seeds")


def test_sample(seeds: ModuleType) -> None:
    found = seeds.sample([1.0, 2.0, 4.0])
    assert (found.n, found.mean) == (3, pytest.approx(7 / 3))
    assert found.deviation == pytest.approx(np.std([1.0, 2.0, 4.0], ddof=1))
    assert seeds.sample([1.5]).deviation is None
    with pytest.raises(ValueError, match="at least one"):
        seeds.sample([])


def test_welch_by_its_formula(seeds: ModuleType) -> None:
    """The p-value by integrating Student's density, written out."""
    a, b = [1.120, 1.124, 1.118], [1.131, 1.133, 1.135, 1.129]
    va, vb = np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)
    t = (np.mean(a) - np.mean(b)) / math.sqrt(va + vb)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    x = np.linspace(0, abs(t), 200_001)
    constant = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
    density = constant * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    inside = float(((density[1:] + density[:-1]) / 2).sum() * (x[1] - x[0]))
    found = seeds.compare(a, b)
    assert found.p == pytest.approx(1 - 2 * inside, abs=1e-8)
    assert found.why is None
    assert found.relative == pytest.approx(np.mean(a) / np.mean(b) - 1)
    assert seeds.compare(b, a).p == pytest.approx(found.p)


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ([1.0], [1.1], "no test: 1 and 1 seeds"),
        ([1.0], [1.1, 1.2], "no test: 1 and 2 seeds"),
        ([1.0, 1.1], [1.1], "no test: 2 and 1 seeds"),
        ([1.0, 1.0], [1.0, 1.0], "no spread"),
    ],
)
def test_no_test(seeds: ModuleType, a: list[float], b: list[float], why: str) -> None:
    found = seeds.compare(a, b)
    assert found.p is None
    assert why in found.why


def test_one_side_without_spread_can_be_tested(seeds: ModuleType) -> None:
    assert 0 < seeds.compare([1.0, 1.0], [1.1, 1.2]).p < 1
