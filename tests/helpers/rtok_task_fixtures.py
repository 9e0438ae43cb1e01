"""A tiny encoder, a tokenizer and embeddings for tests of the RTok loop: random, quick, and deterministic."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

WIDTH = 32


def tiny_encoder(seed: int = 0) -> Any:
    """Two layers of BERT, width 32."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=10,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
    )
    return BertModel(config, add_pooling_layer=False).eval()


class HashEmbedder:
    """A vector per string, drawn by a seed that is the string's checksum."""

    width = WIDTH

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def embed(self, tokens: Sequence[str], language: str) -> Tensor:
        self.asked.append(list(tokens))
        return torch.stack([self._row(token) for token in tokens])

    def special(self, name: str) -> Tensor:
        return self._row(f"special {name}")

    def _row(self, text: str) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        return torch.randn(WIDTH, generator=generator)


class EveryN:
    """Tokens of n characters."""

    def __init__(self, n: int = 3) -> None:
        self.name, self.n = f"every-{n}", n

    def segment(self, batch: Sequence[Sequence[str]], language: str) -> list[list[list[str]]]:
        return [[[unit[k : k + self.n] for k in range(0, len(unit), self.n)] for unit in units] for units in batch]
