"""Views for tests of pictures: a neuron that spikes at random, words, and a text that tries to become markup."""

from __future__ import annotations

import re

import numpy as np

from speak_neuro.pictures.view import NeuronRun, View

HOSTILE = "</span><script>alert(1)</script>&lt;img src=x onerror=alert(2)>\"'`{{ 7*7 }}{% raw %}\u202e"


def view_of(text: str, seed: int = 0, rate: float = 0.3, entropy: bool = True, name: str = "SPEAK") -> View:
    """A neuron that spikes at random."""
    drawn = np.random.default_rng(seed)
    spikes = drawn.random(len(text)) < rate
    ends = sorted({*(np.flatnonzero(spikes) + 1).tolist(), len(text)} - {0})
    spans = np.array(list(zip([0, *ends[:-1]], ends, strict=True)), dtype=np.int64).reshape(-1, 2)
    membrane = np.where(spikes, 1 + drawn.random(len(text)), drawn.normal(0, 0.4, len(text)).clip(-2, 0.99))
    bits = drawn.random(len(text)) * 5 if entropy else None
    return View(name, text, spans, NeuronRun(membrane, spikes, drawn.random(len(text)) < 0.3, 1.0, bits))


def words(text: str) -> View:
    spans = [[found.start(), found.end()] for found in re.finditer(r"\S+\s*|\s+", text)]
    return View("white space", text, np.array(spans, dtype=np.int64).reshape(-1, 2))
