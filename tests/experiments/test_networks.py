"""The experiments with networks: the readers' table as a whole, the gate's in a few steps, models without Lava."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "networks"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"networks_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_adapters_run_every_graph_that_their_reader_can(tmp_path: Path, capsys: Any) -> None:
    assert load("readers").main(["--json", str(tmp_path / "readers.json")]) == 0
    cells = json.loads((tmp_path / "readers.json").read_text())["metrics"]["readers"]
    exact = ("native", "folded", "network")
    for reader in ("from_nir", "our interpreter", "nirtorch + adapter"):
        assert [cells[reader][graph] for graph in exact] == ["exact"] * 3
    for reader in ("norse + adapter", "sinabs + adapter", "Lava"):
        if reader in cells:
            assert [cells[reader][graph] for graph in exact] == ["exact"] * 3
    assert cells["from_nir"]["lowered"] == "exact"
    if "norse + adapter" in cells:
        assert cells["norse + adapter"]["lowered"] == "exact"
    approximate = {row["approximate"] for name, row in cells.items() if name.endswith("adapter")}
    assert len(approximate) == 1  # they agree about the stock neuron
    assert "AssertionError" in cells["nir.read alone"]["native"]


def test_the_gate_experiment_runs(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "gate.json"
    flags = ["--seeds", "0", "--train-steps", "5", "--neurons", "4", "--json", str(out)]
    assert load("gate").main([*flags, "--systems", "gate", "hard", "Leaky"]) == 0
    rows = json.loads(out.read_text())["metrics"]["systems"]
    assert [row["system"] for row in rows] == ["gate", "hard", "Leaky"]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert rows[0]["runs"][0]["open_at_cue"] is not None
    assert load("gate").main(["--train-steps", "0"]) == 2
    assert "--train-steps is 0; allowed: 1 or more" in capsys.readouterr().err


def test_the_cue_voids_what_came_before() -> None:
    """The label is the channel that pulsed most often since the last cue, and not the one before it."""
    import torch

    x, label = load("gate").sequences(2000, torch.Generator().manual_seed(0))
    last = x[..., -1].flip(1).argmax(1)
    after = torch.arange(x.shape[1])[None] >= x.shape[1] - last[:, None]
    since = (x[..., :-1] * after[..., None]).sum(1).argmax(1)
    whole = x[..., :-1].sum(1).argmax(1)
    assert (since == label).float().mean() > 0.9
    assert (whole == label).float().mean() < 0.8


@pytest.mark.filterwarnings("ignore")
def test_models_without_lava(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("norse")
    pytest.importorskip("sinabs")
    out = tmp_path / "models.json"
    flags = ["--models", "braille", "keywords", "--batch", "2", "--no-lava", "--json", str(out)]
    assert load("models").main(flags) == 0
    models = json.loads(out.read_text())["metrics"]["models"]
    assert "subtracts its threshold a step later" in models["braille"]["refused"]
    assert all(row["numpy"] == 0 for row in models["keywords"]["layers"].values())
    assert models["keywords"]["readers"] == {"from_nir": 0.0, "norse": 0.0, "sinabs": 0.0}
    assert all(row["spikes"] > 0 for model in models.values() for row in model["layers"].values())
