"""Which results are of one run: the rule of every table, so that no run counts twice as a seed.

    row    everything that was chosen about a run but its seed; the runs of a row are its seeds
    run    a row and a seed
    score  everything that was measured

The same run found twice, in its folder and in a collected file, is one run: its two results are joined. They must agree
in every score that both have. Where they do not, one of them is of another run or another version, and a table that
took either would depend on the order of its files: that is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from speak_neuro.errors import SpeakError

Result = TypeVar("Result")


def distinct(
    results: Iterable[Result], run: Callable[[Result], Hashable], join: Callable[[Result, Result], Result]
) -> list[Result]:
    """One result for each run, in the order in which they came; `join` puts a second result of a run to the first."""
    found: dict[Hashable, Result] = {}
    for result in results:
        key = run(result)
        found[key] = join(found[key], result) if key in found else result
    return list(found.values())


def check_agreement(
    names: tuple[str, str],
    scores: tuple[Mapping[str, float | None], Mapping[str, float | None]],
    tolerance: Mapping[str, float],
) -> None:
    """Refuse two results of one run that differ, in a score that both have, by more than its relative tolerance."""
    one, other = scores
    for score in one.keys() & other.keys():
        a, b = one[score], other[score]
        if a is not None and b is not None and abs(a - b) > tolerance.get(score, 0.0) * max(abs(a), abs(b)):
            raise SpeakError(
                f"{names[0]} and {names[1]} are the same run (all settings and the seed) with {score} {a} and {b}; "
                "leave one of them out"
            )
