"""Statistics over seeds: mean, standard deviation, and Welch's two-sample t-test (needs the extra `stats`).

    t = (mean_a - mean_b) / sqrt(s_a^2 / n_a + s_b^2 / n_b)          s the sample standard deviation (n - 1)

compared with Student's t of Welch-Satterthwaite's degrees of freedom, two-sided. The groups may differ in size and in
spread. A group of one seed has no spread: then there is no test, and the result says why.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from speak_neuro.errors import MissingExtra


@dataclass(frozen=True)
class Sample:
    """A measure over seeds."""

    n: int
    mean: float
    deviation: float | None
    """Sample standard deviation; None for a single seed."""


@dataclass(frozen=True)
class Comparison:
    """A system against the reference."""

    relative: float
    """(mean - reference mean) / reference mean; below 0 is better for BPC."""
    p: float | None
    """Welch's two-sided p-value, or None and `why`."""
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


def compare(values: Sequence[float], reference: Sequence[float]) -> Comparison:
    """A system's values against the reference system's, each over its own seeds."""
    found, base = sample(values), sample(reference)
    relative = (found.mean - base.mean) / base.mean
    if found.deviation is None or base.deviation is None:
        return Comparison(relative, None, f"no test: {found.n} and {base.n} seeds")
    if found.deviation == 0 and base.deviation == 0:
        return Comparison(relative, None, "no test: no spread over seeds")
    try:
        from scipy.stats import ttest_ind_from_stats
    except ImportError:
        raise MissingExtra("scipy is not installed: pip install 'speak-neuro[stats]'") from None
    groups = found.mean, found.deviation, found.n, base.mean, base.deviation, base.n
    p = float(ttest_ind_from_stats(*groups, equal_var=False).pvalue)
    return Comparison(relative, p if math.isfinite(p) else None, None if math.isfinite(p) else "no test: not finite")
