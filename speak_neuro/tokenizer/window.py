"""f_t = GELU(LayerNorm(sum_j W_j emb(c_{t-j}) + b)), j < k: a function of the last k characters."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from speak_neuro.common.array_types import Float64Array
from speak_neuro.config import ModelConfig, TokenizerConfig
from speak_neuro.tokenizer.encoder import Encoder

GELU_LEAST = -0.1701
"""GELU's minimum, rounded away from zero."""


class WindowEncoder(Encoder):
    """A causal convolution over the embeddings of the last k characters: (B, L) ids -> (B, L, D).

    What lies before the first column counts as absent (zero embeddings), not as any character.

    Trained on more positions than there are characters, it first maps the alphabet, W_j emb(c) for every j and c, and
    then sums k rows for each position: the same function at a tenth of the time, up to rounding. Evaluation always
    multiplies position by position, so that features do not depend on what they are computed with.
    """

    why_no_table = "it has LayerNorm and GELU over a window of characters"

    @classmethod
    def build(cls, config: TokenizerConfig, model: ModelConfig, vocabulary: int) -> WindowEncoder:
        return cls(vocabulary, config.encoder_width, config.context)

    def __init__(self, vocabulary: int, width: int, context: int) -> None:
        super().__init__(width)
        self.context = context
        self.left_context = context - 1
        self.embedding = nn.Embedding(vocabulary, width)
        self.linear = nn.Linear(width * context, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        tabulated = self.training and ids.numel() > self.embedding.num_embeddings
        return nn.functional.gelu(self.norm(self._by_table(ids) if tabulated else self._by_position(ids)))

    def _by_position(self, ids: Tensor) -> Tensor:
        embedded = nn.functional.pad(self.embedding(ids), (0, 0, self.left_context, 0))
        length = ids.shape[1]
        recent = torch.cat([embedded[:, j : j + length] for j in range(self.context)], dim=-1)
        return self.linear(recent)  # type: ignore[no-any-return]

    def _by_table(self, ids: Tensor) -> Tensor:
        characters, width = self.embedding.weight.shape
        # (k, D, D): one product a place; einsum would turn the weights and the table over in memory first.
        by_place = self.linear.weight.view(width, self.context, width).permute(1, 2, 0)
        table = torch.matmul(self.embedding.weight, by_place).reshape(-1, width)
        absent = len(table)
        table = torch.cat([table, table.new_zeros(1, width)])
        padded = nn.functional.pad(ids, (self.left_context, 0), value=-1)
        recent = padded.unfold(1, self.context, 1)  # (B, L, k), the oldest character first
        rows = recent + torch.arange(0, absent, characters, device=ids.device)
        rows = torch.where(recent < 0, absent, rows).reshape(-1, self.context)
        return nn.functional.embedding_bag(rows, table, mode="sum").view(*ids.shape, width) + self.linear.bias

    def feature_range(self) -> tuple[Float64Array, Float64Array]:
        """LayerNorm's output has at most norm sqrt(D), so feature i is GELU of a number within |w_i| sqrt(D) of b_i."""
        weight, bias = (tensor.detach().cpu().double().numpy() for tensor in (self.norm.weight, self.norm.bias))
        high = np.maximum(np.abs(weight) * math.sqrt(weight.size) + bias, 0.0)
        return np.full_like(high, GELU_LEAST), high
