"""The time-to-quality benchmark: what it compares, how it reads times off, and small runs of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import load

from speak_neuro.training.presets import PRESETS


def test_where_a_curve_comes_to_a_mark() -> None:
    reached = load("bench/time_to_quality_arms").reached
    points = [(10.0, 3.0), (20.0, 2.0), (40.0, 1.5)]
    assert reached(points, 2.5) == pytest.approx(15.0)
    assert reached(points, 1.75) == pytest.approx(30.0)
    assert reached(points, 3.5) == 10.0, "the shortest is better already"
    assert reached(points, 1.0) is None


def run(arm: str, *curve: tuple[float, float]) -> dict[str, object]:
    return {"arm": arm, "seed": 1, "cpu_seconds": curve[-1][0], "bpc": curve[-1][1], "curve": list(curve)}


def test_speed_ups() -> None:
    speed_up = load("bench/time_to_quality_arms").speed_up
    ends = [run("adam", (90.0, 2.0)), run("quarter", (10.0, 2.5)), run("recipe", (40.0, 1.5))]
    assert speed_up(ends, None)["recipe_seconds"] == pytest.approx(25.0)
    marked = [run("adam", (80.0, 2.2), (90.0, 2.0)), run("quarter", (8.0, 2.2), (10.0, 2.0))]
    found = speed_up(marked, 2.1)
    assert (found["adam_seconds"], found["recipe_seconds"], found["bpc"]) == (pytest.approx(85), pytest.approx(9), 2.1)
    assert speed_up(marked, 1.9)["bpc"] == 2.0, "adam's own end, where it does not come to the mark"
    assert speed_up(marked[:1], 2.1) is None
    short = speed_up([run("adam", (90.0, 2.0)), run("quarter", (10.0, 2.5))], None)
    assert (short["recipe_seconds"], short["ratio"]) == (None, None)


def test_the_arms_differ_in_what_they_say() -> None:
    module = load("bench/time_to_quality_arms")
    arms = module.build_arms(PRESETS["compare-cpu"], "compare-cpu", "whitespace", 40, module.ARMS)
    assert tuple(arms) == module.ARMS
    adam, recipe = arms["adam"], arms["recipe"]
    assert (adam.model.norm, adam.training.optimiser, adam.training.precision) == ("post", "adam", "float32")
    assert adam.training.learning_rate == 1e-3
    assert (recipe.model.norm, recipe.training.optimiser, recipe.training.precision) == ("pre", "muon", "auto")
    assert [arms[name].training.steps for name in ("quarter", "half", "recipe")] == [10, 20, 40]
    assert arms["but-post"].training == recipe.training
    assert arms["but-cosine"].model == recipe.model
    started = module.build_arms(PRESETS["compare-cpu"], "compare-cpu", "magnet-started", 40, ["recipe"])["recipe"]
    assert (started.tokenizer.kind, started.training.exemplar_steps) == ("magnet", 4)


def test_small_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = load("bench/time_to_quality").main
    flags = ["--preset", "smoke", "--steps", "20", "--seeds", "1", "--characters", "300"]
    files = ["--json", str(tmp_path / "found.json"), "--picture", str(tmp_path / "found.png")]
    arms = ["--arms", "adam-bf16", "quarter"]
    assert main([*flags, *files, *arms, "--systems", "whitespace"]) == 0
    metrics = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["metrics"]
    assert [run["steps"] for run in metrics["runs"]] == [20, 5]
    assert all(0 < run["bpc"] < 8 and run["cpu_seconds"] > 0 for run in metrics["runs"])
    assert len(metrics["speed_up"]) == 1
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")

    assert main([*flags, *files, *arms, "--systems", "whitespace", "magnet", "--resume"]) == 0
    more = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["metrics"]["runs"]
    assert more[:2] == metrics["runs"]
    assert [run["system"] for run in more[2:]] == ["magnet", "magnet"]
    assert all(run["drawn"]["shortening_factor"] < run["shortening_factor"] for run in more[2:]), "new, it closes few"
    assert all("drawn" not in run for run in more[:2])
    assert main([*flags, *files, *arms, "--resume", "--mark", "9"]) == 2
    assert "has mark None, not 9.0" in capsys.readouterr().err
    assert main([*flags, *files, *arms, "--mark", "9"]) == 0
    ended = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["metrics"]["runs"]
    assert [run["steps"] for run in ended] == [11, 2], "in the second half all are as good as that"
    assert main([*flags, "--data", str(tmp_path)]) == 2
    assert "--data names a folder with train.txt and test.txt" in capsys.readouterr().err
