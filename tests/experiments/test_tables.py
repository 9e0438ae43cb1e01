"""Grouping, tables and pictures of a comparison whose numbers are known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from comparison_fixtures import comparison, run
from scripts import load

ROOT = Path(__file__).resolve().parents[2]
EN_DASH = "\u2013"
P = "p: t / sign (pairs)"
STARTED = ("magnet, started", "magnet, started, sampled")


@pytest.fixture
def script() -> Any:
    return lambda name: load("compare/" + name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(comparison()), encoding="utf-8")
    return path


def found(script: Any, runs: list[dict[str, Any]], tmp_path: Path) -> list[Any]:
    path = tmp_path / "some.json"
    path.write_text(json.dumps({"metrics": {"config": {}, "runs": runs}}), encoding="utf-8")
    return script("settings").settings(script("records").load([path])[0])


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The first table after a heading: first cell -> cells."""
    lines = text[text.index(heading) :].splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("| "))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return {row[0]: row for row in table if row[0] != "---"}


def test_table_1(script: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.parent / "tables.md"
    assert script("tables").main([str(file), "--out", str(out), "--name", "en=English"]) == 0
    text = out.read_text(encoding="utf-8")
    table = rows(text, "### English")
    assert list(table) == ["system", "vanilla", "fixed", "whitespace", "magnet", "speak"]
    assert table["speak"][1:4] == ["2.1000 ± 0.0100", "4.20 ± 0.00", "3"]
    assert table["speak"][4] == "−4.55 %"
    # The differences are -0.11, -0.09, -0.10: t = -0.1 / (0.01 / sqrt 3), and for two degrees of freedom Student's
    # distribution is p = 1 - |t| / sqrt(2 + t^2). Three signs of one kind: 2 / 2^3.
    t = 0.1 / (0.01 / 3**0.5)
    assert table["speak"][5] == f"{1 - t / (2 + t * t) ** 0.5:.2g} / 0.25 (3)"
    assert table["magnet"][1:6] == ["2.2000 ± 0.0100", "4.00 ± 0.00", "3", EN_DASH, EN_DASH]
    assert table["vanilla"][5] == "no test: 1 common seed"
    assert table["fixed"][2] == "4.00", "of equals the one nearest to SPEAK's SF"
    assert rows(text, "## Table 1")["magnet"] == ["magnet", "2.200 ± 0.010 (4.00)", "1.900 (4.00)"]
    assert rows(text, "## Table 1")["vanilla"] == ["vanilla", "2.300 (1.00)", EN_DASH]
    assert rows(text, "### fi")["speak"][5] == "no test: 1 common seed"


def test_each_table_names_its_protocol(script: Any, tmp_path: Path) -> None:
    """Of runs that do not say how they were trained: as every run was before it could be chosen."""
    out = tmp_path / "tables.md"
    committed = ROOT / "experiments" / "results" / "compare" / "compare_ablations.json"
    assert script("tables").main([str(committed), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    told = "Protocol: each from weights of its own, optimiser adam, schedule cosine, norm post, precision bfloat16, "
    told += "SPEAK with drive proxy, neuron loss membrane."
    tables = [part for part in text.split("\n### ")[1:] if "| SPEAK with" in part or "| system | BPC |" in part]
    assert len(tables) > 3, text
    assert all(told in part for part in tables), text
    one = run("speak", 1, 2.0, 4.0)
    one["knobs"] |= {"training.optimiser": "muon", "training.drive": "information"}
    (setting,) = found(script, [{**one, "started_from": "1"}, run("magnet", 1, 2.0, 4.0)], tmp_path)
    told = script("cells").protocol(setting)
    assert "each from weights of its own or branches of a mixture, optimiser muon or –" in told
    assert told.endswith("SPEAK with drive information, neuron loss –.")


def test_ablations(script: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("tables").main([str(file)]) == 0
    text = capsys.readouterr().out
    third = rows(text, "## Table 3")
    assert list(third) == ["SPEAK with", "reset_mode gated", "reset_mode soft"]
    assert third["reset_mode soft"][1:6] == ["2.2000", "3.90", "20.0 %", "1", "+4.76 %"]
    fifth = rows(text, "## Table 5")
    assert fifth["rest_term False"][-1] == "worse: the term is needed"
    assert fifth["acceptance greedy"][5] == "+0.95 %"
    assert fifth["acceptance metropolis, rest_term True"][-1] == EN_DASH
    assert "Other changes" not in text


def test_frontier_and_budgets(script: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("tables").main([str(file)]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.endswith(" yes |")]
    # speak 2.1 at 4.2 beats magnet's 2.2 at 4.0, 2.15 at 3.0, vanilla and fixed; 2.25 at 5.5 beats whitespace.
    assert [line.split("|")[1].strip() for line in lines] == ["magnet", "speak", "speak"]
    assert "2.3500 | 6.00" in lines[0]
    budget = rows(text, "| validation BPC at")
    assert budget["validation BPC at"][1:] == ["100 steps", "8.0 s"]
    # SPEAK's curve passes 3.0 at 5 s and 2.1 at 10 s: the line between them at 8 s, each seed alike.
    assert budget["speak"][2].startswith(f"{3.0 + (2.1 - 3.0) * 3 / 5:.4f}")
    assert budget["magnet"][1].startswith("2.2000")


def test_table_4(script: Any, tmp_path: Path) -> None:
    timing = {
        "device": "a card",
        "batch": 8,
        "length": 64,
        "repeats": 5,
        "threads": 1,
        "parameters_read": 3000,
        "tokenization_ms": 1.234,
        "model_ms": 20.0,
    }
    runs = [run("magnet", 1, 2.0, 4.0, timing=timing), run("speak", 1, 2.0, 4.0)]
    text = script("tables").render(found(script, runs, tmp_path), "x")
    table = rows(text, "## Table 4")
    assert table["magnet"][1:] == ["9,000", "1,000", "3,000", "10.0 %", "40.0 %", "1.23", "20.00"]
    assert table["speak"][1:] == ["9,000", "1,000", EN_DASH, "10.0 %", EN_DASH, EN_DASH, EN_DASH]
    assert "a card: batches of 8 x 64 characters, median of 5, 1 thread(s)" in text


def test_runs_that_cannot_be_compared_are_kept_apart(script: Any, tmp_path: Path) -> None:
    runs = [
        run("magnet", 1, 2.0, 4.0),
        run("speak", 1, 2.0, 4.0, training_steps=200),
        run("speak", 1, 2.0, 4.0, text="another"),
        run("speak", 1, 2.0, 4.0, protocol={"window": 2048, "stride": 512}),
        run("speak", 1, 2.0, 4.0, model_width=64),
    ]
    settings = found(script, runs, tmp_path)
    assert len(settings) == 5
    assert [setting.label for setting in settings] == [
        "en, text sha of e, 100 steps of 4 x 64, width 32, scored 32 of 64",
        "en, text sha of e, 200 steps of 4 x 64, width 32, scored 32 of 64",
        "en, text another, 100 steps of 4 x 64, width 32, scored 32 of 64",
        "en, text sha of e, 100 steps of 4 x 64, width 32, scored 512 of 2048",
        "en, text sha of e, 100 steps of 4 x 64, width 64, scored 32 of 64",
    ]
    assert all(len(setting.variants) == 1 for setting in settings)


def test_the_main_variant_of_equals_is_the_centre_of_the_ablations(script: Any, tmp_path: Path) -> None:
    runs = [
        run("speak", 1, 2.2, 3.9, neuron_reset_mode="soft"),
        run("speak", 1, 2.3, 2.0, training_rest_term=False),
        run("speak", 1, 2.1, 4.0),
        run("speak", 1, 2.12, 4.1, training_acceptance="greedy"),
    ]
    (setting,) = found(script, runs, tmp_path)
    assert setting.main("speak").bpc == [2.1]
    assert [changed for _, changed in setting.ablations()] == [
        {"neuron.reset_mode": "soft"},
        {"training.rest_term": False},
        {"training.acceptance": "greedy"},
    ]


def test_two_ways_to_find_boundaries(script: Any, tmp_path: Path) -> None:
    """DTP draws its boundaries at evaluation too: the second score of the same runs stands as a system of its own."""
    runs = []
    for seed, shift in ((1, 0.0), (2, 0.01)):
        other = {"boundaries": "sampled", "bpc": 2.0 + shift, "sf": 5.0}
        runs += [run("magnet", seed, 2.2 + shift, 9.0, other=other), run("speak", seed, 2.1 + shift, 4.0)]
    settings = found(script, runs, tmp_path)
    text = script("tables").render(settings, "x")
    table = rows(text, "### en")
    assert table["system"][4:] == ["BPC against magnet", P, "BPC against magnet, sampled", P, "knobs"]
    assert table["magnet, sampled"][1:4] == ["2.0050 ± 0.0071", "5.00 ± 0.00", "2"]
    assert table["speak"][4] == "−4.54 %"
    assert table["speak"][6] == "+4.99 %"
    assert table["magnet, sampled"][4:6] == ["−9.07 %", "no test: the same runs"]
    assert list(rows(text, "## Table 4")) == ["system", "magnet", "speak"]
    assert list(rows(text, "| validation BPC at")) == ["validation BPC at", "magnet", "speak"]


def test_two_views_are_of_the_same_runs(script: Any, tmp_path: Path) -> None:
    """Also where several variants have as many seeds, and another one's second view is nearer to SPEAK's SF."""
    runs = [run("speak", 1, 2.1, 4.0)]
    for prior, sf, drawn in ((0.2, 4.1, 9.0), (0.3, 8.0, 4.0)):
        other = {"boundaries": "sampled", "bpc": 2.0, "sf": drawn}
        runs.append(run("magnet", 1, 2.2, sf, tokenizer_prior=prior, other=other))
    (setting,) = found(script, runs, tmp_path)
    for system in ("magnet", "magnet, sampled"):
        assert setting.main(system).config["tokenizer.prior"] == 0.2


def test_runs_with_a_start_are_a_system_of_their_own(script: Any, tmp_path: Path) -> None:
    """Three seeds without a start do not hide the one with it, and its drawn boundaries stand beside it."""
    runs = [run("speak", 1, 2.1, 4.0), run("speak", 2, 2.2, 4.0)]
    runs += [run("magnet", seed, 3.0, 5.0) for seed in (1, 2, 3)]
    other = {"boundaries": "sampled", "bpc": 2.4, "sf": 4.5}
    runs.append(run("magnet", 1, 2.0, 5.0, training_exemplar_steps=20, other=other))
    runs.append(run("dtp-unigram", 1, 2.3, 5.0, training_exemplar_steps=20))
    settings = found(script, runs, tmp_path)
    render = script("tables").render
    both = [*settings, *found(script, [run("speak", 1, 2.1, 4.0, "fi"), run("fixed", 1, 2.1, 4.0, "fi")], tmp_path)]
    overview = list(rows(render(both, "x"), "## Table 1"))
    assert overview == ["BPC (SF)", "fixed", "dtp-unigram", "magnet", *STARTED, "speak"]
    table = rows(render(settings, "x"), "### en")
    assert list(table) == ["system", "dtp-unigram", "magnet", *STARTED, "speak"]
    assert table["magnet, started"][1:4] == ["2.0000", "5.00", "1"]
    assert table["magnet, started, sampled"][1] == "2.4000"
    assert table["system"][4:8] == ["BPC against magnet", P, "BPC against magnet, started", P]
    assert table["speak"][6:8] == ["+7.50 %", "no test: 1 common seed"]


def test_a_run_counts_once_however_often_it_is_given(script: Any, file: Path) -> None:
    """The same file twice, and beside it the same runs under another name of the data, as watched more often."""
    out = file.parent / "tables.md"
    tables = script("tables").main
    assert tables([str(file), "--out", str(out), "--name", "en=English"]) == 0
    once = out.read_text(encoding="utf-8").split("\n", 4)[4]
    copy = json.loads(file.read_text(encoding="utf-8"))
    for one in copy["metrics"]["runs"]:
        one["name"] += " again"
        one["dataset"] = {"en": "the same text", "fi": "fi"}[one["dataset"]]
        one["knobs"]["training.evaluate_every"] = 7
    other = file.parent / "copy.json"
    other.write_text(json.dumps(copy), encoding="utf-8")
    names = ["--name", "en=English", "--name", "sha of en=English"]
    assert tables([str(file), str(other), str(file), "--out", str(out), *names]) == 0
    assert out.read_text(encoding="utf-8").split("\n", 4)[4] == once


def test_two_scores_of_one_seed_are_refused(script: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the table would say what the first file says. Seeds differ by less than a percent."""
    copy = json.loads(file.read_text(encoding="utf-8"))
    chosen = next(one for one in copy["metrics"]["runs"] if one["system"] == "magnet")
    chosen["bpc"] += 0.01
    other = file.parent / "copy.json"
    other.write_text(json.dumps(copy), encoding="utf-8")
    assert script("tables").main([str(file), str(other)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "en-magnet-1 and en-magnet-1 are the same run" in error


def test_pareto(script: Any, tmp_path: Path) -> None:
    runs = [
        run("fixed", 1, bpc, sf, tokenizer_fixed_length=n)
        for n, (bpc, sf) in enumerate([(2.0, 2.0), (2.1, 3.0), (2.2, 2.5), (2.1, 4.0), (2.0, 1.5)])
    ]
    (setting,) = found(script, runs, tmp_path)
    best = script("settings").pareto(setting.variants)
    assert [id(v) in best for v in setting.variants] == [True, False, False, True, False]


def test_pictures(script: Any, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, numbers = tmp_path / "plots" / "gtok", tmp_path / "numbers.json"
    assert script("plot").main([str(file), "--out", str(out), "--json", str(numbers)]) == 0
    for name in ("frontier", "curves"):
        assert (tmp_path / "plots" / f"gtok_{name}.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads(numbers.read_text(encoding="utf-8"))["metrics"]
    assert list(metrics) == ["en", "fi"]
    points = metrics["en"]["frontier"]["magnet"]
    assert [point["sf"] for point in points] == [3.0, 4.0, 6.0]
    assert [len(point["seeds"]) for point in points] == [1, 3, 1]
    assert points[1]["bpc"] == pytest.approx(2.2)
    assert points[1]["bpc_deviation"] == pytest.approx(0.01)
    assert len(metrics["en"]["frontier"]["speak"]) == 2, "ablations are no points of the line"
    curve = metrics["en"]["curves"]["steps"]["speak"]
    assert curve["x"] == [50, 100]
    assert curve["bpc"] == pytest.approx([3.0, 2.1])
    assert "flops" not in metrics["en"]["curves"], "no vocabulary in these records"


def test_compute_axis_from_real_runs(script: Any, tiny_run: Path) -> None:
    (record,), _ = script("records").load([tiny_run])
    x = script("curves").points(record, "flops")
    assert len(x) == 2
    assert 0 < x[0] < x[1]
    # Between one and ten operations per parameter, character and pass is all that a small model can need.
    passes = 3 * 40 * 4 * 64 * (record.parameters_language_model + record.parameters_tokenizer)
    assert passes < x[1] < 10 * passes
    # None of these few steps decided on a proxy, which is not known of a file from before that was kept.
    before = {name: values for name, values in record.curve.items() if name != "decided"}
    assert script("curves").points(dataclasses.replace(record, curve=before), "flops")[1] > x[1]


def test_without_curves(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.json"
    runs = [run("magnet", 1, 2.0, 4.0, curve={}), run("speak", 1, 2.0, None, curve={})]
    path.write_text(json.dumps({"metrics": {"config": {}, "runs": runs}}), encoding="utf-8")
    assert script("plot").main([str(path), "--out", str(tmp_path / "p")]) == 0
    assert "no curves" in capsys.readouterr().err
    assert not (tmp_path / "p_curves.png").exists()
    assert script("tables").main([str(path)]) == 0
    assert rows(capsys.readouterr().out, "### en")["speak"][2] == EN_DASH


def test_texts_of_one_name_by_their_digest(script: Any, tmp_path: Path) -> None:
    runs = [run("magnet", 1, 2.0, 4.0, text="a" * 64), run("magnet", 1, 2.1, 4.0, text="b" * 64)]
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"metrics": {"config": {}, "runs": runs}}), encoding="utf-8")
    records = script("records").load([path])[0]
    assert [r.dataset for r in script("selection").renamed(records, ["aaaaaaaa=wiki"])] == ["wiki", "en"]
    labels = [setting.label for setting in script("settings").settings(records)]
    assert labels == ["en, text aaaaaaaa", "en, text bbbbbbbb"]


def test_speak_as_chosen(script: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("tables").main([str(file), "--speak", "training.acceptance=greedy"]) == 0
    text = capsys.readouterr().out
    assert rows(text, "### en")["speak"][1] == "2.1200"
    assert rows(text, "### fi")["speak"][1] == "1.8000", "where no run has the setting, all are candidates"
    fifth = rows(text, "## Table 5")
    assert list(fifth)[1] == "acceptance greedy, rate_limit 0.0, rest_term True"
    assert fifth["acceptance metropolis"][5] == "−0.94 %"
    assert fifth["acceptance metropolis"][7] == "−4.55 %"
    assert fifth["SPEAK with"][7] == "against magnet"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--name", "en"], "allowed: DATA=NAME"),
        (["--name", "sv=Swedish"], "no run has data 'sv'; there are: en (sha of e), fi (sha of f)"),
        (["--speak", "training.acceptance=never"], "no SPEAK run has that"),
    ],
)
def test_bad_selections(
    script: Any, file: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tables: ModuleType = script("tables")
    assert tables.main([str(file), *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
