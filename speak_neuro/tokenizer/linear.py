"""f_t = GELU(LayerNorm(W emb(c_t) + b)), once or several times: a function of the character alone, hence a table."""

from __future__ import annotations

from torch import Tensor, nn

from speak_neuro.config import ModelConfig, TokenizerConfig
from speak_neuro.tokenizer.encoder import Encoder


class LinearEncoder(Encoder):
    """Embedding, then `layers` times Linear, LayerNorm, GELU: (B, L) ids -> (B, L, D)."""

    @classmethod
    def build(cls, config: TokenizerConfig, model: ModelConfig, vocabulary: int) -> LinearEncoder:
        return cls(vocabulary, config.encoder_width, config.encoder_layers)

    def __init__(self, vocabulary: int, width: int, layers: int = 1) -> None:
        super().__init__(width)
        self.embedding = nn.Embedding(vocabulary, width)
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        more = [nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()) for _ in range(layers - 1)]
        self.more = nn.Sequential(*more)

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        features = nn.functional.gelu(self.norm(self.linear(self.embedding(ids))))
        return self.more(features)  # type: ignore[no-any-return]
