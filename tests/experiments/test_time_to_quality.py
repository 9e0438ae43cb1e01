"""The time-to-quality benchmark: what it compares, how it reads times off, and one small run of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from scripts import load

from speak_neuro.training.presets import PRESETS


def test_where_a_curve_comes_to_a_mark() -> None:
    reached = load("bench/time_to_quality").reached
    points = [(10.0, 3.0), (20.0, 2.0), (40.0, 1.5)]
    assert reached(points, 2.5) == pytest.approx(15.0)
    assert reached(points, 1.75) == pytest.approx(30.0)
    assert reached(points, 3.5) == 10.0, "the shortest is better already"
    assert reached(points, 1.0) is None


def test_the_arms_differ_in_what_they_say() -> None:
    arguments = argparse.Namespace(preset="compare-cpu", system="whitespace", steps=40, ablations=True)
    arms = load("bench/time_to_quality").build_arms(PRESETS["compare-cpu"], arguments)
    adam, recipe = arms["adam"], arms["recipe, 40"]
    assert (adam.model.norm, adam.training.optimiser, adam.training.precision) == ("post", "adam", "float32")
    assert adam.training.learning_rate == 1e-3
    assert (recipe.model.norm, recipe.training.optimiser, recipe.training.precision) == ("pre", "muon", "auto")
    assert [arms[f"recipe, {n}"].training.steps for n in (10, 20, 40)] == [10, 20, 40]
    assert arms["recipe but post-norm"].training == recipe.training
    assert arms["recipe but cosine"].model == recipe.model


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = load("bench/time_to_quality").main
    flags = ["--preset", "smoke", "--steps", "8", "--seeds", "1", "--characters", "600"]
    files = ["--json", str(tmp_path / "found.json"), "--picture", str(tmp_path / "found.png")]
    assert main([*flags, *files]) == 0
    metrics = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["metrics"]
    assert [run["steps"] for run in metrics["runs"]] == [8, 2, 4, 8]
    assert all(0 < run["bpc"] < 8 and run["cpu_seconds"] > 0 for run in metrics["runs"])
    found = metrics["speed_up"]["1"]
    assert found["ratio"] == pytest.approx(found["adam_seconds"] / found["recipe_seconds"])
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    assert main([*flags, "--data", str(tmp_path)]) == 2
    assert "--data names a folder with train.txt and test.txt" in capsys.readouterr().err
