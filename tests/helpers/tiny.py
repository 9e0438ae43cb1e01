"""A configuration that trains in seconds, and the text it trains on."""

from __future__ import annotations

from contextlib import nullcontext
from unittest.mock import patch

from scripts import load

TINY_FLAGS = (
    "--encoder window --encoder-width 16 --context 3 --width 32 --heads 2 --inner 64 --pre-layers 1 "
    "--shortened-layers 1 --post-layers 1 --window 64 --batch 4 --warmup 5 --evaluate-every 20 "
    "--evaluate-characters 2000 --exemplar-vocabulary 300 --learning-rate 0.003 "
    "--tokenizer-learning-rate 0.01 --device cpu --quiet"
).split()


def embedded_excerpt(characters: int = 20000) -> str:
    from speak_neuro.corpus.reader import embedded_text

    return embedded_text("en")[:characters]


def run_gtok(*flags: str, curves: bool = False) -> int:
    """experiments/gtok.py in this process, with the tiny configuration before `flags`; the picture of the curves, which
    takes as long as thirty steps, only where it is asked for."""
    with nullcontext() if curves else patch("speak_neuro.training.outcome.draw"):
        return int(load("gtok").main([*TINY_FLAGS, *flags]))
