"""A short run of every system with the presets' recipe, and what of it is committed as tests/golden/systems.json."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from speak_neuro.config import ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.corpus.reader import embedded_text
from speak_neuro.supervision.proxy import ProxyStore
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.evaluation import evaluate
from speak_neuro.training.fit import train_step
from speak_neuro.training.trainer import Trainer

STEPS, HELD_OUT = 12, 1000
TEXT = embedded_text("en")[:2500] + embedded_text("ru")[:1500] + embedded_text("en")[2500:3500]
"""Two scripts."""
CONFIG = RunConfig(
    tokenizer=TokenizerConfig(encoder="window", encoder_width=16, context=3),
    model=ModelConfig(width=32, heads=2, inner=64, pre_layers=1, shortened_layers=1, post_layers=1),
    training=TrainingConfig(steps=STEPS, batch=4, window=64, learning_rate=3e-3, warmup=3, proxy_steps=4, seed=7),
)
OWN = {"magnet": {"script_priors": "cyrillic=0.4"}}
"""Settings of a system's own, without which magnet would be dtp-gumbel."""
STEP_VALUES = ("loss_lm", "loss_mem", "loss_reset", "loss_boundary", "loss_rate", "sf")


def golden_run(kind: str) -> dict[str, Any]:
    """Every step's losses and shortening factor, and the scores on the held-out end of the text."""
    tokenizer = dataclasses.replace(CONFIG.tokenizer, kind=kind, **OWN.get(kind, {}))  # type: ignore[arg-type]
    config = dataclasses.replace(CONFIG, tokenizer=tokenizer)
    alphabet = Alphabet.learn(TEXT)
    torch.manual_seed(config.training.seed)
    system = System(config, len(alphabet), alphabet)
    spaces = np.array([character.isspace() for character in TEXT[:-HELD_OUT]])
    proxy = ProxyStore.create(spaces) if config.needs_exemplar else None
    ids = alphabet.encode(TEXT)
    trainer = Trainer.create(system, config.training, ids[:-HELD_OUT], proxy)
    steps = [train_step(trainer) for _ in range(STEPS)]
    found = evaluate(system, ids[-HELD_OUT:], config.training.window)
    return {
        "steps": [{name: step[name] for name in STEP_VALUES if name in step} for step in steps],
        "bpc": found.bpc,
        "tokens": found.tokens,
    }
