"""The table of branches against what scipy and the formulas say of the same numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison_fixtures import run
from scipy import stats
from scripts import load

from speak_neuro.common.settings import to_dict
from speak_neuro.config import RunConfig
from speak_neuro.model.flops import character_flops, forward_flops

SYSTEMS = {"whitespace": "whitespace", "dtp-unigram": "dtp-unigram", "speak": "speak", "speak-soft": "speak"}


@pytest.fixture
def blocks() -> dict[str, Any]:
    """(seed, block) BPC of each system: a common part, and a system's own."""
    drawn = np.random.default_rng(4)
    common = drawn.normal(1.8, 0.1, (3, 20))
    own = {"whitespace": 0.003, "dtp-unigram": 0.0, "speak": -0.004, "speak-soft": 0.02}
    return {name: common + shift + drawn.normal(0, 0.002, (3, 20)) for name, shift in own.items()}


def write(path: Path, blocks: dict[str, Any], **more: Any) -> Path:
    runs = [
        {
            **run(
                SYSTEMS[name], seed, float(part[seed - 1].mean()), 4.0,
                block_bpc=part[seed - 1].tolist(), started_from=str(seed), vocabulary=28, token_dependence=0.1,
            ),
            "name": f"{name}-{seed}",
            **more,
        }
        for name, part in blocks.items()
        for seed in (1, 2, 3)
    ]  # fmt: skip
    settings = flat(to_dict(RunConfig()))
    for one in runs:  # variants of SPEAK differ in a knob
        mode = "soft" if "soft" in one["name"] else "gated"
        one["knobs"] = {**settings, **one["knobs"], "neuron.reset_mode": mode, "model.heads": 4}
    path.write_text(json.dumps({"metrics": {"config": {}, "runs": runs}}), encoding="utf-8")
    return path


def flat(config: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{name}": value for section, part in config.items() for name, value in part.items()}


def rows(path: Path) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in path.read_text("utf-8").splitlines()]
    return {line[0]: line for line in lines[2:]}


def test_the_table(tmp_path: Path, blocks: dict[str, Any]) -> None:
    file, out = write(tmp_path / "runs.json", blocks), tmp_path / "table.md"
    assert load("compare/branches").main([str(file), "--out", str(out)]) == 0
    found = rows(out)
    assert list(found) == sorted(blocks, key=lambda name: blocks[name].mean())
    p = {}
    for name in ("whitespace", "speak", "speak-soft"):
        difference = blocks[name] - blocks["dtp-unigram"]
        by_seed = difference.mean(axis=1)
        cells = [cell.replace("−", "-") for cell in found[name]]
        assert float(cells[6]) == pytest.approx(by_seed.mean(), abs=6e-5)
        assert float(cells[7]) == pytest.approx(100 * by_seed.mean() / blocks["dtp-unigram"].mean(), abs=6e-3)
        assert float(cells[8]) == pytest.approx(stats.sem(difference.mean(axis=0)), abs=6e-5)
        assert float(cells[9]) == pytest.approx(stats.sem(by_seed), abs=6e-5)
        p[name] = float(stats.ttest_rel(blocks[name].mean(axis=1), blocks["dtp-unigram"].mean(axis=1)).pvalue)
    smallest = min(p, key=lambda name: p[name])
    assert float(found[smallest][-1]) == pytest.approx(3 * p[smallest], abs=6e-4)
    assert found["dtp-unigram"][6:] == ["–"] * 6


def test_texts_are_kept_apart(tmp_path: Path, blocks: dict[str, Any]) -> None:
    """Two texts in one file: the tables of each alone, under their names."""
    alone, files = {}, []
    for name, shift in (("fi", 0.0), ("he", 0.3)):
        moved = {system: part + shift for system, part in blocks.items()}
        files.append(write(tmp_path / f"{name}.json", moved, dataset=name, text=name))
        assert load("compare/branches").main([str(files[-1]), "--out", str(tmp_path / name)]) == 0
        alone[name] = (tmp_path / name).read_text("utf-8")
    out = tmp_path / "both.md"
    assert load("compare/branches").main([*map(str, files), "--out", str(out)]) == 0
    assert out.read_text("utf-8") == f"**fi**\n\n{alone['fi']}\n**he**\n\n{alone['he']}"


def test_a_run_that_is_no_branch_is_refused(
    tmp_path: Path, blocks: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    script = load("compare/branches")
    assert script.main([str(write(tmp_path / "a.json", blocks, started_from=None))]) == 2
    assert "no branch of a mixture" in capsys.readouterr().err
    assert script.main([str(write(tmp_path / "b.json", blocks)), "--against", "magnet"]) == 2
    assert "--against is 'magnet'; allowed: whitespace, dtp-unigram, speak, speak-soft" in capsys.readouterr().err


def test_flops_of_a_character() -> None:
    """A window's forward pass shared out, and the tokenizer's parameters once; fewer tokens cost less."""
    config = RunConfig()
    before, after = forward_flops(config.model, 30, config.training.window, 4.0)
    got = character_flops(config, 30, 1000, 4.0)
    assert got == pytest.approx((before + after) / config.training.window + 2000)
    assert character_flops(config, 30, 1000, 8.0) < got
    assert math.isclose(character_flops(config, 30, 2000, 4.0) - got, 2000)
