"""Damaged files of each kind: a flipped bit is refused or changes nothing, mutated bytes give one line at most."""

import json
import os
import random
from pathlib import Path

from scripts import load

SOME_READ = {"boundary.nir", "folded.nir", "network.nir", "text.json", "input.npy"}
"""A graph has room that nothing reads, the index of a text is made anew, numbers in the .npy of a user are numbers."""


def test_flips_and_mutations_of_each_kind(tiny_run: Path, tmp_path: Path) -> None:
    for how in ("flips", "fuzz"):
        out = tmp_path / f"{how}.json"
        assert load("reliability/damage").main([how, "--run", str(tiny_run), "--count", "40", "--json", str(out)]) == 0
        found = json.loads(out.read_text(encoding="utf-8"))["metrics"]["kinds"]
        assert len(found) == (19 if how == "flips" else 31)
        for name, outcomes in found.items():
            counts = {key: value for key, value in outcomes.items() if key != "longest_seconds"}
            assert sum(counts.values()) == 40, name
            assert name in SOME_READ or outcomes.get("refused", 0) > 30, name
            assert outcomes["longest_seconds"] < 2, name


def test_a_pipe_in_the_place_of_each_kind(tiny_run: Path, tmp_path: Path) -> None:
    """No reader waits for what never comes."""
    damage = load("reliability/damage")
    for name, kind in damage.every_kind(tiny_run, tmp_path).items():
        data, whole = kind.file.read_bytes(), kind.read()
        kind.file.unlink()
        os.mkfifo(kind.file)
        assert damage.outcome(kind, whole) == "refused", name
        kind.file.unlink()
        kind.file.write_bytes(data)


def test_damage_is_what_it_says() -> None:
    damage = load("reliability/damage")
    data = bytes(range(256)) * 4
    for changed in damage.flipped(data, 50, random.Random(1)):
        assert sum(bin(a ^ b).count("1") for a, b in zip(data, changed, strict=True)) == 1
    assert list(damage.mutated(data, 20, random.Random(2))) == list(damage.mutated(data, 20, random.Random(2)))
    assert len(set(damage.mutated(data, 20, random.Random(2)))) > 15
