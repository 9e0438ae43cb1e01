"""hnet: a boundary where neighbouring characters' states differ, taught by the language model (H-Net's routing).

    p_t = (1 - cos(W_q h_t, W_k h_{t-1})) / 2,   p_0 = 1        b_t = [p_t > 1/2]        c_t = p_t if b_t else 1 - p_t
    L   = 0.03 N / (N - 1) * ((N - 1) F G + (1 - F) (1 - G)),   F = mean b, G = mean p, N characters per token wanted

L_LM reaches p through the un-pooling: segments are mixed by how sure their ends are (`pooling.smooth`), and what is
read back is multiplied by c_t / detach(c_t). As published, a chunk is its first state, seen from there on; here, in the
Hourglass that all systems share, it is the mean up to that state: read as soon, and no later. W_q and W_k begin as the
identity. `border` shifts p in a run with a target shortening factor; it is 0 in training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speak_neuro.config import RunConfig
from speak_neuro.model.hourglass import predictor_view
from speak_neuro.systems.segmenter import Cut, Lesson, Segmentation, Segmenter
from speak_neuro.text.alphabet import Alphabet

RATIO_WEIGHT = 0.03


class HNet(Segmenter):
    """Routing by cosine, with the ratio loss."""

    needs_hidden = True
    border: Tensor

    @classmethod
    def build(cls, config: RunConfig, alphabet: Alphabet | None) -> HNet:
        return cls(config)

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        width = config.model.width
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        for layer in (self.query, self.key):
            nn.init.eye_(layer.weight)
        self.norm = config.model.norm
        self.wanted = config.training.target_sf or 1 / config.tokenizer.prior
        self.register_buffer("border", torch.zeros(()))

    def route(self, hidden: Tensor) -> Tensor:
        """p of pre-layer states: (B, L, D) -> (B, L) float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            seen = predictor_view(hidden.float(), self.norm)
            likeness = nn.functional.cosine_similarity(self.query(seen[:, 1:]), self.key(seen[:, :-1]), dim=-1)
            return nn.functional.pad(((1 - likeness) / 2).clamp(0, 1), (1, 0), value=1.0)

    def decide(self, chance: Tensor) -> tuple[Tensor, Tensor]:
        """b as bool and c, of p."""
        closes = chance - 0.5 + self.border > 0
        return closes, torch.where(closes, chance, 1 - chance)

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        assert hidden is not None  # `needs_hidden`
        return self.decide(self.route(hidden))[0]

    def segment(self, ids: Tensor, hidden: Tensor) -> Segmentation:
        closes, sure = self.decide(self.route(hidden))
        return Segmentation(closes, confidence=sure)

    def cut(self, ids: Tensor, hidden: Tensor, step: int, uniform: Tensor | None) -> Cut:
        chance = self.route(hidden)
        closes, sure = self.decide(chance)
        return Cut(closes, chance, sure)

    def loss(self, cut: Cut, lesson: Lesson, step: int) -> tuple[Tensor, Tensor | None]:
        return RATIO_WEIGHT * ratio_loss(cut.boundaries, cut.logit, self.wanted), None


def ratio_loss(closes: Tensor, chance: Tensor, wanted: float) -> Tensor:
    """H-Net's ratio loss of b and p; 1 at its least, where F = G = 1 / wanted. The gradient goes to p alone."""
    share, mean = closes.float().mean(), chance.mean()
    return wanted / (wanted - 1) * ((wanted - 1) * share * mean + (1 - share) * (1 - mean))
