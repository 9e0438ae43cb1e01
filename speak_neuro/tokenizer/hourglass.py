"""f_t = GELU(W h_t + b), h the language model's pre-layers: a function of the whole prefix."""

from __future__ import annotations

from torch import Tensor, nn

from speak_neuro.config import ModelConfig, TokenizerConfig
from speak_neuro.model.hourglass import predictor_view
from speak_neuro.tokenizer.encoder import Encoder


class HourglassEncoder(Encoder):
    """DTP's predictor body on the language model's pre-layers: (B, L, width) hidden -> (B, L, inner)."""

    needs_hidden = True
    why_no_table = "it reads a transformer"

    @classmethod
    def build(cls, config: TokenizerConfig, model: ModelConfig, vocabulary: int) -> HourglassEncoder:
        return cls(model.width, model.inner, model.norm)

    def __init__(self, width: int, inner: int, norm: str = "post") -> None:
        super().__init__(inner)
        self.norm = norm
        self.linear = nn.Linear(width, inner)

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        if hidden is None:
            raise ValueError("the hourglass encoder needs the language model's pre-layer states")
        return nn.functional.gelu(self.linear(predictor_view(hidden, self.norm)))
