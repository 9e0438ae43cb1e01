"""Tokenizers of every kind for the tests of speak_neuro.api."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rtok_text_fixtures import SENTENCES, lively_tokenizer
from table_fixtures import make_table

from speak_neuro.api.boundaries import RTokBoundaries, TableBoundaries
from speak_neuro.api.tokenizer import Tokenizer
from speak_neuro.table.tokenizer import TableTokenizer

CORPUS = [
    "the thing that the others think about",
    "שלום של כל העולם",
    "of the other thing 的一是不了",
    "👩😀 \ud800 the end",
] * 12
SPECIALS = ("<|end|>", "<|end|>>", "|")
UNITS = ["ranges", "tokens", "whole"]


@functools.cache
def by_table(unit: str) -> Tokenizer:
    plain = Tokenizer(TableBoundaries(TableTokenizer(make_table(taps=2))))
    return plain.learn_vocabulary(CORPUS, 420, unit, SPECIALS)


@functools.cache
def by_network(folder: Path, unit: str) -> Tokenizer:
    return Tokenizer.load(folder).learn_vocabulary(CORPUS, 420, unit, SPECIALS)


def by_rtok(unit: str) -> Tokenizer:
    return Tokenizer(RTokBoundaries.of(lively_tokenizer())).learn_vocabulary(SENTENCES, 420, unit, SPECIALS)


def rtok_for_transformers(
    folder: Path, texts: Sequence[str] = SENTENCES, size: int = 16384, unit: str = "tokens", mode: str = "gated"
) -> Any:
    """An RTok tokenizer with a vocabulary of `texts`, as transformers has it."""
    from speak_neuro.api.hf import write_pretrained

    plain = Tokenizer(RTokBoundaries.of(lively_tokenizer(mode)))
    return write_pretrained(plain.learn_vocabulary(texts, size, unit), folder)
