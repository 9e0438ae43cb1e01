"""The experiments with networks: the readers' table as a whole, the gate's in a few steps, models without Lava."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import scripts


def load(name: str) -> Any:
    return scripts.load(f"networks/{name}")


def reader_cells(tmp_path: Path, *flags: str) -> dict[str, dict[str, str]]:
    out = tmp_path / "readers.json"
    assert load("readers").main(["--json", str(out), *flags]) == 0
    cells: dict[str, dict[str, str]] = json.loads(out.read_text())["metrics"]["readers"]
    return cells


EXACT = ("native", "folded", "network")


@pytest.mark.filterwarnings("ignore")
def test_adapters_run_every_graph_that_their_reader_can(tmp_path: Path, capsys: Any) -> None:
    torch_readers = ("nirtorch + adapter", "norse + adapter", "sinabs + adapter", "from_nir")
    others = ("norse", "sinabs", "snntorch", "sc-neurocore", "our interpreter")
    cells = reader_cells(tmp_path, "--readers", *torch_readers, *others, "--graphs", "native", "approximate", "network")
    for reader in (*torch_readers, "our interpreter"):
        if reader in cells:
            assert [cells[reader][graph] for graph in ("native", "network")] == ["exact"] * 2
    for reader in others[:-1]:
        assert "exact" not in cells.get(reader, {}).values()
    approximate = {cells[reader]["approximate"] for reader in torch_readers if reader in cells}
    assert len(approximate) == 1  # they agree about the stock neuron
    assert all(share.endswith("% differ") for share in approximate)


@pytest.mark.filterwarnings("ignore")
def test_the_lowered_and_the_folded_graph_run_in_readers_that_are_not_ours(tmp_path: Path, capsys: Any) -> None:
    readers = ("sc-neurocore", "norse + adapter", "sinabs + adapter", "from_nir")
    cells = reader_cells(tmp_path, "--readers", *readers, "--graphs", "lowered", "folded")
    assert {row["lowered"] for row in cells.values()} == {"exact"}
    assert {row["folded"] for reader, row in cells.items() if reader != "sc-neurocore"} == {"exact"}


def test_nir_alone_refuses_the_native_graph(tmp_path: Path, capsys: Any) -> None:
    cells = reader_cells(tmp_path, "--readers", "nir.read alone", "--graphs", "native", "lowered")
    assert "AssertionError" in cells["nir.read alone"]["native"]
    assert "reads" in cells["nir.read alone"]["lowered"]


@pytest.mark.lava
def test_lava_runs_the_graphs_exactly(tmp_path: Path, capsys: Any) -> None:
    cells = reader_cells(tmp_path, "--readers", "Lava", "--graphs", *EXACT)
    assert [cells["Lava"][graph] for graph in EXACT] == ["exact"] * 3


def test_the_gate_experiment_runs(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "gate.json"
    flags = ["--seeds", "0", "--train-steps", "5", "--neurons", "4", "--json", str(out)]
    assert load("gate").main([*flags, "--systems", "gate", "hard", "Leaky"]) == 0
    rows = json.loads(out.read_text())["metrics"]["systems"]
    assert [row["system"] for row in rows] == ["gate", "hard", "Leaky"]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert set(rows[0]["runs"][0]["open"]) == {"at cue", "else"}
    assert load("gate").main(["--train-steps", "0"]) == 2
    assert "--train-steps is 0; allowed: at least 1" in capsys.readouterr().err


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
def test_a_few_steps_on_spoken_vowels_beat_chance(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("aeon")
    out = tmp_path / "vowels.json"
    flags = ["--task", "vowels", "--seeds", "0", "--train-steps", "40", "--systems", "gate", "Leaky"]
    assert load("gate").main([*flags, "--json", str(out)]) == 0
    metrics = json.loads(out.read_text())["metrics"]
    assert metrics["chance"] == 1 / 9
    assert all(row["accuracy"] > 0.3 for row in metrics["systems"])
    train, test = load("vowels").load()
    assert (len(train.frames), len(test.frames)) == (270, 370)
    assert train.frames[0, int(train.lengths[0]) :].abs().sum() == 0


@pytest.mark.filterwarnings("ignore")
def test_models_without_lava(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("norse")
    pytest.importorskip("sinabs")
    out = tmp_path / "models.json"
    flags = ["--models", "braille", "keywords", "--batch", "2", "--no-lava", "--train-steps", "0", "--json", str(out)]
    assert load("models").main(flags) == 0
    models = json.loads(out.read_text())["metrics"]["models"]
    assert "subtracts its threshold a step later" in models["braille"]["refused"]
    for model in models.values():
        assert all(row["numpy"] == 0 for row in model["layers"].values())
        assert model["readers"] == {"from_nir": 0.0, "norse": 0.0, "sinabs": 0.0}
    assert all(row["spikes"] > 0 for model in models.values() for row in model["layers"].values())
