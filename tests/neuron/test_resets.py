"""A made-up reset mode and a made-up backend, in this file alone: what can compute them does, the rest says why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from neuron_cases import adversarial_currents
from scripts import load
from tiny import TINY_FLAGS

from speak_neuro.export.cli import main as export
from speak_neuro.export.modules.nodes import UnsupportedLayer
from speak_neuro.export.modules.to_nir import to_nir
from speak_neuro.inference.speak import Speak
from speak_neuro.neuron.functional import gated_lif_scan
from speak_neuro.neuron.fused import numba_engine
from speak_neuro.neuron.fused.dispatch import ENGINES, Engine
from speak_neuro.neuron.module import GatedLeaky, GatedLeakyCell
from speak_neuro.neuron.reference import NeuronParameters, gated_lif_run
from speak_neuro.neuron.resets import HARD, NONE, RESETS, SOFT, Action, Reset, compiled_reset
from speak_neuro.table.table import CompiledTable
from speak_neuro.testing import assert_runs_equal
from speak_neuro.text.alphabet import Alphabet

MODE = "made-up"
CONSTANTS = {"decay": 0.9, "gain": 1.1, "threshold": 1.0, "reset_potential": -0.25, "reset_scale": 0.8}


@pytest.fixture(autouse=True, scope="module")
def soft_to_zero() -> Iterator[None]:
    """u - soft, but no lower than 0, with the gate closed; the hard reset with it open."""
    RESETS[MODE] = Reset(HARD, Action(lambda u, reset, soft: (u - soft).clip(0)))
    yield
    del RESETS[MODE]


@given(st.integers(0, 2**32 - 1), st.sampled_from(("quarters", "random", "tiny", "negative")))
def test_reference_loop_and_cell_compute_it(seed: int, kind: str) -> None:
    current, gate = adversarial_currents((3, 12), seed, kind), adversarial_currents((3, 12), seed + 1, "random")
    expected = gated_lif_run(current, gate, NeuronParameters(**CONSTANTS, mode=MODE))
    for row in range(3):  # the definition again, a number at a time
        v = np.float32(CONSTANTS["reset_potential"])
        for t in range(12):
            u = np.float32(0.9) * v + np.float32(1.1) * current[row, t]
            fired = u >= 1
            after = np.float32(-0.25) if gate[row, t] > 0 else max(u - np.float32(0.8), np.float32(0))
            v = after if fired else u
            assert (expected.spikes[row, t], expected.membrane[row, t]) == (fired, u)
        assert expected.state[row] == v
    currents, gates = torch.from_numpy(current), torch.from_numpy(gate)
    for backend in ("auto", "loop"):
        assert_runs_equal(gated_lif_scan(currents, gates, **CONSTANTS, mode=MODE, backend=backend), expected)
    assert_runs_equal(GatedLeaky(**CONSTANTS, mode=MODE)(currents, gates), expected)
    cell, mem = GatedLeakyCell(**CONSTANTS, mode=MODE), None
    for t in range(12):
        spikes, mem = cell(currents[:, t], mem, gates[:, t])
        assert np.array_equal(spikes.numpy(), expected.spikes[:, t])
    assert np.array_equal(mem.detach().numpy(), expected.state)


def test_gradients_are_those_of_the_definition() -> None:
    random = np.random.default_rng(0)
    current = torch.tensor(random.normal(0.6, 0.8, (4, 9)), requires_grad=True)
    gate = torch.tensor(random.normal(size=(4, 9)))
    found = torch.autograd.grad(gated_lif_scan(current, gate, **CONSTANTS, mode=MODE).state.sum(), current)[0]
    v = torch.full((4,), -0.25, dtype=torch.float64)
    for t in range(9):
        u = 0.9 * v + 1.1 * current[:, t]
        smooth = torch.sigmoid(4 * (u - 1))
        s = smooth + ((u >= 1).double() - smooth).detach()
        m = (gate[:, t] > 0).double()
        v = (1 - s) * u + s * (m * -0.25 + (1 - m) * (u - 0.8).clamp(min=0))
    torch.testing.assert_close(found, torch.autograd.grad(v.sum(), current)[0])


def test_what_compiles_refuses_it_with_a_reason() -> None:
    reason = f"reset mode '{MODE}' does more than kernels, tables, NIR and Lava have"
    ones = torch.ones(1, 3)
    with pytest.raises(ValueError, match=f"backend 'numba': {reason}"):
        gated_lif_scan(ones, ones, mode=MODE, backend="numba")
    with pytest.raises(ValueError, match=f"backend 'triton': {reason}"):
        gated_lif_scan(ones, ones, mode=MODE, backend="triton")
    with pytest.raises(ValueError, match=reason):
        CompiledTable(
            Alphabet("a"), np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), NeuronParameters(mode=MODE)
        )
    with pytest.raises(UnsupportedLayer, match=reason):
        to_nir(torch.nn.Sequential(GatedLeaky(2, mode=MODE, output="spikes")), torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match=f"mode is 'sotf'; allowed: gated, .*, {MODE}"):
        compiled_reset("sotf")


def test_modes_of_known_actions_are_compiled_where_their_places_are_free() -> None:
    known = {"gated": (None, True), "hard": (True, True), "soft": (False, True), "none": (False, False)}
    assert {mode: tuple(compiled_reset(mode)) for mode in known} == known
    RESETS["swapped"] = Reset(SOFT, HARD)
    RESETS["leave or hard"] = Reset(HARD, NONE)
    try:
        with pytest.raises(ValueError, match="'swapped' does more"):
            compiled_reset("swapped")
        assert compiled_reset("leave or hard") == compiled_reset("hard/none")
    finally:
        del RESETS["swapped"], RESETS["leave or hard"]


def test_it_trains_cuts_text_and_is_refused_by_every_export(
    excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = ["--data", str(excerpt), "--steps", "5", "--encoder", "linear", "--reset-mode", MODE, "--out", str(run)]
    assert load("gtok").main([*TINY_FLAGS, *flags]) == 0
    text = "a few words, and then some more"
    assert "".join(Speak.load(run).tokens(text)) == text
    for form in (["--to", "nir"], ["--to", "nir", "--fold"], ["--to", "table"]):
        capsys.readouterr()
        assert export([*form, "--run", str(run), "--out", str(tmp_path / "out")]) == 2
        assert f"reset mode '{MODE}' does more than" in capsys.readouterr().err


def run_forward(inputs, settings):
    """The made-up backend: numba's engine, its calls counted."""
    CALLS.append(settings.backend)
    return numba_engine.run_forward(inputs, settings)


run_backward = numba_engine.run_backward
CALLS: list[str] = []


def test_a_backend_is_one_file_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "my_engine", sys.modules[__name__])
    monkeypatch.setitem(ENGINES, "mine", Engine("my_engine", "numpy", "cpu", "the CPU"))
    current = torch.tensor([[0.6, 0.7, 0.2]], requires_grad=True)
    found = GatedLeaky(backend="mine")(current, torch.ones(1, 3))
    found.spikes.sum().backward()
    assert CALLS == ["mine"]
    assert found.spikes.tolist() == [[0, 1, 0]]
    assert current.grad is not None
    with pytest.raises(ValueError, match=r"backend 'mine' serves float32 on the CPU, not torch\.float64"):
        gated_lif_scan(current.double(), current.double(), backend="mine")
