"""A neuron that learned from information, with smooth un-pooling too, is the same in Lava: float, and on the grid."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from lava_fixtures import lava
from small_trainer import CONFIG, TEXT, build

from speak_neuro.config import RunConfig
from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.export.files.trace_file import Trace
from speak_neuro.export.graph import export_neuron
from speak_neuro.export.trace import run_trace, trace_rows
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.inference.speak import Speak
from speak_neuro.sim.fixed.compare import compare_fixed
from speak_neuro.sim.parity.compare import compare
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.fit import train_step
from speak_neuro.training.rate import calibrate


def learned(grid: str, unpooling: str) -> tuple[ExportedNeuron, Trace]:
    """Forty steps of the drive, held to four characters per token, and its run on 3,000 characters."""
    config: RunConfig = dataclasses.replace(
        CONFIG,
        neuron=dataclasses.replace(CONFIG.neuron, reset_scale=1.0),
        tokenizer=dataclasses.replace(CONFIG.tokenizer, grid=grid, unpooling=unpooling),
        training=dataclasses.replace(
            CONFIG.training, drive="information", neuron_loss="spike", target_sf=4.0, entropy_share=0.6
        ),
    )
    trainer = build(config)
    for _ in range(40):
        train_step(trainer)
    alphabet = Alphabet.learn(TEXT)
    calibrate(trainer.system, alphabet.encode(TEXT), 64, 4.0)
    system = trainer.system.eval()
    ids = torch.from_numpy(alphabet.encode(TEXT).astype("int64"))[None]
    with torch.no_grad():  # so short a training opens no gate yet: half of the spikes shall
        found = system.tokenizer(ids)
        # between two of them: at one of them the gate would open or not by a rounding
        logits = found.gate_logit[found.spikes.bool()].unique()
        half = logits[len(logits) // 2 - 1 : len(logits) // 2 + 1].mean() / system.tokenizer.unit
        system.tokenizer.gate_readout.bias -= half
    speak = Speak(BoundaryEngine(system, config), alphabet)
    return export_neuron(system), run_trace(speak, trace_rows(TEXT[:3000], 100), {})


@lava
@pytest.mark.parametrize("unpooling", ["read", "smooth"])
def test_float(unpooling: str) -> None:
    exported, trace = learned("none", unpooling)
    result = compare(exported, trace, timeout=60)
    assert result.passed
    levels: dict[str, Any] = result.report["levels"]
    assert {name: level["mismatches"] for name, level in levels.items()} == {"neuron": 0, "readout": 0}
    assert levels["neuron"]["membrane_mismatches"] == 0
    assert 400 < levels["neuron"]["spikes"] == trace.spikes.sum() < 1200
    hard = trace.spikes.astype(bool) & (trace.gate_logit > 0)
    assert 0 < hard.sum() < trace.spikes.sum(), "one of the two resets alone"


@lava
def test_trained_on_the_grid_it_is_the_fixed_point_neuron() -> None:
    exported, trace = learned("loihi2", "read")
    section, _ = compare_fixed(exported, trace, timeout=60)
    for level in ("neuron", "readout"):
        result = section[level]
        assert result["passed"], level
        assert (result["mismatches"], result["membrane_mismatches"]) == (0, 0)
        assert result["float"]["agreement"] == 1, level
        assert result["spikes"] == trace.spikes.sum() > 400


def test_smooth_unpooling_trains_the_neuron_by_the_language_model() -> None:
    """With no loss of its own, the neuron gets a gradient through what is read back; read as they are, none."""
    for unpooling, reached in (("smooth", True), ("read", False)):
        config = dataclasses.replace(CONFIG, tokenizer=dataclasses.replace(CONFIG.tokenizer, unpooling=unpooling))
        system = build(config).system.train()
        ids = torch.from_numpy(Alphabet.learn(TEXT).encode(TEXT[:64]).astype("int64"))[None]
        found = system.tokenizer(ids)
        logits = system.language_model.decode(
            system.language_model.pre(ids), found.spikes.detach().bool(), system.tokenizer.confidence(found)
        )
        logits.square().mean().backward()
        gradient = system.tokenizer.current_readout.weight.grad
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) is reached
