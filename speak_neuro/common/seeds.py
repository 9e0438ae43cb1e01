"""Statistics over seeds: mean, standard deviation, and tests of two systems paired by seed (needs the extra `stats`).

    d_s = value of the system with seed s - value of the reference with seed s        s in the seeds of both
    t = mean(d) / (deviation(d) / sqrt(n))         compared with Student's t of n - 1 degrees of freedom, two-sided
    sign test: how many d are below 0, compared with n throws of a fair coin, two-sided; d = 0 is left out

Seeds have to be paired: runs of one seed read the same text in the same order and begin with the same weights where
they have the same sizes, so that two systems' scores move together from seed to seed. What they have in common is no
evidence for or against a difference; a test of two independent samples counts it as noise. With fewer than two common
seeds there is no test, and the result says why.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from speak_neuro.common.extras import extra

NO_SPREAD = 1e-9
"""Deviation of the differences, relative to the values, up to which they are one number and rounding: no spread."""


NONE = "–"
"""What nobody measured."""
P = "p: t / sign (pairs)"
"""The head of `p_value`'s column."""


@dataclass(frozen=True)
class Sample:
    """A measure over seeds."""

    n: int
    mean: float
    deviation: float | None
    """Sample standard deviation (n - 1); None for a single seed."""


@dataclass(frozen=True)
class Comparison:
    """A system against the reference."""

    relative: float
    """(mean - reference mean) / reference mean, each over all its seeds; below 0 is better for BPC."""
    pairs: int = 0
    """Seeds that both have."""
    difference: float | None = None
    """Mean difference over the pairs."""
    p: float | None = None
    """The paired t-test's two-sided p-value, or None and `why`."""
    sign: float | None = None
    """The sign test's."""
    why: str | None = None


def sample(values: Sequence[float]) -> Sample:
    """Mean and spread of a measure; at least one value."""
    if not values:
        raise ValueError("no values; allowed: at least one")
    return Sample(
        n=len(values),
        mean=statistics.fmean(values),
        deviation=statistics.stdev(values) if len(values) > 1 else None,
    )


def compare(values: Mapping[int, float], reference: Mapping[int, float]) -> Comparison:
    """A system's values against the reference's, each by seed."""
    base = sample(list(reference.values())).mean
    relative = (sample(list(values.values())).mean - base) / base
    seeds = sorted(values.keys() & reference.keys())
    if len(seeds) < 2:
        common = "1 common seed" if seeds else "no common seed"
        return Comparison(relative, len(seeds), why=f"no test: {common}")
    pairs = [(values[seed], reference[seed]) for seed in seeds]
    found = sample([a - b for a, b in pairs])
    size = max(abs(value) for pair in pairs for value in pair)
    if found.deviation is None or found.deviation <= NO_SPREAD * size:
        return Comparison(relative, len(seeds), found.mean, why="no test: no spread over seeds")
    stats = extra("scipy.stats", "speak-neuro[stats]")
    p = float(stats.ttest_rel(*zip(*pairs, strict=True)).pvalue)
    if not math.isfinite(p):
        return Comparison(relative, len(seeds), found.mean, why="no test: not finite")
    below, above = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    sign = float(stats.binomtest(below, below + above).pvalue)
    return Comparison(relative, len(seeds), found.mean, p, sign)


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction of the p-values of one family of tests: the k-th smallest of n times n - k + 1, not below the
    one before it and not above 1."""
    found, least = {}, 0.0
    for place, name in enumerate(sorted(values, key=lambda name: values[name])):
        least = max(least, min(1.0, (len(values) - place) * values[name]))
        found[name] = least
    return found


def text_error(blocks: Mapping[int, Sequence[float]], reference: Mapping[int, Sequence[float]]) -> float | None:
    """Standard error of a difference from the text alone: scores of consecutive blocks of the text, by seed.

    The difference of each block, averaged over the seeds of both, is one draw: deviation / sqrt(blocks). None where no
    seed has blocks in both, or where they are of two divisions of the text.
    """
    seeds = sorted(blocks.keys() & reference.keys())
    counts = {len(part[seed]) for part in (blocks, reference) for seed in seeds}
    if not seeds or len(counts) != 1 or min(counts) < 2:
        return None
    pairs = [zip(blocks[seed], reference[seed], strict=True) for seed in seeds]
    differences = [[a - b for a, b in pair] for pair in pairs]
    means = [statistics.fmean(each) for each in zip(*differences, strict=True)]
    return statistics.stdev(means) / math.sqrt(len(means))


def p_value(comparison: Comparison | None) -> str:
    """p of the paired t-test and of the sign test, and how many pairs; or why there is none."""
    if comparison is None:
        return NONE
    if comparison.p is None or comparison.sign is None:
        return comparison.why or NONE
    t = "< 0.0001" if comparison.p < 1e-4 else f"{comparison.p:.2g}"
    return f"{t} / {comparison.sign:.2g} ({comparison.pairs})"
