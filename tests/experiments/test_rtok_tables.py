"""Tables of RTok's results from made-up runs: by hand, and what is one run, one row, or a contradiction."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from scripts import load

from speak_neuro.common import jobs

ROOT = Path(__file__).resolve().parents[2]
DASH = "\u2013"


def made_up(tokenizer: str, seed: int, f1: float, length: float, **training: Any) -> dict[str, Any]:
    config = {"training": {"seed": seed, "epochs": 3, **training}, "speak": {}}
    found = {"en_ewt:dev": {"f1": f1, "average_length": length}}
    metrics = {"task": "uner", "tokenizer": tokenizer, "score": "f1", "evaluations": found, "config": config}
    return {"device": "d", "metrics": {**metrics, "model": "m", "embedder": "fvt", "train": "en_ewt:train"}}


def cells_of(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {row[0]: row[1:] for row in rows}


def test_a_table_by_hand() -> None:
    runs = [
        *(made_up("zett-original", seed, 0.70, 20.0) for seed in (1, 2)),
        *(made_up("dytok-50", seed, f1, 18.0) for seed, f1 in ((1, 0.71), (2, 0.72))),
        *(made_up("speak", seed, f1, 16.0) for seed, f1 in ((1, 0.74), (2, 0.77))),
        made_up("speak", 1, 0.5, 10.0, epochs=1),
    ]
    text = load("compare_rtok/tables").render("uner", [run["metrics"] for run in runs], "dytok-50")
    table = cells_of(text)
    # Student's distribution for one degree of freedom is Cauchy's: p = 1 - 2 atan(t) / pi. The differences to dytok-50
    # are -1 and -2 (t = 1.5 / 0.5 = 3), and 3 and 5 (t = 4).
    p = {t: f"{1 - 2 * math.atan(t) / math.pi:.2g}" for t in (3, 4)}
    assert list(table)[2:] == ["zett-original", "dytok-50", "speak (epochs 3)", "speak (epochs 1)"]
    assert table["zett-original"] == ["2", "70.00 ± 0.00 / 20.00", "70.00 ± 0.00", "+0.0 %", f"{p[3]} / 0.5 (2)"]
    assert table["dytok-50"] == ["2", "71.50 ± 0.71 / 18.00", "71.50 ± 0.71", "-10.0 %", DASH]
    assert table["speak (epochs 3)"] == ["2", "75.50 ± 2.12 / 16.00", "75.50 ± 2.12", "-20.0 %", f"{p[4]} / 0.5 (2)"]
    assert table["speak (epochs 1)"] == ["1", "50.00 / 10.00", "50.00", DASH, DASH], "nothing else ran one epoch"


def written(folder: Path, name: str, runs: list[dict[str, Any]]) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"metrics": {"runs": runs}}), encoding="utf-8")
    return str(path)


def test_a_run_given_twice_counts_once(tmp_path: Path) -> None:
    runs = [made_up(name, seed, 0.7 + 0.01 * seed**2, 20.0) for name in ("dytok-50", "speak") for seed in (1, 2, 3)]
    single = tmp_path / "one.json"
    single.write_text(json.dumps(runs[1]), encoding="utf-8")
    everything = written(tmp_path, "all", runs)
    tables, outs = load("compare_rtok/tables").main, [tmp_path / "once.md", tmp_path / "twice.md"]
    assert tables([everything, "--out", str(outs[0])]) == 0
    again = [everything, str(single), everything, "--out", str(outs[1]), "--json", str(tmp_path / "again.json")]
    assert tables(again) == 0
    assert outs[1].read_bytes() == outs[0].read_bytes()
    assert len(json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))["metrics"]["runs"]) == len(runs)
    alone = tmp_path / "alone.md"
    assert tables([str(single), str(single), "--out", str(alone)]) == 0
    assert cells_of(alone.read_text(encoding="utf-8"))["dytok-50"] == ["1", "74.00 / 20.00", "74.00", DASH, DASH]


def test_two_scores_of_one_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [written(tmp_path, name, [made_up("speak", 1, f1, 20.0)]) for name, f1 in (("a", 0.7), ("b", 0.701))]
    assert load("compare_rtok/tables").main(files) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "a.json and" in error
    assert "are the same run (all settings and the seed) with f1 on en_ewt:dev 0.7 and 0.701" in error


def test_two_results_of_one_run_fill_each_others_gaps(tmp_path: Path) -> None:
    one, other = (made_up("speak", 1, 0.7, 20.0) for _ in range(2))
    other["metrics"]["evaluations"]["de_pud:test"] = {"f1": 0.5, "average_length": 30.0}
    records = load("compare_rtok/tables").read_all([Path(written(tmp_path, "x", [one, other]))])
    assert [list(record["metrics"]["evaluations"]) for record in records] == [["en_ewt:dev", "de_pud:test"]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "another"),
        ("embedder", "zett"),
        ("train", "pt_bosque:train"),
        ("mimic", ["embedded:ru"]),
        ("data", {"source": "elsewhere", "examples": 5, "sha256": "ab" * 32}),
        ("setting of a later version", 3),
    ],
)
def test_runs_that_differ_in_anything_chosen_are_no_seeds_of_one_row(name: str, value: Any) -> None:
    runs = [made_up("speak", seed, 0.7, 20.0)["metrics"] for seed in (1, 2)]
    runs.append({**made_up("speak", 3, 0.9, 20.0)["metrics"], name: value})
    table = load("compare_rtok/tables").rows_of(runs)
    assert sorted(map(len, table.values())) == [1, 2]
    assert len(set(table)) == 2
    # Where the data lie and what was measured is no choice.
    moved = {**runs[0], "data": {"source": "there", "sha256": "x"}, "training_seconds": 3.0, "selected_epoch": 2}
    home = {**runs[1], "data": {"source": "here", "sha256": "x"}, "training_seconds": 4.0, "selected_epoch": 1}
    assert [len(part) for part in load("compare_rtok/tables").rows_of([moved, home]).values()] == [2]


def test_a_seed_or_tokenizer_named_twice_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No two processes for one folder, and one result."""
    runs, begun = load("compare_rtok/runs"), []
    out = tmp_path / "runs"

    class Done:
        def poll(self) -> int:
            return 0

    def start(job: jobs.Job) -> Done:
        variant, _, seed = job.log.stem.rpartition("-")
        begun.append((variant, int(seed)))
        folder = job.log.with_suffix("")
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(made_up(variant, int(seed), 0.7, 20.0)), encoding="utf-8")
        return Done()

    monkeypatch.setattr(jobs, "start", start)
    flags = ["--data", "d", "--out", str(out), "--seeds", "1", "1", "2", "1", "--jobs", "4", "--quiet"]
    flags += ["--tokenizers", "dytok-word", "dytok-word", "--json", str(tmp_path / "all.json")]
    assert runs.main(flags) == 0
    assert sorted(begun) == [("dytok-word", 1), ("dytok-word", 2)]
    kept = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))["metrics"]["runs"]
    assert [run["metrics"]["config"]["training"]["seed"] for run in kept] == [1, 2]


def test_what_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text('{"metrics": {}}', encoding="utf-8")
    assert load("compare_rtok/tables").main([str(tmp_path / "x.json")]) == 2
    assert "0.metrics.task is missing" in capsys.readouterr().err
