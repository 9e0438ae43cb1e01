"""What `against.py` measures: the scan, a training step of each kind, a table, each as it is in this checkout."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from step_setup import TINY, gumbel_step, speak_step

from speak_neuro.corpus.reader import embedded_text
from speak_neuro.neuron.functional import gated_lif_scan
from speak_neuro.table.table import CompiledTable
from speak_neuro.table.tokenizer import TableTokenizer
from speak_neuro.text.alphabet import Alphabet


def contenders() -> dict[str, Callable[[], Any]]:
    """The same settings everywhere: post-norm and Adam, with learning rates of 0, so that the work stays the same."""
    torch.set_num_threads(1)
    training = dataclasses.replace(TINY.training, learning_rate=0.0, tokenizer_learning_rate=0.0)
    model = dataclasses.replace(TINY.model, norm="post")
    config = dataclasses.replace(TINY, training=training, model=model)
    return {
        **scans(gated_lif_scan),
        "training step, SPEAK": speak_step(config, "cpu", 0.2),
        "training step, dtp-gumbel": gumbel_step(config, "cpu", 0.2),
        **tables(Alphabet, CompiledTable, TableTokenizer, embedded_text("en")),
    }


def scans(scan: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    """The neuron over 64 x 512 characters."""
    random = torch.Generator().manual_seed(0)
    inputs = [(torch.rand(64, 512, generator=random) * 0.4, torch.randn(64, 512, generator=random)) for _ in range(16)]
    turn = itertools.cycle(inputs)

    def both(backend: str) -> None:
        current, gate = next(turn)
        scan(current.detach().requires_grad_(), gate, backend=backend).spikes.sum().backward()

    return {
        "scan, forward": lambda: scan(*next(turn), backend="numba"),
        "scan, forward and backward": lambda: both("numba"),
        "loop, forward and backward": lambda: both("loop"),
    }


def tables(alphabet_kind: Any, table_kind: Any, tokenizer_kind: Any, text: str) -> dict[str, Callable[[], Any]]:
    """Spans of a text by a table that fires at every fifth character."""
    alphabet, random = alphabet_kind.learn(text), np.random.default_rng(0)
    current, gate = random.normal(0.2, 0.05, (2, 1, len(alphabet))).astype(np.float32)
    table = tokenizer_kind(table_kind(alphabet, current, gate - current.mean()), backend="numba")
    documents = text.split("\n\n")
    return {
        "table, one text": lambda: table.spans(text),
        "table, documents": lambda: table.spans_batch(documents),
    }
