"""Fixtures shared by the suite: a tiny run trained once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts import load

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A suite started in the background by a shell inherits an ignored SIGINT, and so would every program it starts; the
# tests of Ctrl-C need the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY_FLAGS = (
    "--encoder-width 16 --context 3 --width 32 --heads 2 --inner 64 --pre-layers 1 --shortened-layers 1 "
    "--post-layers 1 --window 64 --batch 4 --warmup 5 --evaluate-every 20 --evaluate-characters 2000 "
    "--exemplar-vocabulary 300 --learning-rate 0.003 --tokenizer-learning-rate 0.01 --device cpu --quiet"
).split()

ROOT = Path(__file__).resolve().parent.parent


def embedded_excerpt(characters: int = 20000) -> str:
    from speak_neuro.corpus.reader import embedded_text

    return embedded_text("en")[:characters]


def run_gtok(*flags: str) -> int:
    """experiments/gtok.py in this process, with the tiny configuration before `flags`."""
    return int(load("gtok").main([*TINY_FLAGS, *flags]))


@pytest.fixture(scope="session")
def gtok() -> Callable[..., int]:
    return run_gtok


@pytest.fixture(scope="session")
def excerpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "excerpt.txt"
    path.write_text(embedded_excerpt(), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, excerpt: Path) -> Path:
    """A run folder after 40 steps with the window encoder. Tests read it; they change copies."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert run_gtok("--data", str(excerpt), "--out", str(folder), "--steps", "40") == 0
    return folder
