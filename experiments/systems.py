"""Training steps that benchmarks compare: SPEAK's, and that of DTP's Gumbel predictor at the same size, on one text.

    SPEAK        `speak_neuro.train.train_step`: everything, the acceptance pass and the metrics included
    dtp-gumbel   h = pre(c);  b = predictor(h), sampled;  logits = decode(h, b), with the gradient to b
                 L = L_LM + L_prior;  one clip, one Adam

Both read windows of the embedded text in the same way. SPEAK's proxy starts at white space and every position counts as
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


def speak_trainer(config: RunConfig, device: str = "cpu") -> Any:
    """A SPEAK run before its first step."""
    import numpy as np
    import torch

    from speak_neuro.checkpoint import System
    from speak_neuro.proxy import ProxyStore
    from speak_neuro.train import Trainer

    ids, spaces, vocabulary = text_ids()
    torch.manual_seed(config.training.seed)
    proxy = ProxyStore.create(None, spaces)
    proxy.mark_visited(np.zeros(1, dtype=np.int64), len(ids))
    return Trainer.create(System(config, vocabulary).to(device), config.training, ids, proxy)


def speak_step(config: RunConfig, device: str = "cpu") -> Step:
    from speak_neuro.train import train_step

    trainer = speak_trainer(config, device)
    return lambda: train_step(trainer)


def gumbel_step(config: RunConfig, device: str = "cpu", rate: float = 0.2, prior: float = 0.2) -> Step:
    """DTP's step, written as its code has it, on this package's Hourglass and data."""
    import numpy as np
    import torch

    from speak_neuro.checkpoint import System
    from speak_neuro.corpus import WindowSampler, windows
    from speak_neuro.gumbel import GumbelPredictor, binomial_prior_loss

    ids, _, vocabulary = text_ids()
    training = config.training
    torch.manual_seed(training.seed)
    model = System(config, vocabulary).language_model.to(device).train()
    predictor = GumbelPredictor(config.model.width, config.model.inner).to(device)
    torch.nn.init.constant_(predictor.contract.bias, math.log(rate / (1 - rate)))
    parameters = [*model.parameters(), *predictor.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=training.learning_rate, fused=True)
    sampler = WindowSampler(len(ids), training.window, training.batch, training.seed)
    count = 0

    def step() -> dict[str, float]:
        nonlocal count
        rows = windows(ids, sampler.starts_at(count), training.window + 1).astype(np.int64)
        text = torch.from_numpy(rows).to(device)
        count += 1
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=training.precision == "bfloat16"):
            hidden = model.pre(text[:, :-1])
            boundaries = predictor(hidden).boundaries
            logits = model.decode(hidden, boundaries)
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), text[:, 1:].flatten())
        prior_loss = binomial_prior_loss(boundaries, prior)
        optimiser.zero_grad(set_to_none=True)
        (loss + prior_loss).backward()
        torch.nn.utils.clip_grad_norm_(parameters, training.clip)
        optimiser.step()
        tokens = max(float(boundaries.detach().sum()), 1.0)
        return {
            "loss_lm": float(loss.detach()),
            "loss_prior": float(prior_loss.detach()),
            "sf": boundaries.numel() / tokens,
        }

    return step
