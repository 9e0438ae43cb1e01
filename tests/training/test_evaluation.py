"""Evaluation against the definition written out, over the whole of a text, whatever the batch."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from speak_neuro.config import ModelConfig, RunConfig, TokenizerConfig
from speak_neuro.systems.system import System
from speak_neuro.training.evaluation import evaluate

CONFIG = RunConfig(
    tokenizer=TokenizerConfig(encoder="linear", encoder_width=8),
    model=ModelConfig(width=16, heads=2, inner=16, pre_layers=1, shortened_layers=1, post_layers=1, dropout=0.2),
)


def build(encoder: str = "linear") -> System:
    torch.manual_seed(3)
    tokenizer = dataclasses.replace(CONFIG.tokenizer, encoder=encoder)
    system = System(dataclasses.replace(CONFIG, tokenizer=tokenizer), 12)
    with torch.no_grad():
        system.tokenizer.current_readout.bias.fill_(0.4)
    return system


def by_definition(system: System, ids: np.ndarray, window: int, tokens: bool = True) -> tuple[float, np.ndarray]:
    """Each character scored once, in the window that gives it at least half a window of context."""
    system.eval()
    stride, nats, spikes = window // 2, 0.0, np.zeros(len(ids), bool)
    with torch.no_grad():
        for t in range(len(ids)):
            start = 0 if t < window else (t // stride - 1) * stride
            part = torch.from_numpy(ids[start : t + 1].astype(np.int64))[None]
            hidden = system.language_model.pre(part)
            found = system.tokenizer(part, hidden if system.tokenizer.needs_hidden else None)
            spikes[t] = bool(found.spikes[0, -1])
            if t + 1 < len(ids):
                logits = system.language_model.decode(hidden, found.spikes.bool() & tokens)[0, -1]
                nats -= float(torch.log_softmax(logits.double(), 0)[ids[t + 1]])
    return nats / (len(ids) - 1) / math.log(2), spikes


@pytest.mark.parametrize("encoder", ["linear", "window", "convolution", "hourglass"])
@pytest.mark.parametrize("length", [2, 15, 16, 17, 24, 25, 61])
def test_equals_the_definition(encoder: str, length: int) -> None:
    system = build(encoder)
    ids = np.random.default_rng(length).integers(0, 12, length).astype(np.int32)
    found = evaluate(system, ids, 16)
    bpc, spikes = by_definition(system, ids, 16)
    without, _ = by_definition(system, ids, 16, tokens=False)
    assert found.bpc == pytest.approx(bpc, abs=1e-5)
    assert found.tokens == spikes.sum() + (not spikes[-1])
    assert found.shortening_factor == pytest.approx(length / found.tokens)
    assert found.characters == length
    assert found.unknown_characters == (ids == 0).sum()
    assert found.token_dependence == pytest.approx(without - bpc, abs=2e-5)
    assert (found.token_dependence != 0) == spikes[:-1].any()


@pytest.mark.parametrize("length", [2, 61, 1999])
def test_blocks_are_the_text_cut_into_consecutive_parts(length: int) -> None:
    """Weighted by their characters they give the whole text's BPC, and the first block is that of its characters."""
    ids = np.random.default_rng(5).integers(0, 12, length).astype(np.int32)
    found = evaluate(build(), ids, 16)
    # The first view scores 16 characters, each later one 8; the text's last character has no next one.
    ends = [min(16 + 8 * k, length - 1) for k in range(max(0, math.ceil((length - 16) / 8)) + 1)]
    groups = np.array_split(np.diff([0, *ends]), min(100, len(ends)))
    assert len(found.block_bpc) == len(groups)
    assert np.average(found.block_bpc, weights=[g.sum() for g in groups]) == pytest.approx(found.bpc, abs=1e-5)
    first = int(groups[0].sum())
    assert found.block_bpc[0] == pytest.approx(by_definition(build(), ids[: first + 1], 16)[0], abs=1e-5)


def test_batch_size_does_not_matter() -> None:
    system = build()
    ids = np.random.default_rng(0).integers(0, 12, 300).astype(np.int32)
    results = [evaluate(system, ids, 32, batch=batch) for batch in (1, 3, 64)]
    assert len({r.tokens for r in results}) == 1
    assert max(r.bpc for r in results) - min(r.bpc for r in results) < 1e-6


def test_boundary_f1_is_against_the_exemplar() -> None:
    system = build()
    ids = np.random.default_rng(0).integers(0, 12, 200).astype(np.int32)
    _, spikes = by_definition(system, ids, 32)
    assert evaluate(system, ids, 32, spikes).boundary_f1 == 1.0
    assert evaluate(system, ids, 32, ~spikes).boundary_f1 == 0.0


def test_dropout_is_off_and_the_mode_is_restored() -> None:
    system = build().train()
    ids = np.random.default_rng(0).integers(0, 12, 100).astype(np.int32)
    assert evaluate(system, ids, 32) == evaluate(system, ids, 32)
    assert system.training


def test_a_model_without_layers_on_tokens_does_not_depend_on_them() -> None:
    torch.manual_seed(3)
    config = dataclasses.replace(CONFIG, tokenizer=dataclasses.replace(CONFIG.tokenizer, kind="vanilla"))
    ids = np.random.default_rng(0).integers(0, 12, 100).astype(np.int32)
    assert evaluate(System(config, 12), ids, 32).token_dependence == 0


def test_too_short() -> None:
    with pytest.raises(ValueError, match="text has 1 characters; allowed: at least 2"):
        evaluate(build(), np.zeros(1, np.int32), 16)
