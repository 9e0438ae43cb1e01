"""Results of many runs in one file: what is kept, what is filled from two sources, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import load

from speak_neuro.errors import SpeakError

ROOT = Path(__file__).resolve().parents[2]
THINNED = load("compare/curve_log").thinned


@pytest.fixture
def records() -> ModuleType:
    return load("compare/records")


@pytest.fixture
def collect() -> ModuleType:
    return load("compare/collect")


def variant(folder: Path, name: str, seed: int, bpc: float, learning_rate: float | None = None) -> Path:
    """A copy of a run folder with another seed and test score."""
    copy = folder.parent / name
    shutil.copytree(folder, copy)
    results = json.loads((copy / "results.json").read_text(encoding="utf-8"))
    results["metrics"]["test_bpc"] = bpc
    results["metrics"]["config"]["training"]["seed"] = seed
    if learning_rate is not None:
        results["metrics"]["config"]["training"]["learning_rate"] = learning_rate
    (copy / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return copy


@pytest.fixture
def runs(tiny_run: Path, tmp_path: Path) -> Path:
    """A folder with two runs and one that has not ended."""
    root = tmp_path / "runs"
    root.mkdir()
    first = root / "a"
    shutil.copytree(tiny_run, first)
    variant(first, "b", 7, 2.5, 0.5)
    (variant(first, "c", 8, 2.5) / "results.json").unlink()
    return root


def test_the_script(collect: ModuleType, records: ModuleType, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = runs.parent / "all.json"
    assert collect.main([str(runs), "--json", str(out)]) == 0
    captured = capsys.readouterr()
    assert "c: no results.json" in captured.err
    assert "2 runs" in captured.out
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    results = json.loads((runs / "a" / "results.json").read_text(encoding="utf-8"))["metrics"]
    first, second = metrics["runs"]
    assert first["knobs"] == {}
    assert second["knobs"] == {"training.seed": 7, "training.learning_rate": 0.5}
    assert (first["name"], first["system"], first["dataset"]) == ("a", "speak", "excerpt")
    assert first["bpc"] == results["test_bpc"]
    assert first["sf"] == results["test_shortening_factor"]
    assert first["tokens"] == results["test_tokens"]
    assert first["characters"] == results["test_characters"]
    assert first["parameters_tokenizer"] == results["parameters_tokenizer"]
    assert first["vocabulary"] > 20
    assert first["curve"]["step"] == [20, 40]
    assert len(first["curve"]["bpc"]) == len(first["curve"]["seconds"]) == 2
    steps = [json.loads(line) for line in (runs / "a" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    late = [1 / line["sf"] for line in steps if "sf" in line and 20 < line["step"] <= 40]
    assert first["curve"]["training_sf"][1] == pytest.approx(20 / sum(late), rel=1e-4)
    assert first["curve"]["decided"] == [0.0, 0.0], "40 steps are less than one pass over the text"
    assert len(metrics["unfinished"]) == 1
    # What was written is read back as it was, in whatever order the files are named.
    again, _ = records.load([out])
    assert sorted(again, key=lambda r: r.name) == sorted(records.load([runs])[0], key=lambda r: r.name)
    assert records.load([out, runs])[0] == again


def test_a_run_in_two_places_counts_once(collect: ModuleType, records: ModuleType, runs: Path) -> None:
    (runs / "a" / "metrics.jsonl").rename(runs.parent / "kept")
    first = records.load([runs / "a"])[0]
    assert first[0].curve == {}
    shutil.copytree(runs / "a", runs.parent / "elsewhere")
    (runs.parent / "kept").rename(runs.parent / "elsewhere" / "metrics.jsonl")
    both, _ = records.load([runs / "a", runs.parent / "elsewhere"])
    assert len(both) == 1
    assert both[0].curve["step"] == [20, 40]


def test_a_contradiction_is_an_error(collect: ModuleType, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((runs / "b" / "results.json").read_text(encoding="utf-8"))
    results["metrics"]["test_bpc"] = 2.6
    other = runs.parent / "other.json"
    other.write_text(json.dumps(results), encoding="utf-8")
    assert collect.main([str(runs), str(other), "--json", str(runs.parent / "x.json")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "b and other are the same run" in error
    assert not (runs.parent / "x.json").exists()


def test_older_results_and_torn_logs(records: ModuleType, runs: Path) -> None:
    """Runs from before some fields existed: absent is None, and a half-written line is passed over."""
    results = json.loads((runs / "a" / "results.json").read_text(encoding="utf-8"))
    for name in ("test_gate_rate", "test_tokens", "data", "training_seconds"):
        results["metrics"].pop(name, None)
    results["metrics"]["config"]["tokenizer"].pop("grid")
    (runs / "a" / "results.json").write_text(json.dumps(results), encoding="utf-8")
    lines = (runs / "a" / "metrics.jsonl").read_text(encoding="utf-8")
    bare = [json.loads(line) for line in lines.splitlines()]
    for line in bare:
        line.pop("seconds", None)
        line.pop("check")
    text = "".join(json.dumps(line) + "\n" for line in bare) + '{"step": 41, "valid_b'
    (runs / "a" / "metrics.jsonl").write_text(text, encoding="utf-8")
    (record,), _ = records.load([runs / "a"])
    assert record.tokens is record.gate_rate is record.training_seconds is None
    assert record.dataset == "unknown"
    assert record.config["tokenizer.grid"] == "none"
    assert record.curve["seconds"] == [None, None]
    assert record.curve["step"] == [20, 40]


def test_a_collected_file_from_other_settings_time(records: ModuleType, collect: ModuleType, runs: Path) -> None:
    """From before one existed, and with one that is gone since: its runs are those of the default, and one variant with
    other seeds of today."""
    old = runs.parent / "old.json"
    assert collect.main([str(runs), "--json", str(old)]) == 0
    result = json.loads(old.read_text(encoding="utf-8"))
    del result["metrics"]["config"]["training.exemplar_steps"]
    result["metrics"]["config"] |= {"training.joint_encoder": False, "training.proxy_rate": 0.7}
    old.write_text(json.dumps(result), encoding="utf-8")
    variant(runs / "a", "d", 9, 2.4)
    found, _ = records.load([old, runs])
    assert [record.name for record in found] == ["a", "b", "d"]
    (setting,) = load("compare/settings").settings(found)
    assert sorted(found.seeds for found in setting.of("speak")) == [[7], [9, 1111]]


def test_results_of_the_repository_are_read(records: ModuleType) -> None:
    """They were written by earlier versions."""
    files = [ROOT / "experiments" / "results" / "gtok" / f"gtok_{preset}.json" for preset in ("smoke", "small")]
    found, _ = records.load(files)
    assert [record.system for record in found] == ["speak", "speak"]
    assert all(record.bpc and record.sf and record.config["tokenizer.kind"] == "speak" for record in found)


@given(st.integers(1, 300), st.integers(2, 60))
def test_thinning_keeps_both_ends(count: int, most: int) -> None:
    kept = THINNED(list(range(count)), most)
    assert len(kept) == min(count, most)
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert kept == sorted(set(kept))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or folder"),
        ("{", "not valid JSON"),
        ("[]", "found []; allowed: a valid dictionary"),
        ('{"metrics": {"runs": [{"encoder": "linear"}]}}', "no results of a run"),
        ('{"metrics": {"test_bpc": 2.0}}', "no configuration"),
        ('{"metrics": {"runs": [{"system": "speak"}]}}', "make the file again"),
    ],
    ids=["missing", "torn", "list", "another script's", "no config", "no name"],
)
def test_bad_files(
    collect: ModuleType, tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert collect.main([str(path), "--json", str(tmp_path / "out.json")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("collect.py: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out.json").exists()


def test_folders_without_runs(collect: ModuleType, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs.parent / "empty").mkdir()
    assert collect.main([str(runs.parent / "empty"), "--json", str(runs.parent / "x.json")]) == 2
    assert "holds no run folder" in capsys.readouterr().err
    assert collect.main([str(runs / "c"), "--json", str(runs.parent / "x.json")]) == 2
    assert "no finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"modell": {"width": 3}, "training": {"seed": "1"}}, "config.training.seed: found '1'; allowed"),
        ({"training": {"window": True}}, "config.training.window: found True; allowed"),
        ({"model": [1]}, "config: model: found"),
    ],
)
def test_settings_of_a_result_that_are_none(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    """Sections that are not known stay, as those of another version; what the tables read has to be of its kind."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"metrics": {"test_bpc": 2.0, "config": config}}), encoding="utf-8")
    with pytest.raises(SpeakError, match=message):
        load("compare/records").read_file(path)
