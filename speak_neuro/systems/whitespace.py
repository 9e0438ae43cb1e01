"""whitespace: b_t = [c_t is white space]."""

from __future__ import annotations

import torch
from torch import Tensor

from speak_neuro.config import RunConfig
from speak_neuro.systems.segmenter import Segmenter, require_alphabet
from speak_neuro.text.alphabet import Alphabet

LEAST_WHITE_SPACE = 0.02
"""Of a text's characters: with less, hardly a token would end."""


class WhiteSpace(Segmenter):
    """A boundary at each white-space character. In a run of them each is a boundary, since what follows is not known
    yet."""

    is_space: Tensor

    @classmethod
    def build(cls, config: RunConfig, alphabet: Alphabet | None) -> WhiteSpace:
        return cls(require_alphabet(config, alphabet))

    @classmethod
    def check_text(cls, start: str) -> str:
        spaces = sum(map(str.isspace, start))
        if spaces >= LEAST_WHITE_SPACE * len(start):
            return ""
        return (
            f"--tokenizer is whitespace, but only {spaces} of the text's first {len(start)} characters are white "
            "space, as in a script written without it; take another --tokenizer"
        )

    def __init__(self, alphabet: Alphabet) -> None:
        super().__init__()
        spaces = torch.tensor([False, *(character.isspace() for character in alphabet.characters)])
        self.register_buffer("is_space", spaces, persistent=False)

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        return self.is_space[ids]
