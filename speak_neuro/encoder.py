"""Context encoders: character ids to the features that the neuron's two readouts see (paper Eq. 2, 7, 8).

    linear      f_t = GELU(LayerNorm(W emb(c_t) + b))                          a function of the character alone
    window      f_t = GELU(LayerNorm(sum_j W_j emb(c_{t-j}) + b)), j < k       a function of the last k characters
    hourglass   f_t = GELU(W h_t + b), h the language model's pre-layers       a function of the whole prefix

All are causal: f_t depends on characters up to t. B batch, L positions, D width, V alphabet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speak_neuro.config import ModelConfig, TokenizerConfig


class LinearEncoder(nn.Module):
    """Embedding, Linear, LayerNorm, GELU: (B, L) ids -> (B, L, D)."""

    needs_hidden = False
    left_context = 0

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        return nn.functional.gelu(self.norm(self.linear(self.embedding(ids))))


class WindowEncoder(nn.Module):
    """A causal convolution over the embeddings of the last k characters: (B, L) ids -> (B, L, D).

    What lies before the first column counts as absent (zero embeddings), not as any character.
    """

    needs_hidden = False

    def __init__(self, vocabulary: int, width: int, context: int) -> None:
        super().__init__()
        self.left_context = context - 1
        self.embedding = nn.Embedding(vocabulary, width)
        self.linear = nn.Linear(width * context, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        embedded = nn.functional.pad(self.embedding(ids), (0, 0, self.left_context, 0))
        length = ids.shape[1]
        recent = torch.cat([embedded[:, j : j + length] for j in range(self.left_context + 1)], dim=-1)
        return nn.functional.gelu(self.norm(self.linear(recent)))


class HourglassEncoder(nn.Module):
    """DTP's predictor body on the language model's pre-layers: (B, L, width) hidden -> (B, L, inner)."""

    needs_hidden = True
    left_context = 0

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, inner)

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        if hidden is None:
            raise ValueError("the hourglass encoder needs the language model's pre-layer states")
        return nn.functional.gelu(self.linear(hidden))


def build_encoder(
    config: TokenizerConfig, model: ModelConfig, vocabulary: int
) -> tuple[LinearEncoder | WindowEncoder | HourglassEncoder, int]:
    """The encoder that `config` names, and the width of its features."""
    if config.encoder == "linear":
        return LinearEncoder(vocabulary, config.encoder_width), config.encoder_width
    if config.encoder == "window":
        return WindowEncoder(vocabulary, config.encoder_width, config.context), config.encoder_width
    return HourglassEncoder(model.width, model.inner), model.inner
