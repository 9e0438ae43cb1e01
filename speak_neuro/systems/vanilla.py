"""vanilla: every character is a token, and the model's layers all run at full resolution."""

from __future__ import annotations

import torch
from torch import Tensor

from speak_neuro.systems.segmenter import Segmenter


class Vanilla(Segmenter):
    """A boundary at every position."""

    shortens = False

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        return torch.ones_like(ids, dtype=torch.bool)
