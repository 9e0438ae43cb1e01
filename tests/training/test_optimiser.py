"""Which optimiser trains what, at which rate, and that Muon's update is the orthogonal factor of the gradient."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from speak_neuro.config import SYSTEMS, ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.optimiser import RunOptimiser, layer_matrices, schedule
from speak_neuro.training.presets import ADAM_RATES, PRESETS, faithful, with_adam

MUON = TrainingConfig(
    optimiser="muon", learning_rate=0.5, matrix_learning_rate=0.25, tokenizer_learning_rate=0.125, warmup=2, steps=10
)


def build(kind: str = "speak", training: TrainingConfig = MUON) -> tuple[System, RunOptimiser]:
    torch.manual_seed(0)
    config = RunConfig(
        tokenizer=TokenizerConfig(kind=kind, encoder_width=8, context=2),
        model=ModelConfig(width=16, heads=2, inner=24, pre_layers=1, shortened_layers=1, post_layers=1),
        training=training,
    )
    system = System(config, 9, Alphabet.learn("abc def."))
    return system, RunOptimiser(system, training)


@pytest.mark.parametrize("kind", SYSTEMS)
def test_everything_is_trained_once_and_the_matrices_of_layers_by_muon(kind: str) -> None:
    system, optimiser = build(kind)
    assert optimiser.muon is not None
    names = {id(p): name for name, p in system.named_parameters()}
    by_muon = [names[id(p)] for group in optimiser.muon.param_groups for p in group["params"]]
    by_adam = [names[id(p)] for group in optimiser.adam.param_groups for p in group["params"]]
    assert sorted(by_muon + by_adam) == sorted(n for n, p in system.named_parameters() if p.requires_grad)
    assert len(by_muon) == 3 * 5
    assert all(".layers." in name and name.endswith("weight") and "norm" not in name for name in by_muon)
    assert sum(".layers." in name and name.endswith("weight") and "norm" not in name for name in by_adam) == 0


def test_rates_follow_the_schedule() -> None:
    _, optimiser = build()
    optimiser.set_rates(0)
    assert [group["lr"] for group in optimiser.adam.param_groups] == [0.25, 0.0625]
    assert optimiser.muon is not None
    assert optimiser.muon.param_groups[0]["lr"] == 0.125
    assert optimiser.learning_rate == 0.25
    _, adam = build("dtp-gumbel", dataclasses.replace(MUON, optimiser="adam"))
    adam.set_rates(1)
    assert adam.muon is None
    assert [group["lr"] for group in adam.adam.param_groups] == [0.5, 0.5], "one rate for all, as DTP"


def test_linear_schedule_and_its_cooldown() -> None:
    config = TrainingConfig(steps=110, warmup=10, schedule="linear")
    assert [schedule(step, config) for step in (4, 9, 10, 60, 110, 500)] == [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    late = dataclasses.replace(config, cooldown=0.25)
    assert [schedule(step, late) for step in (4, 10, 60, 85, 110)] == [0.5, 1.0, 1.0, 1.0, 0.0]
    assert schedule(98, late) == pytest.approx(0.48)


def test_muon_moves_a_matrix_by_its_gradients_orthogonal_factor() -> None:
    """Against the singular value decomposition: the same singular vectors, and values near one."""
    system, optimiser = build()
    matrix = layer_matrices(system.language_model)[0]  # query, key and value: three times as high as wide
    before = matrix.detach().clone()
    torch.manual_seed(1)
    left, right = torch.linalg.qr(torch.randn(48, 16))[0], torch.linalg.qr(torch.randn(16, 16))[0]
    matrix.grad = left @ torch.diag(torch.linspace(0.5, 2.0, 16)) @ right
    optimiser.set_rates(1)
    optimiser.step()
    moved = (before - matrix.detach()) / (0.25 * math.sqrt(48 / 16))
    along = left.T @ moved @ right.T
    values = along.diagonal()
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert (along - torch.diag(values)).abs().max() < 0.1


@pytest.mark.parametrize("name", PRESETS)
def test_the_letter_of_the_paper_trains_with_adam(name: str) -> None:
    for config in (faithful(PRESETS[name], name), with_adam(PRESETS[name], name)):
        training = config.training
        assert (training.optimiser, training.beta2, training.schedule, training.clip) == ("adam", 0.999, "cosine", 0.25)
        assert training.learning_rate == ADAM_RATES[name]
    assert faithful(PRESETS[name], name).model.norm == "post"
    letter = faithful(PRESETS[name], name).training
    assert (letter.neuron_loss, letter.drive, letter.target_sf) == ("membrane", "proxy", 0.0)
    assert PRESETS[name].training.neuron_loss == "spike"
