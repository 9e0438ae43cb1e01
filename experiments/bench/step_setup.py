"""Training steps that benchmarks compare: SPEAK's, and that of DTP's Gumbel predictor at the same size, on one text.

Both are `training.fit.train_step`, SPEAK's with the acceptance pass, and read windows of the embedded text in the
same way. SPEAK's proxy starts at white space and every position counts as visited, so that a step that decides does so
on all its windows: the steady state of training. Both systems can be given a boundary rate, since the number of tokens
decides much of a step's time, and new weights may fire at every third character or never.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from speak_neuro.common.command import at_least
from speak_neuro.config import ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.errors import SpeakError
from speak_neuro.training.presets import DTP, PRESETS

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


def prepare(arguments: argparse.Namespace, *counts: str) -> str:
    """Check a benchmark's `counts`, --threads and --device before any work, set the threads; the device's own name."""
    import torch

    from speak_neuro.common.device import choose_device, describe_device

    at_least(arguments, 1, *counts, "threads")
    torch.set_num_threads(arguments.threads)
    return describe_device(choose_device(arguments.device))


def configuration(size: str, dropout: float | None, acceptance_share: float | None = None) -> RunConfig:
    """A size by name, its dropouts and its share of deciding steps replaced unless None."""
    config = SIZES[size]
    if acceptance_share is not None:
        config = config.change(training={"acceptance_share": acceptance_share})
    return config if dropout is None else config.change(model={"dropout": dropout, "attention_dropout": dropout})


def text_ids() -> tuple[Any, Any, int]:
    """The embedded text's ids, its white space, and the number of characters."""
    import numpy as np

    from speak_neuro.corpus.reader import embedded_text
    from speak_neuro.text.alphabet import Alphabet

    text = embedded_text("en")
    alphabet = Alphabet.learn(text)
    return alphabet.encode(text), np.array([c.isspace() for c in text]), len(alphabet)


def trainer_of(config: RunConfig, device: str, proxy: Any = None) -> Any:
    """A run of any system on the embedded text, before its first step."""
    import torch

    from speak_neuro.systems.system import System
    from speak_neuro.training.trainer import Trainer

    ids, _, vocabulary = text_ids()
    torch.manual_seed(config.training.seed)
    return Trainer.create(System(config, vocabulary).to(device), config.training, ids, proxy)


def speak_trainer(config: RunConfig, device: str = "cpu", rate: float | None = None) -> Any:
    """A SPEAK run before its first step; with `rate`, its neuron fires at about that share of the characters."""
    import numpy as np

    from speak_neuro.supervision.proxy import ProxyStore

    _, spaces, _ = text_ids()
    proxy = ProxyStore.create(spaces)
    proxy.mark_visited(np.zeros(1, dtype=np.int64), len(spaces))
    trainer = trainer_of(config, device, proxy)
    if rate is not None:
        tokenizer = trainer.system.tokenizer
        set_rate(trainer, tokenizer.current_readout.bias, rate, lambda ids, hidden: tokenizer(ids, hidden).spikes)
    return trainer


def set_rate(trainer: Any, bias: Any, rate: float, measure: Callable[[Any, Any], Any]) -> None:
    """Add to `bias` what makes `measure(ids, hidden)`, boundaries or their probabilities, `rate` in the mean.

    Found by bisection on the first batch; more bias must mean more boundaries.
    """
    import torch

    from speak_neuro.training.trainer import read_batch

    ids = read_batch(trainer)[1]
    with torch.no_grad():
        hidden = trainer.system.language_model.pre(ids)
        start, low, high = bias.clone(), -10.0, 10.0
        for _ in range(24):
            middle = (low + high) / 2
            bias.copy_(start + middle)
            found = float(measure(ids, hidden).mean())
            low, high = (low, middle) if found > rate else (middle, high)
    if not 0.9 * rate < found < 1.1 * rate:
        raise SpeakError(f"{found:.3f} boundaries a character, asked for {rate}: no bias brings this size nearer")


def speak_step(config: RunConfig, device: str = "cpu", rate: float | None = None) -> Step:
    from speak_neuro.training.fit import train_step

    trainer = speak_trainer(config, device, rate)
    return lambda: train_step(trainer)


def gumbel_step(config: RunConfig, device: str = "cpu", rate: float = 0.2, prior: float = 0.2) -> Step:
    """The step of dtp-gumbel at the same size, boundaries drawn at `rate`."""
    from speak_neuro.training.fit import train_step

    trainer = trainer_of(config.change(tokenizer={"kind": "dtp-gumbel", "prior": prior}), device)
    segmenter = trainer.system.segmenter
    bias = segmenter.predictor.contract.bias
    set_rate(trainer, bias, rate, lambda ids, hidden: segmenter.predict(ids, hidden, False).logit.sigmoid())
    return lambda: train_step(trainer)
