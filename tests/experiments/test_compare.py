"""experiments/compare/suites.py: its suites, what it leaves alone, and what the options of its SPEAK runs do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from scripts import load
from tiny import embedded_excerpt

from speak_neuro.common import jobs

TINY = "--width 32 --heads 2 --inner 64 --window 64 --batch 4 --evaluate-every 10 --evaluate-characters 500 --warmup 2"


@pytest.fixture(scope="module")
def compare() -> Any:
    return load("compare/suites")


@pytest.fixture
def suite(compare: Any) -> Any:
    """The tables of runs that `compare` reads."""
    return load("compare/suite_runs")


def forked(job: jobs.Job) -> Forked:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return Forked(job.command, log)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    text = embedded_excerpt(12000)
    for name, part in (("train", text[:9000]), ("valid", text[9000:10500]), ("test", text[10500:])):
        (folder / f"{name}.txt").write_text(part, encoding="utf-8")
    return folder


def test_suites_cover_what_the_comparison_needs(compare: Any, tmp_path: Path) -> None:
    from speak_neuro.config import SYSTEMS

    runs = {
        suite: compare.runs_of(suite, tmp_path, tmp_path, None) for suite in ("main", "frontier", "ablations", "cpu")
    }
    kinds = [
        job.flags[job.flags.index("--tokenizer") + 1] if "--tokenizer" in job.flags else "speak" for job in runs["main"]
    ]
    assert set(kinds) == set(SYSTEMS)
    assert kinds.count("speak") == 3
    started = ["--exemplar-steps" in job.flags for job in runs["main"] if "magnet" in job.flags]
    assert sorted(started) == [False] * 3 + [True] * 3
    assert all("--seed" in job.flags and "--steps" in job.flags for suite in runs.values() for job in suite)
    folders = [job.folder for suite in runs.values() for job in suite]
    assert len(set(folders)) == len(folders)
    assert {job.preset for job in runs["cpu"]} == {"compare-cpu"}
    needs = {job.folder.name: job.vocabulary for job in runs["cpu"]}
    assert needs["magnet-started-1"] == needs["speak-2"] == "5000"
    assert needs["magnet"] == needs["whitespace"] == ""


def test_runs_are_made_once_and_resumed(
    compare: Any,
    suite: Any,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(suite, "CPU", {"fixed": "--tokenizer fixed", "speak": "--exemplar-vocabulary 300"})
    started = jobs.start  # one run is a program, the others are forked
    monkeypatch.setattr(jobs, "start", lambda job: (started if job.log.stem == "fixed" else forked)(job))
    out = tmp_path / "out"
    command = [
        "cpu",
        "--data",
        str(texts),
        "--out",
        str(out),
        "--steps",
        "2",
        "--jobs",
        "2",
        "--device",
        "cpu",
        "--flags",
        TINY,
    ]
    assert compare.main(command) == 0
    told = capsys.readouterr().out
    assert "2 runs finished, 0 failed" in told
    assert "keep their own settings" not in told
    results = {
        name: json.loads((out / "cpu" / name / "results.json").read_text("utf-8")) for name in ("fixed", "speak")
    }
    assert results["fixed"]["metrics"]["test_shortening_factor"] == 4
    exemplar = out / "exemplar-text-300.json"
    own = out / "cpu" / "speak" / "exemplar.json"
    pieces = [[piece for piece, _ in json.loads(file.read_text("utf-8"))["model"]["vocab"]] for file in (own, exemplar)]
    assert pieces[0] == pieces[1]
    (out / "cpu" / "speak" / "results.json").unlink()  # as if stopped before its end
    stamp = (out / "cpu" / "fixed" / "results.json").stat().st_mtime_ns
    assert compare.main(command) == 0
    told = capsys.readouterr().out
    assert "2 runs, 1 of them finished" in told
    assert "2 have begun and keep their own settings" in told
    assert (out / "cpu" / "fixed" / "results.json").stat().st_mtime_ns == stamp
    again = json.loads((out / "cpu" / "speak" / "results.json").read_text("utf-8"))["metrics"]
    assert again["test_bpc"] == results["speak"]["metrics"]["test_bpc"]


def test_a_failed_run_is_told(
    compare: Any, suite: Any, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(suite, "CPU", {"fixed": "--tokenizer fixed"})
    command = ["cpu", "--data", str(texts), "--out", str(tmp_path / "out"), "--steps", "2", "--flags", "--heads 7"]
    assert compare.main(command) == 1
    assert "1 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--jobs", "0"], "--jobs is 0"),
        (["--steps", "0"], "--steps is 0"),
        (["--data", "nowhere"], "nowhere: no folder"),
        (["--out", __file__], "a file; --out is a folder"),
    ],
)
def test_bad_input(compare: Any, texts: Path, tmp_path: Path, flags: list[str], message: str, capsys: Any) -> None:
    assert compare.main(["cpu", "--data", str(texts), "--out", str(tmp_path / "out"), *flags]) != 0
    assert message in capsys.readouterr().err


def test_every_part_of_the_text_is_needed(compare: Any, texts: Path, tmp_path: Path, capsys: Any) -> None:
    """Before any run: each would fail at its end otherwise."""
    (texts / "valid.txt").unlink()
    assert compare.main(["cpu", "--data", str(texts), "--out", str(tmp_path / "out")]) != 0
    assert "holds no valid.txt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_languages_need_their_folders(compare: Any, texts: Path, tmp_path: Path, capsys: Any) -> None:
    assert compare.main(["languages", "--data", str(texts), "--out", str(tmp_path / "out")]) != 0
    assert "holds no en/train.txt" in capsys.readouterr().err


def test_branches_start_from_their_seed_s_mixture(
    compare: Any,
    suite: Any,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(suite, "SEEDS", (4,))
    monkeypatch.setattr(compare, "FAMILIES", {name: compare.FAMILIES[name] for name in ("whitespace", "speak")})
    kept = ("whitespace", "speak", "speak-hard")
    monkeypatch.setattr(suite, "BRANCHES", {name: suite.BRANCHES[name] for name in kept})
    monkeypatch.setattr(jobs, "start", forked)
    out = tmp_path / "out"
    command = ["branch", "--data", str(texts), "--out", str(out), "--device", "cpu", "--steps", "4"]
    command += ["--flags", f"{TINY} --encoder-width 16 --shortened-layers 1 --exemplar-vocabulary 300"]
    assert compare.main(command) == 0, (out / "mixture" / "4.log").read_text("utf-8")
    told = capsys.readouterr().out
    assert "3 runs finished, 0 failed" in told
    lines = (out / "mixture" / "4" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 12  # three quarters of the way
    for name in kept:
        written = json.loads((out / "branch" / f"{name}-4" / "config.json").read_text("utf-8"))
        assert written["started_from"] == "4"
        assert written["config"]["training"]["target_sf"] == 4
    assert compare.main(command) == 0
    assert "3 runs, 3 of them finished" in capsys.readouterr().out
