"""The other systems' training step: losses by hand, who trains whom, rates, exact resume."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from speak_neuro.common.tensors import read_tensors
from speak_neuro.config import SYSTEMS, ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.corpus.reader import embedded_text
from speak_neuro.supervision.exemplar import whitespace_boundaries
from speak_neuro.supervision.proxy import ProxyStore
from speak_neuro.systems.dtp_entropy import entropy_peaks
from speak_neuro.systems.predictor import boundary_loss
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.fit import train_step
from speak_neuro.training.trainer import Trainer

TEXT = embedded_text("en")[:6000]
OTHERS = tuple(kind for kind in SYSTEMS if kind != "speak")
CONFIG = RunConfig(
    tokenizer=TokenizerConfig(kind="dtp-unigram"),
    model=ModelConfig(width=32, heads=2, inner=64, pre_layers=1, shortened_layers=1, post_layers=1),
    training=TrainingConfig(steps=60, batch=4, window=64, learning_rate=3e-3, warmup=5, seed=7),
)


def build(kind: str, **settings: object) -> Trainer:
    config = dataclasses.replace(CONFIG, tokenizer=dataclasses.replace(CONFIG.tokenizer, kind=kind, **settings))  # type: ignore[arg-type]
    alphabet = Alphabet.learn(TEXT)
    torch.manual_seed(config.training.seed)
    system = System(config, len(alphabet), alphabet)
    proxy = ProxyStore.create(whitespace_boundaries(TEXT)) if kind == "dtp-unigram" else None
    return Trainer.create(system, config.training, alphabet.encode(TEXT), proxy)


def test_entropy_peaks_by_hand() -> None:
    entropy = torch.tensor([[1.0, 2.0, 1.5, 1.8, 2.5, 2.5, 2.6]])
    assert entropy_peaks(entropy).tolist() == [[True, True, False, False, True, False, True]]
    assert entropy_peaks(torch.tensor([[1.0, 0.5, 0.7, 2.0]])).tolist() == [[True, False, False, True]]


def test_boundary_loss_by_hand_and_the_double_sigmoid() -> None:
    logit, target = torch.tensor([[0.0, 2.0]]), torch.tensor([[True, False]])
    sigmoid = 1 / (1 + math.exp(-2.0))
    expected = (math.log(2) - math.log(1 - sigmoid)) / 2
    assert boundary_loss(logit, target).item() == pytest.approx(expected, rel=1e-6)
    once = [1 / (1 + math.exp(-p)) for p in (0.5, sigmoid)]
    assert boundary_loss(logit, target, True).item() == pytest.approx(
        (-math.log(once[0]) - math.log(1 - once[1])) / 2, rel=1e-6
    )


def test_the_double_sigmoid_is_least_at_zero_where_one_boundary_in_two_is_true() -> None:
    """DTP's loss under-predicts: with half the positions true its best probability is 0, not one half."""
    target = torch.tensor([[True, False]])
    grid = torch.linspace(-8, 8, 161)
    losses = [boundary_loss(x.repeat(1, 2), target, True).item() for x in grid]
    assert int(np.argmin(losses)) == 0
    losses = [boundary_loss(x.repeat(1, 2), target).item() for x in grid]
    assert abs(float(grid[int(np.argmin(losses))])) < 1e-6


@pytest.mark.parametrize("kind", OTHERS)
def test_each_system_learns_and_repeats_itself(kind: str) -> None:
    records = []
    for steps in (60, 3):
        trainer = build(kind, script_priors="latin=0.25" if kind == "magnet" else "")
        records.append([train_step(trainer) for _ in range(steps)])
    assert records[0][:3] == records[1]
    first, last = records[0][0], records[0][-1]
    assert last["loss_lm"] < 0.8 * first["loss_lm"]
    assert all(math.isfinite(value) for value in last.values())
    if kind == "vanilla":
        assert last["sf"] == 1
    if kind == "fixed":
        assert last["sf"] == 4
    if kind == "whitespace":
        assert 4 < last["sf"] < 7
    if kind == "dtp-unigram":
        assert last["target_f1"] > 0.8  # white space, which a predictor finds at once
    if kind in ("dtp-gumbel", "magnet"):
        assert np.mean([1 / r["sf"] for r in records[0][-20:]]) == pytest.approx(
            0.25 if kind == "magnet" else 0.2, abs=0.1
        )


def test_a_warm_start_learns_the_exemplar_first() -> None:
    config = dataclasses.replace(
        CONFIG,
        tokenizer=dataclasses.replace(CONFIG.tokenizer, kind="magnet"),
        training=dataclasses.replace(CONFIG.training, exemplar_steps=30),
    )
    assert config.needs_exemplar
    alphabet = Alphabet.learn(TEXT)
    torch.manual_seed(7)
    system = System(config, len(alphabet), alphabet)
    with pytest.raises(ValueError, match="proxy is None"):
        Trainer.create(system, config.training, alphabet.encode(TEXT), None)
    proxy = ProxyStore.create(whitespace_boundaries(TEXT))
    trainer = Trainer.create(system, config.training, alphabet.encode(TEXT), proxy)
    records = [train_step(trainer) for _ in range(32)]
    assert [("target_f1" in record) for record in records] == [True] * 30 + [False] * 2
    assert records[29]["target_f1"] > 0.5


def test_the_prior_holds_the_rate() -> None:
    rates = []
    for prior in (0.1, 0.4):
        trainer = build("dtp-gumbel", prior=prior)
        rates.append(np.mean([1 / train_step(trainer)["sf"] for _ in range(60)][-20:]))
    assert rates[0] < 0.2 < 0.3 < rates[1]


def test_the_supervised_loss_trains_the_pre_layers_too() -> None:
    trainer = build("dtp-unigram")
    train_step(trainer)
    gradient = trainer.system.segmenter.predictor.expand.weight.grad  # type: ignore[union-attr,operator]
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_a_missing_target_is_refused() -> None:
    alphabet = Alphabet.learn(TEXT)
    system = System(CONFIG, len(alphabet), alphabet)
    with pytest.raises(ValueError, match="proxy is None"):
        Trainer.create(system, CONFIG.training, alphabet.encode(TEXT), None)


@pytest.mark.parametrize("kind", OTHERS)
def test_a_resumed_run_ends_with_the_same_weights(
    kind: str, gtok: Callable[..., int], excerpt: Path, tmp_path: Path
) -> None:
    """Half the steps, then the rest in another run of the command: weights, optimiser and results bit for bit."""
    common = ("--data", str(excerpt), "--tokenizer", kind, "--steps", "12", "--evaluate-every", "6", "--dropout", "0.1")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert gtok(*common, "--out", str(whole)) == 0
    assert gtok(*common, "--out", str(halves), "--stop-after", "6") == 0
    assert gtok("--data", str(excerpt), "--resume", "--out", str(halves)) == 0
    one, two = (read_tensors(folder / "state.safetensors")[0] for folder in (whole, halves))
    assert set(one) == set(two)
    assert all(one[name].equal(two[name]) for name in one)
    metrics = [
        json.loads((folder / "results.json").read_text(encoding="utf-8"))["metrics"] for folder in (whole, halves)
    ]
    assert metrics[0]["test_bpc"] == metrics[1]["test_bpc"] or kind in ("dtp-gumbel", "magnet")
    assert metrics[0]["config"]["tokenizer"]["kind"] == kind
    assert (halves / "exemplar.json").exists() == (kind == "dtp-unigram")
    if kind in ("dtp-gumbel", "magnet"):
        assert metrics[0]["test_sampled_boundaries"]["bpc"] > 0
