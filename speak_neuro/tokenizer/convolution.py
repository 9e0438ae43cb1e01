"""f_t = (T_0[c_t], T_1[c_{t-1}], ..., T_{k-1}[c_{t-k+1}]): the last k characters, and the readouts only add up."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speak_neuro.config import ModelConfig, TokenizerConfig
from speak_neuro.tokenizer.encoder import Encoder, Readout


class TapSum(nn.Module):
    """Readout of the convolution encoder: adds k of its 2k features, in order of the delay, (B, L, 2k) -> (B, L, 1).

    The order is part of the definition, since float32 sums depend on it: ((f_0 + f_1) + f_2) + ... `weight` and `bias`
    say the same as a Linear would, for exports that begin at the features.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, first: int, count: int, in_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.first, self.count = first, count
        weight = torch.zeros(1, in_features)
        weight[:, first : first + count] = 1
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", torch.zeros(1), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        total = features[..., self.first : self.first + 1]
        for index in range(self.first + 1, self.first + self.count):
            total = total + features[..., index : index + 1]
        return total


class ConvolutionEncoder(Encoder):
    """A linear convolution over one-hot characters: (B, L) ids -> (B, L, 2k).

    Delay j has a table of two numbers per character, its parts of the current and of the gate logit. The features are
    the looked-up parts, [current, delays 0..k-1 | gate, delays 0..k-1], and what lies before the first column adds 0.
    So the whole tokenizer is k tables and a neuron, and can be written as synaptic weights with delays.

    What is trained is a sixteenth of each number. An optimiser such as Adam moves every parameter by about its learning
    rate; in the other encoders many parameters move one current together, here one parameter must do it alone.
    """

    adds_parts = True
    GAIN = 16.0

    @classmethod
    def build(cls, config: TokenizerConfig, model: ModelConfig, vocabulary: int) -> ConvolutionEncoder:
        return cls(vocabulary, config.context)

    def __init__(self, vocabulary: int, context: int) -> None:
        super().__init__(2 * context)
        self.left_context = context - 1
        self.sixteenths = nn.Parameter(torch.randn(context, vocabulary, 2) * (0.5 / context / self.GAIN))

    @property
    def tables(self) -> Tensor:
        """T, (k, V, 2): delay, character, current or gate. The factor is a power of two, so nothing is rounded."""
        return self.sixteenths * self.GAIN

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        length = ids.shape[1]
        parts = [
            nn.functional.pad(nn.functional.embedding(ids, table), (0, 0, delay, 0))[:, :length]
            for delay, table in enumerate(self.tables.unbind())
        ]
        return torch.cat([part[..., lane : lane + 1] for lane in (0, 1) for part in parts], dim=-1)

    def offsets(self, current: Readout) -> list[tuple[Tensor, float]]:
        """The readout only adds up: the present character's part takes it."""
        return [(self.sixteenths.detach()[0, :, 0], 1 / self.GAIN)]

    def readouts(self) -> tuple[TapSum, TapSum]:
        count = self.left_context + 1
        return TapSum(0, count, self.width), TapSum(count, count, self.width)
