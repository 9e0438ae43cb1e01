"""Training steps that benchmarks compare: SPEAK's, and that of DTP's Gumbel predictor at the same size, on one text.

Both are `speak_neuro.train.train_step`, SPEAK's with the acceptance pass, and read windows of the embedded text in the
same way. SPEAK's proxy starts at white space and every position counts as
visited, so that every step decides on all its windows: the steady state of training. The predictor's bias starts at a
given boundary rate, since the number of tokens decides much of a step's time.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from typing import Any

from presets import DTP, PRESETS

from speak_neuro.command import check_writable
from speak_neuro.config import ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.errors import SpeakError

Step = Callable[[], dict[str, float]]

# The sizes of the Hourglass benchmarks, with the smoke preset's encoder.
TINY = RunConfig(
    tokenizer=TokenizerConfig(encoder="window", encoder_width=128, context=6),
    model=ModelConfig(width=128, heads=4, inner=512, pre_layers=2, shortened_layers=2, post_layers=2),
    training=TrainingConfig(batch=8, window=512),
)
# One row of DTP's model for text8, without its dropout: what a step costs where the layers are wide.
TEXT8 = RunConfig(
    tokenizer=TINY.tokenizer,
    model=dataclasses.replace(DTP, dropout=0.0, attention_dropout=0.0),
    training=TrainingConfig(batch=1, window=2048),
)
SIZES = {"tiny": TINY, "text8": TEXT8, **PRESETS}


def prepare(arguments: argparse.Namespace, count: str) -> None:
    """Check a benchmark's `count`, --threads, --device and --json before any work, and set the number of threads."""
    import torch

    for name in (count, "threads"):
        if getattr(arguments, name) < 1:
            raise SpeakError(f"--{name} is {getattr(arguments, name)}; allowed: 1 or more")
    if arguments.device != "cpu" and not torch.cuda.is_available():
        raise SpeakError(f"--device is {arguments.device}, but torch finds no CUDA device; use --device cpu")
    if arguments.json is not None:
        check_writable(arguments.json)
    torch.set_num_threads(arguments.threads)


def configuration(size: str, dropout: float | None, acceptance_share: float = 1.0) -> RunConfig:
    """A size by name, its dropouts replaced unless None."""
    config = SIZES[size]
    config = dataclasses.replace(
        config, training=dataclasses.replace(config.training, acceptance_share=acceptance_share)
    )
    if dropout is None:
        return config
    model = dataclasses.replace(config.model, dropout=dropout, attention_dropout=dropout)
    return dataclasses.replace(config, model=model)


def text_ids() -> tuple[Any, Any, int]:
    """The embedded text's ids, its white space, and the number of characters."""
    import numpy as np

    from speak_neuro.alphabet import Alphabet
    from speak_neuro.corpus import embedded_text

    text = embedded_text("en")
    alphabet = Alphabet.learn(text)
    return alphabet.encode(text), np.array([c.isspace() for c in text]), len(alphabet)


def trainer_of(config: RunConfig, device: str, proxy: Any = None) -> Any:
    """A run of any system on the embedded text, before its first step."""
    import torch

    from speak_neuro.checkpoint import System
    from speak_neuro.train import Trainer

    ids, _, vocabulary = text_ids()
    torch.manual_seed(config.training.seed)
    return Trainer.create(System(config, vocabulary).to(device), config.training, ids, proxy)


def speak_trainer(config: RunConfig, device: str = "cpu") -> Any:
    """A SPEAK run before its first step."""
    import numpy as np

    from speak_neuro.proxy import ProxyStore

    _, spaces, _ = text_ids()
    proxy = ProxyStore.create(None, spaces)
    proxy.mark_visited(np.zeros(1, dtype=np.int64), len(spaces))
    return trainer_of(config, device, proxy)


def speak_step(config: RunConfig, device: str = "cpu") -> Step:
    from speak_neuro.train import train_step

    trainer = speak_trainer(config, device)
    return lambda: train_step(trainer)


def gumbel_step(config: RunConfig, device: str = "cpu", rate: float = 0.2, prior: float = 0.2) -> Step:
    """The step of dtp-gumbel at the same size."""
    import torch

    from speak_neuro.train import train_step

    tokenizer = dataclasses.replace(config.tokenizer, kind="dtp-gumbel", prior=prior)
    trainer = trainer_of(dataclasses.replace(config, tokenizer=tokenizer), device)
    torch.nn.init.constant_(trainer.system.segmenter.predictor.contract.bias, math.log(rate / (1 - rate)))
    return lambda: train_step(trainer)
