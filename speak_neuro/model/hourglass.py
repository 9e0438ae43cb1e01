"""The Hourglass transformer: a character language model whose middle layers run on segments.

    hidden = pre layers(embedding(ids))                                  full resolution (B, L, D)
    pooled = layer_norm(downsample(hidden, boundaries, null_group))      one vector per segment (B, 1 + S, D)
    hidden = hidden + upsample(shortened layers(pooled), boundaries)     full resolution again
    logits = output(final_norm(post layers(hidden)))                     (B, L, V): logits_t predicts character t + 1

It is the model of Dynamic Token Pooling, on which SPEAK's GTok trains (paper section 4.4), with relative attention,
exact GELU and an untied output layer. Its layers come in two forms. `norm = "pre"` normalises what a layer's parts
read and leaves the sum that they add to alone; one `final_norm` stands before the output. `norm = "post"`, DTP's own,
normalises the sum and has no final norm: a model of that form can come to do without its segments. Distances are
counted in positions outside and in segments inside. With `shortened_layers = 0` it is a plain transformer of
`pre_layers + post_layers` layers.

Everything is causal under the `closes` convention (`pooling`): logits_t depends on ids and boundaries up to t alone, so
rows padded at their end need no mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import init

from speak_neuro.model.attention import AttentionBackend, RelativeAttention, distance_sinusoids
from speak_neuro.model.dropout import Dropout
from speak_neuro.model.pooling import count_slots, downsample, smooth, upsample

Norm = Literal["pre", "post"]
NORMS: tuple[str, ...] = get_args(Norm)


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
    norm: Norm = "pre"
    """Where a layer normalises: what its parts read (pre), or their sum with what they read (post, as DTP)."""

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
        if self.norm not in NORMS:
            raise ValueError(f"norm is {self.norm!r}; allowed: {', '.join(NORMS)}")


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; allowed: a whole number from {least} on")


class HourglassLayer(nn.Module):
    """Attention and a feed-forward part around a running sum h, dropout at the end of each part.

    pre     h = h + attention(layer_norm(h));    h = h + feed_forward(layer_norm(h))
    post    h = layer_norm(h + attention(h));    h = layer_norm(h + feed_forward(h))
    """

    def __init__(self, config: HourglassConfig, attention_backend: AttentionBackend) -> None:
        super().__init__()
        self.attention = RelativeAttention(config.width, config.heads, config.attention_dropout, attention_backend)
        self.attention_norm = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, config.inner)
        self.contract = nn.Linear(config.inner, config.width)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)
        self.norm = config.norm

    def forward(self, hidden: Tensor, sinusoids: Tensor, content_bias: Tensor, distance_bias: Tensor) -> Tensor:
        return self.around(hidden, lambda read: self.attention(read, sinusoids, content_bias, distance_bias))

    def around(self, hidden: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        """The layer with `attention` in its middle: this layer's own over a whole row, or one step of it."""
        if self.norm == "pre":
            hidden = _add_into(self.dropout(attention(self.attention_norm(hidden))), hidden)
            return _add_into(self._feed_forward(self.feed_forward_norm(hidden)), hidden)
        hidden = self.attention_norm(_add_into(self.dropout(attention(hidden)), hidden))
        return self.feed_forward_norm(_add_into(self._feed_forward(hidden), hidden))  # type: ignore[no-any-return]

    def _feed_forward(self, read: Tensor) -> Tensor:
        inner = self.expand(read)
        activated = F.gelu(inner) if torch.is_grad_enabled() else torch.ops.aten.gelu_(inner)
        return self.dropout(self.contract(self.dropout(activated)))  # type: ignore[no-any-return]


def _add_into(part: Tensor, hidden: Tensor) -> Tensor:
    """part + hidden, in the memory of `part`: the fresh output of a Linear or of dropout, which no backward pass reads.

    Paging in a new buffer would cost as much as the addition. Under autocast the types differ, and the sum has the
    wider one.
    """
    return part.add_(hidden) if part.dtype == hidden.dtype else part + hidden


def predictor_view(hidden: Tensor, norm: str) -> Tensor:
    """What a boundary predictor reads of the pre-layers' `hidden`: (B, L, D) of mean 0 and deviation 1 per position.

    Post-norm layers end that way; pre-norm layers leave a sum of any size.
    """
    return F.layer_norm(hidden, hidden.shape[-1:]) if norm == "pre" else hidden


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
        if config.norm == "pre":
            self.final_norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, config.vocabulary)
        self.slot_multiple = 1
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: N(0, 0.02), layer-norm weights N(1, 0.02), other biases 0, the null group N(0, 1).

        With `norm = "pre"` embeddings are 25 times as large, since what is added to them is of size 1; each
        feed-forward part begins at zero, so that a layer begins near the identity; and the final norm at one. Both
        forms draw the same numbers: what is drawn after them stays the same too.
        """
        final_norm = getattr(self, "final_norm", None)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.LayerNorm) and module is not final_norm:
                init.normal_(module.weight, 1.0, 0.02)
            if isinstance(module, (nn.Linear, nn.LayerNorm)):
                init.zeros_(module.bias)
        if self.config.norm == "pre":
            self.embedding.weight.data.mul_(25)  # N(0, 0.5)
            init.ones_(self.final_norm.weight)
            for module in self.modules():
                if isinstance(module, HourglassLayer):
                    init.zeros_(module.contract.weight)
        init.normal_(self.content_bias, 0.0, 0.02)
        init.normal_(self.distance_bias, 0.0, 0.02)
        if self.config.shortened_layers:
            init.normal_(self.null_group, 0.0, 1.0)

    def pre(self, ids: Tensor) -> Tensor:
        """Embedding and the layers before shortening: character ids (B, L) -> hidden (B, L, D)."""
        if ids.ndim != 2:
            raise ValueError(f"ids has shape {tuple(ids.shape)}; allowed: (B, L)")
        return self._run(self.pre_stack, self.dropout(self.embedding(ids)))

    def decode(self, hidden: Tensor, boundaries: Tensor | None, confidence: Tensor | None = None) -> Tensor:
        """What `pre` returned and a segmentation -> logits: (B, L, D), (B, L) -> (B, L, V).

        `boundaries` is bool (or 0 and 1 in floating point, which may require a gradient: `pooling.downsample`); true
        closes a segment at that position. To score several segmentations of the same rows, stack them and repeat
        `hidden`. Without shortened layers they are not read and may be None. `confidence` (B, L), how sure each
        position's boundary or its absence is, smooths what is read back (`pooling.smooth`) and lets a gradient through.
        """
        if not self.config.shortened_layers:
            return self.read_back(hidden)
        if boundaries is None:
            raise ValueError("boundaries is None; allowed: (B, L), None only when shortened_layers is 0")
        return self.read_back(hidden, boundaries, confidence, count_slots(boundaries, self.slot_multiple))

    def read_back(
        self,
        hidden: Tensor,
        boundaries: Tensor | None = None,
        confidence: Tensor | None = None,
        slots: int | None = None,
    ) -> Tensor:
        """`decode` once the number of slots, the null group's included, is known: nothing here waits for the device."""
        if boundaries is not None:
            pooled = self.pooled_norm(downsample(hidden, boundaries, self.null_group, slots))
            shortened = self._run(self.shortened_stack, pooled)
            if confidence is None:
                hidden = hidden + upsample(shortened, boundaries)
            else:
                read = upsample(smooth(shortened, boundaries, confidence), boundaries)
                # Exactly 1, with the confidence's gradient (straight-through).
                hidden = hidden + read * (1 + (confidence - confidence.detach())).unsqueeze(2).to(read.dtype)
        return self.read_out(self._run(self.post_stack, hidden))

    def read_out(self, hidden: Tensor) -> Tensor:
        """What the last layer returned -> logits: (..., D) -> (..., V)."""
        if self.config.norm == "pre":
            hidden = self.final_norm(hidden)
        return self.output(hidden)  # type: ignore[no-any-return]

    def forward(self, ids: Tensor, boundaries: Tensor | None = None) -> Tensor:
        """Character ids (B, L) and their segmentation (B, L) -> logits (B, L, V); logits_t predicts character t + 1."""
        return self.decode(self.pre(ids), boundaries)

    def _run(self, stack: LayerStack, hidden: Tensor) -> Tensor:
        return stack(hidden, self.content_bias, self.distance_bias)  # type: ignore[no-any-return]
