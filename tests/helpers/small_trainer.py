"""A trainer on 6,000 characters whose proxy starts at white space: a step takes milliseconds."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from speak_neuro.config import ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.corpus.reader import embedded_text
from speak_neuro.supervision.proxy import ProxyStore
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.trainer import Trainer

TEXT = embedded_text("en")[:6000]
CONFIG = RunConfig(
    tokenizer=TokenizerConfig(encoder="window", encoder_width=16, context=3),
    model=ModelConfig(width=32, heads=2, inner=64, pre_layers=1, shortened_layers=1, post_layers=1),
    training=TrainingConfig(
        steps=50,
        batch=4,
        window=64,
        learning_rate=3e-3,
        tokenizer_learning_rate=1e-2,
        warmup=5,
        seed=7,
        neuron_loss="membrane",  # as --faithful has it: the committed curve says that its every bit stays
    ),
)


def build(config: RunConfig = CONFIG, text: str = TEXT) -> Trainer:
    """A trainer whose proxy starts at white space, so that no other component is needed."""
    alphabet = Alphabet.learn(text)
    torch.manual_seed(config.training.seed)
    system = System(config, len(alphabet))
    proxy = ProxyStore.create(np.array([c.isspace() for c in text]))
    return Trainer.create(system, config.training, alphabet.encode(text), proxy)


def change(**training: object) -> RunConfig:
    return dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, **training))  # type: ignore[arg-type]
