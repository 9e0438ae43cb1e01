"""The Hourglass transformer: a character language model whose middle layers run on segments.

    hidden = pre layers(embedding(ids))                                  full resolution (B, L, D)
    pooled = layer_norm(downsample(hidden, boundaries, null_group))      one vector per segment (B, 1 + S, D)
    hidden = hidden + upsample(shortened layers(pooled), boundaries)     full resolution again
    logits = output(post layers(hidden))                                 (B, L, V): logits_t predicts character t + 1

It is the model of Dynamic Token Pooling, on which SPEAK's GTok trains (paper section 4.4): post-norm layers with
relative attention, exact GELU, an untied output layer. Distances are counted in positions outside and in
segments inside. With `shortened_layers = 0` it is a plain transformer of `pre_layers + post_layers` layers.

Everything is causal under the `closes` convention (`pooling`): logits_t depends on ids and boundaries up to t alone, so
rows padded at their end need no mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import init

from speak_neuro.model.attention import AttentionBackend, RelativeAttention, distance_sinusoids
from speak_neuro.model.dropout import Dropout
from speak_neuro.model.pooling import downsample, upsample


@dataclass(frozen=True)
class HourglassConfig:
    """Sizes of the model. The defaults are the paper's: 2 layers on characters, 8 on segments, 2 on characters."""

    vocabulary: int
    """V: number of character ids, the unknown character's included."""
    width: int = 512
    """D: features per position."""
    heads: int = 8
    """H: attention heads, each of width D / H."""
    inner: int = 2048
    """Features inside a layer's feed-forward part."""
    pre_layers: int = 2
    """Layers on characters before shortening."""
    shortened_layers: int = 8
    """Layers on segments; 0 means no shortening at all."""
    post_layers: int = 2
    """Layers on characters after the segments are read back."""
    dropout: float = 0.1
    """Probability with which an activation is dropped: embeddings, distances, both parts of each layer."""
    attention_dropout: float = 0.1
    """Probability with which an attention weight is dropped."""

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "heads", "inner"):
            _check_integer(name, getattr(self, name), 1)
        for name in ("pre_layers", "shortened_layers", "post_layers"):
            _check_integer(name, getattr(self, name), 0)
        if self.width % 2:
            raise ValueError(f"width is {self.width}; allowed: an even number (half sines, half cosines)")
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}; allowed: a divisor of width {self.width}")
        for name in ("dropout", "attention_dropout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise ValueError(f"{name} is {value!r}; allowed: a probability, 0 <= {name} < 1")


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; allowed: a whole number from {least} on")


class HourglassLayer(nn.Module):
    """h = layer_norm(h + attention(h)); h = layer_norm(h + feed_forward(h)), dropout at the end of each part."""

    def __init__(self, config: HourglassConfig, attention_backend: AttentionBackend) -> None:
        super().__init__()
        self.attention = RelativeAttention(config.width, config.heads, config.attention_dropout, attention_backend)
        self.attention_norm = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, config.inner)
        self.contract = nn.Linear(config.inner, config.width)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, hidden: Tensor, sinusoids: Tensor, content_bias: Tensor, distance_bias: Tensor) -> Tensor:
        attended = self.dropout(self.attention(hidden, sinusoids, content_bias, distance_bias))
        hidden = self.attention_norm(_add_into(attended, hidden))
        inner = self.expand(hidden)
        activated = F.gelu(inner) if torch.is_grad_enabled() else torch.ops.aten.gelu_(inner)
        mapped = self.dropout(self.contract(self.dropout(activated)))
        return self.feed_forward_norm(_add_into(mapped, hidden))  # type: ignore[no-any-return]


def _add_into(part: Tensor, hidden: Tensor) -> Tensor:
    """part + hidden, in the memory of `part`: the fresh output of a Linear or of dropout, which no backward pass reads.

    Paging in a new buffer would cost as much as the addition. Under autocast the types differ, and the sum has the
    wider one.
    """
    return part.add_(hidden) if part.dtype == hidden.dtype else part + hidden


class LayerStack(nn.Module):
    """Consecutive layers at one resolution; the distances' sinusoids, dropped out once, serve all of them."""

    def __init__(self, count: int, config: HourglassConfig, attention_backend: AttentionBackend) -> None:
        super().__init__()
        self.layers = nn.ModuleList(HourglassLayer(config, attention_backend) for _ in range(count))
        self.dropout = Dropout(config.dropout)

    def forward(self, hidden: Tensor, content_bias: Tensor, distance_bias: Tensor) -> Tensor:
        if len(self.layers) == 0 or hidden.numel() == 0:
            return hidden
        sinusoids = self.dropout(distance_sinusoids(hidden.shape[1], hidden.shape[2], hidden.device).to(content_bias))
        for layer in self.layers:
            hidden = layer(hidden, sinusoids, content_bias, distance_bias)
        return hidden


class Hourglass(nn.Module):
    """`forward` in two halves, so that a boundary predictor can stand between them: `pre`, then `decode`."""

    def __init__(self, config: HourglassConfig, attention_backend: AttentionBackend = "auto") -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.dropout = Dropout(config.dropout)
        head_shape = (config.heads, config.width // config.heads)
        self.content_bias = nn.Parameter(self.embedding.weight.new_empty(head_shape))
        self.distance_bias = nn.Parameter(self.embedding.weight.new_empty(head_shape))
        self.pre_stack = LayerStack(config.pre_layers, config, attention_backend)
        if config.shortened_layers:
            self.null_group = nn.Parameter(self.embedding.weight.new_empty(config.width))
            self.pooled_norm = nn.LayerNorm(config.width)
            self.shortened_stack = LayerStack(config.shortened_layers, config, attention_backend)
        self.post_stack = LayerStack(config.post_layers, config, attention_backend)
        self.output = nn.Linear(config.width, config.vocabulary)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: N(0, 0.02), layer-norm weights N(1, 0.02), other biases 0, the null group N(0, 1)."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.LayerNorm):
                init.normal_(module.weight, 1.0, 0.02)
            if isinstance(module, (nn.Linear, nn.LayerNorm)):
                init.zeros_(module.bias)
        init.normal_(self.content_bias, 0.0, 0.02)
        init.normal_(self.distance_bias, 0.0, 0.02)
        if self.config.shortened_layers:
            init.normal_(self.null_group, 0.0, 1.0)

    def pre(self, ids: Tensor) -> Tensor:
        """Embedding and the layers before shortening: character ids (B, L) -> hidden (B, L, D)."""
        if ids.ndim != 2:
            raise ValueError(f"ids has shape {tuple(ids.shape)}; allowed: (B, L)")
        return self._run(self.pre_stack, self.dropout(self.embedding(ids)))

    def decode(self, hidden: Tensor, boundaries: Tensor | None) -> Tensor:
        """What `pre` returned and a segmentation -> logits: (B, L, D), (B, L) -> (B, L, V).

        `boundaries` is bool (or 0 and 1 in floating point, which may require a gradient: `pooling.downsample`); true
        closes a segment at that position. To score several segmentations of the same rows, stack them and repeat
        `hidden`. Without shortened layers they are not read and may be None.
        """
        if self.config.shortened_layers:
            if boundaries is None:
                raise ValueError("boundaries is None; allowed: (B, L), None only when shortened_layers is 0")
            pooled = self.pooled_norm(downsample(hidden, boundaries, self.null_group))
            hidden = hidden + upsample(self._run(self.shortened_stack, pooled), boundaries)
        return self.output(self._run(self.post_stack, hidden))  # type: ignore[no-any-return]

    def forward(self, ids: Tensor, boundaries: Tensor | None = None) -> Tensor:
        """Character ids (B, L) and their segmentation (B, L) -> logits (B, L, V); logits_t predicts character t + 1."""
        return self.decode(self.pre(ids), boundaries)

    def _run(self, stack: LayerStack, hidden: Tensor) -> Tensor:
        return stack(hidden, self.content_bias, self.distance_bias)  # type: ignore[no-any-return]
