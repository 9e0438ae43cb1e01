"""experiments/compare/mixture.py and what branches from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scripts import load
from tiny import TINY_FLAGS

from speak_neuro.common.tensors import read_tensors
from speak_neuro.systems.run_folder import MODEL

Gtok = Callable[..., int]
SETTINGS = [flag for flag in TINY_FLAGS if flag not in ("--quiet", "--device", "cpu")]
MEMBERS = {"speak": "--drive information", "unigram": "--tokenizer dtp-unigram"}
COMMON = [*SETTINGS, "--steps", "6", "--target-sf", "4", "--seed", "5"]


def mix(excerpt: Path, out: Path, **members: str) -> int:
    named = [part for name, flags in members.items() for part in ("--member", f"{name}={flags}")]
    common = ["--data", str(excerpt), "--out", str(out), "--preset", "smoke", "--device", "cpu", "--quiet"]
    return int(load("compare/mixture").main([*common, "--flags", " ".join(COMMON), *named]))


@pytest.fixture(scope="module")
def mixture(excerpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixture") / "5"
    assert mix(excerpt, folder, **MEMBERS) == 0
    return folder


def test_members_share_the_language_model(mixture: Path, excerpt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [read_tensors(mixture / name / MODEL)[0] for name in MEMBERS]
    common = [name for name in models[0] if name.startswith("language_model.")]
    assert common
    assert all(torch.equal(models[0][name], models[1][name]) for name in common)
    lines = [json.loads(line) for line in (mixture / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["member"] for line in lines] == ["speak", "unigram"] * 3
    assert mix(excerpt, mixture, **MEMBERS) == 0
    assert "finished" in capsys.readouterr().out


def test_a_branch_begins_with_the_common_weights(gtok: Gtok, mixture: Path, excerpt: Path, tmp_path: Path) -> None:
    flags = [
        "--data",
        str(excerpt),
        "--drive",
        "information",
        "--target-sf",
        "4",
        "--start-from",
        str(mixture / "speak"),
    ]
    out = tmp_path / "branch"
    # One step at a learning rate of nothing: what the run is left with is what it began with.
    still = ["--learning-rate", "0", "--matrix-learning-rate", "0", "--tokenizer-learning-rate", "0", "--steps", "1"]
    assert gtok(*flags, *still, "--out", str(out)) == 0
    begun, ended = (read_tensors(folder / MODEL)[0] for folder in (mixture / "speak", out))
    moved = [name for name, value in begun.items() if not torch.equal(value, ended[name])]
    assert set(moved) <= {"tokenizer.current_readout.bias", "rate.value", "mixes.fire_mix", "mixes.rest_mix"}
    assert json.loads((out / "config.json").read_text("utf-8"))["started_from"] == "5"


def test_a_branch_of_another_system_is_refused(
    gtok: Gtok, mixture: Path, excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", str(excerpt), "--out", str(tmp_path / "x"), "--start-from", str(mixture / "unigram")]
    assert gtok(*flags, "--drive", "information", "--target-sf", "4", "--steps", "1") == 2
    assert "tokenizer.kind is dtp-unigram, this run's speak" in capsys.readouterr().err


def test_a_member_without_a_name_is_refused(excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mix(excerpt, tmp_path / "x", **{"": "--tokenizer whitespace"}) == 2
    assert "NAME=FLAGS" in capsys.readouterr().err
