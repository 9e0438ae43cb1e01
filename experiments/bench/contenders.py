"""What `against.py` measures: the scan, a training step of each kind, a run's files, a table, as in this checkout."""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from step_setup import TINY, gumbel_step, speak_step, speak_trainer

from speak_neuro.config import RunConfig
from speak_neuro.corpus.reader import embedded_text
from speak_neuro.neuron.functional import gated_lif_scan
from speak_neuro.systems.run_folder import load_system, read_run, save_model, write_config
from speak_neuro.table.table import CompiledTable
from speak_neuro.table.tokenizer import TableTokenizer
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.fit import save_checkpoint


def contenders() -> dict[str, Callable[[], Any]]:
    """The same settings everywhere: post-norm and Adam, with learning rates of 0, so that the work stays the same."""
    torch.set_num_threads(1)
    rates = {"learning_rate": 0.0, "tokenizer_learning_rate": 0.0}
    config = TINY.change(training=rates, model={"norm": "post"})
    return {
        **scans(gated_lif_scan),
        "training step, SPEAK": speak_step(config, "cpu", 0.2),
        "training step, dtp-gumbel": gumbel_step(config, "cpu", 0.2),
        **files(config),
        **tables(Alphabet, CompiledTable, TableTokenizer, embedded_text("en")),
    }


def files(config: RunConfig) -> dict[str, Callable[[], Any]]:
    """A run's folder as this checkout writes it."""
    folder = Path(tempfile.mkdtemp(prefix="speak-contender-"))
    atexit.register(shutil.rmtree, folder)
    trainer = speak_trainer(config)
    write_config(folder, config, Alphabet.learn(embedded_text("en")), {})
    save_model(folder, trainer.system)
    return {
        "load of a run": lambda: load_system(read_run(folder)),
        "checkpoint of a run": lambda: save_checkpoint(folder, trainer),
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
