"""Context encoders: character ids to the features that the neuron's two readouts see (paper Eq. 2, 7, 8).

    linear      f_t = GELU(LayerNorm(W emb(c_t) + b)), once or several times   a function of the character alone
    window      f_t = GELU(LayerNorm(sum_j W_j emb(c_{t-j}) + b)), j < k       a function of the last k characters
    convolution f_t = (T_0[c_t], T_1[c_{t-1}], ..., T_{k-1}[c_{t-k+1}])        the same, and the readouts only add up
    hourglass   f_t = GELU(W h_t + b), h the language model's pre-layers       a function of the whole prefix

All are causal: f_t depends on characters up to t. B batch, L positions, D width, V alphabet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speak_neuro.config import ModelConfig, TokenizerConfig
from speak_neuro.model.hourglass import predictor_view


class LinearEncoder(nn.Module):
    """Embedding, then `layers` times Linear, LayerNorm, GELU: (B, L) ids -> (B, L, D)."""

    needs_hidden = False
    left_context = 0

    def __init__(self, vocabulary: int, width: int, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        more = [nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()) for _ in range(layers - 1)]
        self.more = nn.Sequential(*more)

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        features = nn.functional.gelu(self.norm(self.linear(self.embedding(ids))))
        return self.more(features)  # type: ignore[no-any-return]


class WindowEncoder(nn.Module):
    """A causal convolution over the embeddings of the last k characters: (B, L) ids -> (B, L, D).

    What lies before the first column counts as absent (zero embeddings), not as any character.

    Trained on more positions than there are characters, it first maps the alphabet, W_j emb(c) for every j and c, and
    then sums k rows for each position: the same function at a tenth of the time, up to rounding. Evaluation always
    multiplies position by position, so that features do not depend on what they are computed with.
    """

    needs_hidden = False

    def __init__(self, vocabulary: int, width: int, context: int) -> None:
        super().__init__()
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
        by_place = self.linear.weight.view(width, self.context, width)
        table = torch.einsum("cd,fjd->jcf", self.embedding.weight, by_place).reshape(-1, width)
        absent = len(table)
        table = torch.cat([table, table.new_zeros(1, width)])
        padded = nn.functional.pad(ids, (self.left_context, 0), value=-1)
        recent = padded.unfold(1, self.context, 1)  # (B, L, k), the oldest character first
        rows = recent + torch.arange(0, absent, characters, device=ids.device)
        rows = torch.where(recent < 0, absent, rows).view(-1, self.context)
        return nn.functional.embedding_bag(rows, table, mode="sum").view(*ids.shape, width) + self.linear.bias


class ConvolutionEncoder(nn.Module):
    """A linear convolution over one-hot characters: (B, L) ids -> (B, L, 2k).

    Delay j has a table of two numbers per character, its parts of the current and of the gate logit. The features are
    the looked-up parts, [current, delays 0..k-1 | gate, delays 0..k-1], and what lies before the first column adds 0.
    So the whole tokenizer is k tables and a neuron, and can be written as synaptic weights with delays.

    What is trained is a sixteenth of each number. An optimiser such as Adam moves every parameter by about its learning
    rate; in the other encoders many parameters move one current together, here one parameter must do it alone.
    """

    needs_hidden = False
    GAIN = 16.0

    def __init__(self, vocabulary: int, context: int) -> None:
        super().__init__()
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


class HourglassEncoder(nn.Module):
    """DTP's predictor body on the language model's pre-layers: (B, L, width) hidden -> (B, L, inner)."""

    needs_hidden = True
    left_context = 0

    def __init__(self, width: int, inner: int, norm: str = "post") -> None:
        super().__init__()
        self.norm = norm
        self.linear = nn.Linear(width, inner)

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        if hidden is None:
            raise ValueError("the hourglass encoder needs the language model's pre-layer states")
        return nn.functional.gelu(self.linear(predictor_view(hidden, self.norm)))


def build_encoder(
    config: TokenizerConfig, model: ModelConfig, vocabulary: int
) -> tuple[LinearEncoder | WindowEncoder | ConvolutionEncoder | HourglassEncoder, int]:
    """The encoder that `config` names, and the width of its features."""
    if config.encoder == "linear":
        return LinearEncoder(vocabulary, config.encoder_width, config.encoder_layers), config.encoder_width
    if config.encoder == "window":
        return WindowEncoder(vocabulary, config.encoder_width, config.context), config.encoder_width
    if config.encoder == "convolution":
        return ConvolutionEncoder(vocabulary, config.context), 2 * config.context
    return HourglassEncoder(model.width, model.inner, model.norm), model.inner


def build_readouts(config: TokenizerConfig, width: int) -> tuple[nn.Linear | TapSum, nn.Linear | TapSum]:
    """Readouts of the current and of the gate logit, each (B, L, width) -> (B, L, 1)."""
    if config.encoder == "convolution":
        return TapSum(0, config.context, width), TapSum(config.context, config.context, width)
    return nn.Linear(width, 1), nn.Linear(width, 1)
