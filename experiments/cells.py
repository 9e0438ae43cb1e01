"""Markdown tables and the text of their cells. What nobody measured is an en dash."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from groups import Variant
from seeds import Comparison, Sample, compare, sample

NONE = "–"
P = "p: t / sign (pairs)"
"""The head of `p_value`'s column."""


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def spread(found: Sample | None, digits: int) -> str:
    """mean ± standard deviation; without ± for a single seed."""
    if found is None:
        return NONE
    return number(found.mean, digits) + ("" if found.deviation is None else f" ± {found.deviation:.{digits}f}")


def of(values: Sequence[float]) -> Sample | None:
    return sample(values) if values else None


def percent(comparison: Comparison | None) -> str:
    return NONE if comparison is None else f"{100 * comparison.relative:+.2f} %".replace("-", "−")


def p_value(comparison: Comparison | None) -> str:
    """p of the paired t-test and of the sign test, and how many pairs; or why there is none."""
    if comparison is None:
        return NONE
    if comparison.p is None or comparison.sign is None:
        return comparison.why or NONE
    t = "< 0.0001" if comparison.p < 1e-4 else f"{comparison.p:.2g}"
    return f"{t} / {comparison.sign:.2g} ({comparison.pairs})"


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else NONE


def against(variant: Variant, reference: Variant | None) -> Comparison | None:
    """The difference and its test; none between two views of the same runs, which differ by no training."""
    if reference is None or reference is variant or not variant.bpc or not reference.bpc:
        return None
    found = compare(variant.by_seed, reference.by_seed)
    same = variant.config == reference.config
    return dataclasses.replace(found, p=None, sign=None, why="no test: the same runs") if same else found
