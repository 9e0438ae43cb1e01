"""Trains tiny systems as one of several processes, and writes down what each step measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speak_neuro.config import ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.corpus.reader import embedded_text
from speak_neuro.supervision.proxy import ProxyStore
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.distributed import ALONE, Ranks, joined
from speak_neuro.training.evaluation import evaluate
from speak_neuro.training.fit import train_step
from speak_neuro.training.trainer import Trainer

STEPS = 20
TEXT = embedded_text("en")[:2500]
BASE = RunConfig(
    tokenizer=TokenizerConfig(encoder="window", encoder_width=16, context=3),
    model=ModelConfig(width=32, heads=2, inner=64, pre_layers=1, shortened_layers=1, post_layers=1),
    training=TrainingConfig(
        steps=STEPS, batch=4, window=64, learning_rate=3e-3, tokenizer_learning_rate=1e-2, warmup=5, seed=7
    ),
)


def changed(section: str, **values: Any) -> RunConfig:
    return dataclasses.replace(BASE, **{section: dataclasses.replace(getattr(BASE, section), **values)})


CONFIGS = {
    "speak": BASE,
    "spikes": changed("training", reset_loss_on="spikes", rate_limit=0.05, rest_term=False),
    "always": changed("training", acceptance="always", acceptance_share=0.5, entropy="mean"),
    "spike likelihood": changed("training", neuron_loss="spike"),
    "information drive": changed("training", drive="information", target_sf=4.0),
    "muon": changed("training", optimiser="muon", beta2=0.95, schedule="linear", clip=1.0),
    "dropout": changed("model", dropout=0.1, attention_dropout=0.1),
    "dtp-unigram": changed("tokenizer", kind="dtp-unigram"),
    "dtp-entropy": changed("tokenizer", kind="dtp-entropy"),
    "sampled": changed("tokenizer", kind="dtp-gumbel", sample_at_evaluation=True),
    "magnet": changed("tokenizer", kind="magnet", script_priors="latin=0.3"),
}


LONG = ("speak", "dropout")
"""Configurations that are trained through all steps: into the second epoch, and to where losses have fallen."""
SHORT = 12


def steps_of(name: str) -> int:
    """How many of the run's steps are made: as many as are compared."""
    return STEPS if name in LONG else SHORT


def build(config: RunConfig, ranks: Ranks) -> Trainer:
    """A trainer whose proxy starts at white space."""
    alphabet = Alphabet.learn(TEXT)
    torch.manual_seed(config.training.seed)
    system = System(config, len(alphabet), alphabet)
    proxy = ProxyStore.create(np.array([c.isspace() for c in TEXT]))
    return Trainer.create(system, config.training, alphabet.encode(TEXT), proxy, ranks)


def resumed(config: RunConfig, ranks: Ranks) -> bool:
    """Whether a run stopped after 5 of 10 steps, that goes on in fresh objects, ends with the whole run's bits."""
    whole, first, second = (build(config, ranks) for _ in range(3))
    for _ in range(10):
        train_step(whole)
    for _ in range(5):
        train_step(first)
    second.restore(*first.snapshot())
    for _ in range(5):
        train_step(second)
    theirs = second.snapshot()[0]
    return all(torch.equal(value, theirs[name]) for name, value in whole.snapshot()[0].items())


def trained(name: str, ranks: Ranks = ALONE) -> tuple[Trainer, dict[str, Any]]:
    """Train from the start; every step's record, and the proxy at the end."""
    trainer = build(CONFIGS[name], ranks)
    records = [train_step(trainer) for _ in range(steps_of(name))]
    assert trainer.proxy is not None
    return trainer, {"records": records, "proxy": trainer.proxy.read([0], len(TEXT))[0].astype(int).tolist()}


def run(name: str, ranks: Ranks) -> dict[str, Any]:
    """The same by all processes, with what they evaluate together and alone."""
    trainer, found = trained(name, ranks)
    system, ids = trainer.system, trainer.ids
    assert trainer.proxy is not None
    ranks.check_equal(list(system.state_dict().values()), "weights")
    ranks.check_equal([torch.from_numpy(trainer.proxy.snapshot())], "proxies")
    together = evaluate(system, ids[:2000], 64, batch=4, ranks=ranks)
    # The first is the one that is read.
    alone = evaluate(system, ids[:2000], 64, batch=4) if ranks.first else together
    return found | {"evaluation": dataclasses.asdict(together), "evaluation_alone": dataclasses.asdict(alone)}


def work(folder: Path) -> None:
    """One of the processes: the first writes down what all measured."""
    with joined("cpu") as (ranks, _):
        for name, config in CONFIGS.items():
            found = run(name, ranks)
            if name == "dropout":
                found["resumed"] = resumed(config, ranks)
            if ranks.first:
                (folder / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
