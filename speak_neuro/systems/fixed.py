"""fixed: b_t = [t mod n = n - 1], counted from the window's start."""

from __future__ import annotations

import torch
from torch import Tensor

from speak_neuro.config import RunConfig
from speak_neuro.systems.segmenter import Segmenter
from speak_neuro.text.alphabet import Alphabet


class FixedLength(Segmenter):
    """A boundary at every n-th position."""

    @classmethod
    def build(cls, config: RunConfig, alphabet: Alphabet | None) -> FixedLength:
        return cls(config.tokenizer.fixed_length)

    @classmethod
    def check(cls, config: RunConfig) -> str:
        length, window = config.tokenizer.fixed_length, config.training.window
        if length <= window:
            return ""
        return f"--fixed-length is {length} and --window {window}: no token would end; allowed: up to the window"

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        return ((positions + 1) % self.length == 0).expand(ids.shape)
