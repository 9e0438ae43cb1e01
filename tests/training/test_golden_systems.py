"""A short run of every system is the committed one. Regenerate with tests/golden/make_systems.py, and say why."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from golden_systems import STEPS, golden_run

from speak_neuro.config import SYSTEMS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "systems.json").read_text(encoding="utf-8"))["runs"]
EARLY = 3
FIRST, LATER, RATE = 1e-4, 0.02, 0.15
"""Relative tolerances: of everything in the first EARLY steps, of losses after them, of rates after them.

On one machine with one number of threads a run has the same bits. Between machines the last bits of matrix products
differ, and a boundary that flips amplifies them (docs/reliability.md says what may differ): one boundary more is 4 to
10 % of a batch's rate here.
"""


def departures(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What lies beyond the tolerance."""
    found = []
    for number, (own, golden) in enumerate(zip(mine["steps"], theirs["steps"], strict=True), start=1):
        assert own.keys() == golden.keys()
        for name, value in golden.items():
            limit = FIRST if number <= EARLY else RATE if name == "sf" else LATER
            if not math.isclose(own[name], value, rel_tol=limit, abs_tol=limit * 0.1):
                found.append(f"step {number}: {name} is {own[name]}, golden {value}")
    for name, limit in (("bpc", LATER), ("tokens", RATE)):
        if not math.isclose(mine[name], theirs[name], rel_tol=limit):
            found.append(f"{name} is {mine[name]}, golden {theirs[name]}")
    return found


def test_there_is_one_of_every_system() -> None:
    assert set(GOLDEN) == set(SYSTEMS)
    assert all(len(run["steps"]) == STEPS for run in GOLDEN.values())


@pytest.mark.parametrize("kind", list(SYSTEMS))
def test_the_committed_run(kind: str) -> None:
    assert departures(golden_run(kind), GOLDEN[kind]) == []


def test_a_run_has_the_same_bits_twice() -> None:
    assert golden_run("speak") == golden_run("speak")


def test_the_bars_see_a_small_change() -> None:
    """No bar is so wide that the run of another system, or a loss 3 % higher, would pass."""
    for kind, run in GOLDEN.items():
        for other, theirs in GOLDEN.items():
            if other != kind and run["steps"][0].keys() == theirs["steps"][0].keys():
                assert departures(run, theirs), (kind, other)
        changed = copy.deepcopy(run)
        changed["steps"][-1]["loss_lm"] *= 1.03
        assert len(departures(changed, run)) == 1
