"""The Hourglass one position at a time: what was computed before is kept, not computed again.

    hidden_t = pre layers(embedding(id_t)), each layer attending to its keys and values of positions up to t
    where a segment closes at t: its mean goes through the shortened layers, which keep keys and values of segments
    logits_t = read_out(post layers(hidden_t + the last closed segment's vector))

Equal to `Hourglass.forward` over the whole row up to rounding, since everything in it is causal. A step costs as much
as one position of the full pass and one row of attention. The rows of a batch may have different lengths.

Shapes: B rows, C room for positions, H heads, d head width, D = H d, V alphabet.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from speak_neuro.model.attention import RelativeAttention, distance_sinusoids
from speak_neuro.model.hourglass import Hourglass, HourglassLayer, LayerStack
from speak_neuro.model.pooling import downsample

ROOM = 64
"""Positions that a cache has room for at first; it doubles when it is full."""


class LayerCache:
    """Keys and values (2, B, H, C, d) and the keys of the distances C - 1, ..., 0 (H, C, d) of one attention layer."""

    def __init__(self, attention: RelativeAttention, rows: int, room: int, like: Tensor) -> None:
        shape = (rows, attention.heads, room, attention.query_key_value.in_features // attention.heads)
        self.attention = attention
        self.kept = like.new_zeros(2, *shape)
        self.distances = self._distances(room, like)

    def _distances(self, room: int, like: Tensor) -> Tensor:
        width = self.attention.query_key_value.in_features
        sinusoids = distance_sinusoids(room, width, like.device)[:-1]
        return self.attention.project_distances(sinusoids.to(like.dtype)).contiguous()

    def grow(self, room: int) -> None:
        """Make place for `room` positions."""
        self.kept = torch.nn.functional.pad(self.kept, (0, 0, 0, room - self.kept.shape[3]))
        self.distances = self._distances(room, self.kept)

    def fill(self, key: Tensor, value: Tensor) -> None:
        """Keep the first positions of all rows: (H, B, L, d)."""
        self.kept[0, :, :, : key.shape[2]], self.kept[1, :, :, : key.shape[2]] = (
            key.transpose(0, 1),
            value.transpose(0, 1),
        )


class _Step(NamedTuple):
    """Where the next position of each row goes."""

    rows: Tensor | None
    """(b,) the rows that go on; None for all."""
    place: Tensor | int
    """(b,) each row's positions so far, or one number for all."""
    length: int
    """n, the keys that are looked at."""
    columns: Tensor | None
    """(b, H, n) where in `LayerCache.distances` each key's distance is; None where it is the last n in order."""
    future: Tensor | None
    """(b, 1, n) true where a row has no such key."""


class StackCache:
    """A `LayerStack`'s memory of the positions that it has seen, and its next step."""

    def __init__(self, stack: LayerStack, content_bias: Tensor, distance_bias: Tensor, rows: int) -> None:
        self.stack = stack
        self.content_bias, self.distance_bias = content_bias, distance_bias
        self.room = ROOM
        self.counts = torch.zeros(rows, dtype=torch.long, device=content_bias.device)
        layers: list[HourglassLayer] = list(stack.layers)  # type: ignore[arg-type]
        self.layers = layers
        self.caches = [LayerCache(layer.attention, rows, self.room, content_bias) for layer in layers]
        self._most = 0
        self._even = True  # all rows have as many positions

    def _reserve(self, positions: int) -> None:
        if positions > self.room:
            self.room = 1 << (positions - 1).bit_length()
            for cache in self.caches:
                cache.grow(self.room)

    def fill(self, hidden: Tensor, counts: Tensor) -> Tensor:
        """The first positions of all rows at once: (B, L, D), row b has counts[b] of them -> (B, L, D)."""
        length = hidden.shape[1]
        self._reserve(length)
        self.counts, self._most = counts.clone(), length
        self._even = bool((counts == length).all())
        sinusoids = distance_sinusoids(length, hidden.shape[2], hidden.device).to(hidden.dtype)
        for layer, cache in zip(self.layers, self.caches, strict=True):

            def attention(
                seen: Tensor, attention: RelativeAttention = layer.attention, cache: LayerCache = cache
            ) -> Tensor:
                query, key, value = attention.project(seen)
                cache.fill(key, value)
                return attention.attend_all(query, key, value, sinusoids, self.content_bias, self.distance_bias)

            hidden = layer.around(hidden, attention)
        return hidden

    def step(self, hidden: Tensor, rows: Tensor | None = None) -> Tensor:
        """One more position of the rows `rows` (b,), ascending, or of all: (b, D) -> (b, D)."""
        if rows is not None and len(rows) == len(self.counts):
            rows = None
        self._even = self._even and rows is None
        self._most += 1
        self._reserve(self._most)
        step = self._next_of_all() if self._even else self._next_of(rows)
        hidden = hidden.unsqueeze(1)
        for layer, cache in zip(self.layers, self.caches, strict=True):

            def attention(seen: Tensor, cache: LayerCache = cache) -> Tensor:
                return self._attend(cache, seen, step)

            hidden = layer.around(hidden, attention)
        return hidden.squeeze(1)

    def _next_of_all(self) -> _Step:
        """Rows of one length: no row's past needs to be looked for."""
        self.counts += 1
        return _Step(None, self._most - 1, self._most, None, None)

    def _next_of(self, rows: Tensor | None) -> _Step:
        """Rows of several lengths."""
        if rows is None:
            rows = torch.arange(len(self.counts), device=self.counts.device)
        place = self.counts[rows]
        self.counts[rows] = place + 1
        # Distance to each key, below 0 where there is none.
        apart = (place[:, None] - torch.arange(self._most, device=place.device))[:, None]
        columns = self.room - 1 - apart.clamp_min(0).expand(-1, self.content_bias.shape[0], -1)
        return _Step(rows, place, self._most, columns, apart < 0)

    def _attend(self, cache: LayerCache, seen: Tensor, step: _Step) -> Tensor:
        """The attention of one position of each row: (b, 1, D) -> (b, 1, D)."""
        attention, length = cache.attention, step.length
        projected = attention.query_key_value(seen).view(len(seen), 3, attention.heads, -1)
        query = projected[:, 0]  # (b, H, d)
        if step.rows is None:
            cache.kept[:, :, :, step.place] = projected[:, 1:].transpose(0, 1)
            keys, values = cache.kept[:, :, :, :length].unbind()
        else:
            cache.kept[:, step.rows, :, step.place] = projected[:, 1:]
            whole = len(seen) == len(self.counts)
            keys, values = (cache.kept[:, :, :, :length] if whole else cache.kept[:, step.rows, :, :length]).unbind()
        distances = cache.distances[:, self.room - length :] if step.columns is None else cache.distances
        towards = (query + self.distance_bias).transpose(0, 1) @ distances.transpose(1, 2)
        towards = towards.transpose(0, 1) / math.sqrt(query.shape[2])  # (b, H, n)
        if step.columns is not None and step.future is not None:
            towards = towards.gather(2, step.columns).masked_fill(step.future, -math.inf)
        content = (query + self.content_bias).unsqueeze(2)  # (b, H, 1, d)
        read = F.scaled_dot_product_attention(content, keys, values, attn_mask=towards.unsqueeze(2))
        return attention.output(read.flatten(1)).unsqueeze(1)  # type: ignore[no-any-return]


class HourglassStepper:
    """`pre` and `decode` of an `Hourglass`, first over the beginnings of all rows, then position by position."""

    def __init__(self, model: Hourglass, rows: int) -> None:
        if model.training:
            raise ValueError("the model is in training mode; allowed: evaluation mode, model.eval()")
        self.model = model

        def cache(stack: LayerStack) -> StackCache:
            return StackCache(stack, model.content_bias, model.distance_bias, rows)

        self._pre, self._post = cache(model.pre_stack), cache(model.post_stack)
        if model.config.shortened_layers:
            width = model.config.width
            self._shortened = cache(model.shortened_stack)
            self._total = model.null_group.new_zeros(rows, width)  # of the open segment's hidden states
            self._size = model.null_group.new_zeros(rows)
            self._read = model.null_group.new_zeros(rows, width)  # what each row reads: its last closed segment

    def begin(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """`pre` of the rows' beginnings, row b's lengths[b] characters padded at the end: (B, L) -> (B, L, D)."""
        return self._pre.fill(self.model.embedding(ids), lengths)

    def decode_beginning(self, hidden: Tensor, boundaries: Tensor | None) -> Tensor:
        """`decode` of what `begin` returned -> logits (B, V) at each row's last position."""
        lengths, model = self._pre.counts, self.model
        last = (torch.arange(len(lengths), device=lengths.device), lengths - 1)
        if model.config.shortened_layers:
            assert boundaries is not None
            inside = torch.arange(hidden.shape[1], device=lengths.device) < lengths[:, None]
            closes = boundaries & inside
            closed = closes.cumsum(1)
            counts = 1 + closes.sum(1)
            pooled = model.pooled_norm(downsample(hidden, closes, model.null_group))
            segments = self._shortened.fill(pooled, counts)
            index = closed[:, :, None].expand(-1, -1, hidden.shape[2])
            opened = (closed == closes.sum(1, keepdim=True)) & ~closes & inside  # the unfinished segment's positions
            self._total = (hidden * opened[:, :, None]).sum(1)
            self._size = opened.sum(1).to(hidden.dtype)
            self._read = segments[last[0], counts - 1]
            hidden = hidden + segments.gather(1, index)
        return model.read_out(self._post.fill(hidden, lengths)[last])

    def pre(self, ids: Tensor) -> Tensor:
        """The next character of each row: (B,) -> hidden (B, D)."""
        return self._pre.step(self.model.embedding(ids))

    def decode(self, hidden: Tensor, closes: Tensor | None) -> Tensor:
        """What `pre` returned, and whether a segment ends with that character: (B, D), (B,) bool -> logits (B, V)."""
        if self.model.config.shortened_layers:
            assert closes is not None
            self._total += hidden
            self._size += 1
            rows = closes.nonzero().squeeze(1)
            if len(rows):
                mean = self._total[rows] / self._size[rows, None]
                self._read[rows] = self._shortened.step(self.model.pooled_norm(mean), rows)
                self._total[rows], self._size[rows] = 0, 0
            hidden = hidden + self._read
        return self.model.read_out(self._post.step(hidden))
