"""The Hourglass transformer written the plain way: the whole attention square, dense L x S pooling, library dropout.

It shares nothing but the sizes with `hourglass`, holds its parameters under the same names, and serves as what that
model is compared with, in numbers (tests) and in time (experiments/bench/step.py). Batch first.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak_neuro.model.hourglass import HourglassConfig


class PlainAttention(nn.Module):
    def __init__(self, width: int, heads: int, attention_dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.distance = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(attention_dropout)

    def forward(self, hidden: Tensor, sinusoids: Tensor, content_bias: Tensor, distance_bias: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        query, key, value = self.query_key_value(hidden).view(batch, length, 3, self.heads, -1).unbind(2)
        distance_key = self.distance(sinusoids).view(length, self.heads, -1)
        content = torch.einsum("bihd,bjhd->bhij", query + content_bias, key)
        distance = torch.einsum("bihd,jhd->bhij", query + distance_bias, distance_key)
        # Columns hold the distances length-1 .. 0. A column of zeros in front, read back with rows one longer, moves
        # row i to the left by length-1-i.
        padded = torch.cat([distance.new_zeros(batch, self.heads, length, 1), distance], dim=3)
        distance = padded.view(batch, self.heads, length + 1, length)[:, :, 1:]
        scores = (content + distance).mul_((width // self.heads) ** -0.5)
        future = torch.ones(length, length, dtype=torch.bool, device=hidden.device).triu(1)
        weights = self.dropout(scores.masked_fill(future, -math.inf).softmax(3))
        mixed: Tensor = self.output(torch.einsum("bhij,bjhd->bihd", weights, value).reshape(batch, length, width))
        return mixed


class PlainLayer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, dropout: float, attention_dropout: float, norm: str) -> None:
        super().__init__()
        self.norm = norm
        self.attention = PlainAttention(width, heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, *rest: Tensor) -> Tensor:
        if self.norm == "pre":
            hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), *rest))
            inner = F.gelu(self.expand(self.feed_forward_norm(hidden)))
            added: Tensor = hidden + self.dropout(self.contract(self.dropout(inner)))
            return added
        hidden = self.attention_norm(hidden + self.dropout(self.attention(hidden, *rest)))
        mapped = self.contract(self.dropout(F.gelu(self.expand(hidden))))
        normed: Tensor = self.feed_forward_norm(hidden + self.dropout(mapped))
        return normed


class PlainStack(nn.Module):
    def __init__(self, count: int, config: HourglassConfig) -> None:
        super().__init__()
        c = config
        self.layers = nn.ModuleList(
            PlainLayer(c.width, c.heads, c.inner, c.dropout, c.attention_dropout, c.norm) for _ in range(count)
        )


def plain_assignment(boundaries: Tensor) -> Tensor:
    """(B, L, S): share of position t in the mean of segment s, differentiable in 0/1 boundaries of floating point.

    1 - (s - c_t) where segment s is position t's own, c_t = sum_{u < t} b_u; 0 elsewhere; then normalised over t.
    """
    before = boundaries.cumsum(1) - boundaries
    segments = torch.arange(int(boundaries.sum(1).max()), device=boundaries.device)
    difference = segments - before.unsqueeze(2)
    share = (1 - difference).masked_fill(difference.detach() != 0, 0)
    return share / (share.sum(1, keepdim=True) + 1e-9)


def plain_downsample(hidden: Tensor, boundaries: Tensor, null_group: Tensor) -> Tensor:
    pooled = torch.einsum("bld,bls->bsd", hidden, plain_assignment(boundaries.to(hidden.dtype)))
    return torch.cat([null_group.expand(len(hidden), 1, -1), pooled], dim=1)


def plain_upsample(pooled: Tensor, boundaries: Tensor) -> Tensor:
    read = F.one_hot(boundaries.cumsum(1).long(), pooled.shape[1]).to(pooled.dtype)
    return torch.einsum("bsd,bls->bld", pooled, read)


class PlainHourglass(nn.Module):
    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        c = config
        self.shortens = c.shortened_layers > 0
        self.embedding = nn.Embedding(c.vocabulary, c.width)
        self.dropout = nn.Dropout(c.dropout)
        self.content_bias = nn.Parameter(torch.zeros(c.heads, c.width // c.heads))
        self.distance_bias = nn.Parameter(torch.zeros(c.heads, c.width // c.heads))
        self.pre_stack = PlainStack(c.pre_layers, c)
        if self.shortens:
            self.null_group = nn.Parameter(torch.zeros(c.width))
            self.pooled_norm = nn.LayerNorm(c.width)
            self.shortened_stack = PlainStack(c.shortened_layers, c)
        self.post_stack = PlainStack(c.post_layers, c)
        self.final_norm = nn.LayerNorm(c.width) if c.norm == "pre" else nn.Identity()
        self.output = nn.Linear(c.width, c.vocabulary)

    def run(self, stack: PlainStack, hidden: Tensor) -> Tensor:
        length, width = hidden.shape[1:]
        distance = torch.arange(length - 1, -1, -1, dtype=hidden.dtype, device=hidden.device)
        frequency = 1 / 10000 ** (torch.arange(0, width, 2, dtype=hidden.dtype, device=hidden.device) / width)
        angle = torch.outer(distance, frequency)
        sinusoids = self.dropout(torch.cat([angle.sin(), angle.cos()], dim=1))
        for layer in stack.layers:
            hidden = layer(hidden, sinusoids, self.content_bias, self.distance_bias)
        return hidden

    def pre(self, ids: Tensor) -> Tensor:
        return self.run(self.pre_stack, self.dropout(self.embedding(ids)))

    def decode(self, hidden: Tensor, boundaries: Tensor) -> Tensor:
        if self.shortens:
            pooled = self.pooled_norm(plain_downsample(hidden, boundaries, self.null_group))
            hidden = hidden + plain_upsample(self.run(self.shortened_stack, pooled), boundaries)
        logits: Tensor = self.output(self.final_norm(self.run(self.post_stack, hidden)))
        return logits

    def forward(self, ids: Tensor, boundaries: Tensor) -> Tensor:
        return self.decode(self.pre(ids), boundaries)
