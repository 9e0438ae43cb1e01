"""Causal self-attention with relative distances, in the form of Transformer-XL.

Per head, for a query position i and a key position j <= i, with q, k, v of width d and r a projection of the sinusoids
of the distance i - j:

    score_ij  = ((q_i + content_bias) . k_j + (q_i + distance_bias) . r_{i-j}) / sqrt(d)
    output_i  = sum_j dropout(softmax_j(score_ij)) v_j

The two biases, per head, are shared by all layers of a model. Three backends compute the same numbers up to rounding:

    blocked   queries in blocks, each against the keys up to its end: half the work of the square, no L x L tensor
    sdpa      `torch.nn.functional.scaled_dot_product_attention`, the distance term as its additive mask
    plain     the whole square, as written above
    auto      blocked on the CPU, sdpa elsewhere

With attention dropout they draw different masks from the same random state.
Shapes: B rows, L positions, H heads, d head width, D = H d.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from speak_neuro.model.dropout import keep_limit, kept_share, random_bits

AttentionBackend = Literal["auto", "blocked", "sdpa", "plain"]
ATTENTION_BACKENDS: tuple[str, ...] = get_args(AttentionBackend)

QUERY_BLOCK = 64


def _make_sinusoids(length: int, width: int, device: torch.device) -> Tensor:
    distance = torch.arange(length - 1, -2, -1, dtype=torch.float64, device=device)
    frequency = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64, device=device) / width)
    angle = distance.unsqueeze(1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1).to(torch.float32)


def _make_future(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


_sinusoid_table = functools.lru_cache(maxsize=8)(_make_sinusoids)
_future_table = functools.lru_cache(maxsize=8)(_make_future)


def _table_length(length: int) -> int:
    """The next power of two: segment counts change with every batch, and each would need a table of its own."""
    return 1 << (length - 1).bit_length()


def distance_sinusoids(length: int, width: int, device: torch.device) -> Tensor:
    """(length + 1, width): the sinusoids of the distances length - 1, ..., 1, 0, -1, in this order.

        [sin(distance f_0), sin(distance f_1), ... | cos(distance f_0), ...],   f_n = 10000^(-2n / width)

    Distance -1 is never attended to; its row makes room for `shift_distances`. The table is computed in float64 and
    rounded to float32, whatever autocast says: bfloat16 cannot count past 256.
    """
    if torch.compiler.is_compiling():  # a compiler sees through no cache; it makes the table part of its program
        return _make_sinusoids(length, width, device)
    with torch.inference_mode(False):  # a cached inference tensor would break every later training step
        return _sinusoid_table(_table_length(length), width, device)[-length - 1 :]


def future_mask(length: int, device: torch.device) -> Tensor:
    """(length, length) bool, true where the key comes after the query."""
    if torch.compiler.is_compiling():
        return _make_future(length, device)
    with torch.inference_mode(False):
        return _future_table(_table_length(length), device)[:length, :length]


def shift_distances(scores: Tensor) -> Tensor:
    """From a column per distance to a column per key, without copying: (N, n, b + 1) -> (N, n, b).

    The rows are the queries at positions b - n, ..., b - 1, the columns the distances b - 1, ..., 0, -1. Query row i
    (at position b - n + i) and key j are i - j + b - n apart, found in column j + n - 1 - i: each row starts one
    element earlier than the row above, which is what rows of b elements laid over rows of b + 1 do. Entries with j in
    the query's future hold unrelated numbers.
    """
    batch, rows, columns = scores.shape
    keys = columns - 1
    return scores.view(batch, rows * columns).narrow(1, rows - 1, rows * keys).view(batch, rows, keys)


def choose_backend(backend: str, device: torch.device) -> str:
    """The backend that `backend` stands for on `device`."""
    if backend not in ATTENTION_BACKENDS:
        raise ValueError(f"attention_backend is {backend!r}; allowed: {', '.join(ATTENTION_BACKENDS)}")
    if backend != "auto":
        return backend
    return "blocked" if device.type == "cpu" else "sdpa"


def attend(
    content_query: Tensor,
    distance_query: Tensor,
    key: Tensor,
    value: Tensor,
    distance_key: Tensor,
    dropout: float,
    backend: str,
) -> Tensor:
    """Attention of all positions: queries, `key`, `value` (H, B, L, d), `distance_key` (H, L + 1, d) -> (H, B, L, d).

    `content_query` is q + content_bias, `distance_query` q + distance_bias, `distance_key` r in the order of
    `distance_sinusoids`. `dropout` is the probability with which an attention weight is dropped in this call.
    """
    if backend == "blocked":
        queries = content_query.contiguous(), distance_query.contiguous()
        inputs = (*queries, key.contiguous(), value.contiguous(), distance_key.contiguous())
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
            return _BlockedAttention.apply(*inputs, dropout)  # type: ignore[no-any-return]
        return _attend_blocked(*inputs, dropout)
    heads, rows, length, width = key.shape
    scale = 1 / math.sqrt(width)
    by_distance = distance_query.reshape(heads, rows * length, width) @ distance_key.transpose(1, 2)
    by_distance = shift_distances(by_distance.view(heads * rows, length, length + 1))
    by_distance = by_distance.view(heads, rows, length, length)
    future = future_mask(length, key.device)
    if backend == "sdpa":
        bias = (by_distance * scale).masked_fill(future, -math.inf)
        return F.scaled_dot_product_attention(content_query, key, value, attn_mask=bias, dropout_p=dropout)
    scores = ((content_query @ key.transpose(2, 3) + by_distance) * scale).masked_fill(future, -math.inf)
    weights = F.dropout(_softmax(scores), dropout)
    return weights.to(value.dtype) @ value


class _BlockedAttention(torch.autograd.Function):
    """The blocked backend with its gradient written out: what autograd would keep and copy, it does not.

    Of every block only the softmax is kept, its dropped entries marked by their sign. In the backward pass, with P the
    softmax, W = P * kept / kept_share the weights that met the values, and G the gradient of the output,

        dV = W^T G,   dS = W * (G V^T) - P * rowsum(G * output)        (the row sum is that of P times its gradient)

    and dS / sqrt(d) goes to both terms of the scores, to the distance term through the inverse of `shift_distances`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        content_query: Tensor,
        distance_query: Tensor,
        key: Tensor,
        value: Tensor,
        distance_key: Tensor,
        dropout: float,
    ) -> Tensor:
        inputs = (content_query, distance_query, key, value, distance_key)
        kept: list[Tensor] = []
        output = _attend_blocked(*inputs, dropout, kept)
        ctx.save_for_backward(*inputs, output, *kept)
        ctx.dropout = dropout
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        content_query, distance_query, key, value, distance_key, output, *kept = ctx.saved_tensors
        heads, rows, length, width = key.shape
        scale, share = 1 / math.sqrt(width), kept_share(ctx.dropout)
        row_sums = (gradient.to(_wide(key)) * output).sum(3).view(heads * rows, length, 1)
        gradient = (gradient * (1 / share)).contiguous()  # below, weights are W * kept_share
        d_content, d_distance = torch.empty_like(content_query), torch.empty_like(distance_query)
        d_key, d_value, d_relative = torch.zeros_like(key), torch.zeros_like(value), torch.zeros_like(distance_key)

        def merged(tensor: Tensor) -> Tensor:
            return tensor.view(heads * rows, length, width)

        for (start, end), marked in zip(_blocks(length), kept, strict=True):
            block = end - start
            incoming = merged(gradient)[:, start:end]
            softmax = marked.to(row_sums.dtype)
            weights = softmax.clamp_min(0) if ctx.dropout else softmax
            merged(d_value)[:, :end].baddbmm_(weights.to(key.dtype).transpose(1, 2), incoming)
            d_scores = torch.bmm(incoming, merged(value)[:, :end].transpose(1, 2)).to(row_sums.dtype).mul_(weights)
            if ctx.dropout:
                softmax = torch.abs(softmax, out=weights)

            # Laid out in rows longer by one, for the distance term; what the scores do not cover there is zero.
            shifted = key.new_empty(heads * rows, block * (end + 1))
            shifted[:, : block - 1] = 0
            shifted[:, -1] = 0
            by_key = shifted[:, block - 1 : -1].view(heads * rows, block, end)
            torch.addcmul(d_scores, softmax, row_sums[:, start:end], value=-1, out=by_key)
            by_distance = shifted.view(heads, rows * block, end + 1)

            merged(d_content)[:, start:end] = torch.bmm(by_key, merged(key)[:, :end])
            queries = merged(content_query)[:, start:end]
            merged(d_key)[:, :end].baddbmm_(by_key.transpose(1, 2), queries, alpha=scale)
            relative = distance_key[:, length - end :]
            d_distance[:, :, start:end] = torch.bmm(by_distance, relative).view(heads, rows, block, width)
            queries = distance_query[:, :, start:end].reshape(heads, rows * block, width)
            d_relative[:, length - end :].baddbmm_(by_distance.transpose(1, 2), queries, alpha=scale)
        return d_content.mul_(scale), d_distance.mul_(scale), d_key, d_value, d_relative, None


def _attend_blocked(
    content_query: Tensor,
    distance_query: Tensor,
    key: Tensor,
    value: Tensor,
    distance_key: Tensor,
    dropout: float,
    kept: list[Tensor] | None = None,
) -> Tensor:
    """The forward pass; appends each block's softmax to `kept`, with a minus sign where dropout struck."""
    heads, rows, length, width = key.shape
    scale = 1 / math.sqrt(width)
    content_query, keys, values = (x.view(heads * rows, length, width) for x in (content_query, key, value))
    output = torch.empty_like(values)
    # Every block's scores pass through the same memory: fresh buffers of this size would be paged in each time.
    largest = heads * rows * min(QUERY_BLOCK, length)
    distance_scores, score_buffer = key.new_empty(largest * (length + 1)), key.new_empty(largest * length)
    for start, end in _blocks(length):
        block = end - start
        queries = distance_query[:, :, start:end].reshape(heads, rows * block, width)
        by_distance = distance_scores[: heads * rows * block * (end + 1)].view(heads, rows * block, end + 1)
        torch.bmm(queries, distance_key[:, length - end :].transpose(1, 2), out=by_distance)
        by_distance = shift_distances(by_distance.view(heads * rows, block, end + 1))
        queries = content_query[:, start:end]
        scores = score_buffer[: heads * rows * block * end].view(heads * rows, block, end)
        torch.baddbmm(by_distance, queries, keys[:, :end].transpose(1, 2), beta=scale, alpha=scale, out=scores)
        scores[:, :, start:].masked_fill_(future_mask(block, key.device), -math.inf)
        weights = _softmax(scores, scores if kept is None and not dropout else None)
        if dropout:
            sign = torch.empty_like(weights)
            torch.add(random_bits(weights.shape).to(weights.device), 0.5 - keep_limit(dropout), out=sign)
            marked = torch.copysign(weights, sign, out=sign).to(value.dtype)
            weights = torch.clamp_min(marked, 0)
        else:
            marked = weights = weights.to(value.dtype)
        if kept is not None:
            kept.append(marked)
        output[:, start:end] = torch.bmm(weights, values[:, :end])
    if dropout:
        output.mul_(1 / kept_share(dropout))
    return output.view(heads, rows, length, width)


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + QUERY_BLOCK, length)) for start in range(0, length, QUERY_BLOCK)]


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _softmax(scores: Tensor, out: Tensor | None = None) -> Tensor:
    if out is not None and scores.dtype == _wide(scores):
        return torch.softmax(scores, dim=-1, out=out)
    return torch.softmax(scores, dim=-1, dtype=_wide(scores))


class RelativeAttention(nn.Module):
    """Multi-head attention with the projections of q, k, v, of the distances, and of the output."""

    def __init__(self, width: int, heads: int, attention_dropout: float, backend: str = "auto") -> None:
        super().__init__()
        choose_backend(backend, torch.device("cpu"))
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.backend = backend
        self.query_key_value = nn.Linear(width, 3 * width)
        self.distance = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def project(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of each head: (B, L, D) -> three times (H, B, L, d)."""
        rows, length, _ = hidden.shape
        split = self.query_key_value(hidden).view(rows, length, 3, self.heads, -1).permute(2, 3, 0, 1, 4)
        query, key, value = split.contiguous().unbind(0)
        return query, key, value

    def project_distances(self, sinusoids: Tensor) -> Tensor:
        """The distances' keys of each head: (N, D) -> (H, N, d)."""
        return self.distance(sinusoids).view(sinusoids.shape[0], self.heads, -1).transpose(0, 1)  # type: ignore[no-any-return]

    def forward(self, hidden: Tensor, sinusoids: Tensor, content_bias: Tensor, distance_bias: Tensor) -> Tensor:
        """(B, L, D), (L + 1, D) in the order of `distance_sinusoids`, two biases (H, d) -> (B, L, D)."""
        return self.attend_all(*self.project(hidden), sinusoids, content_bias, distance_bias)

    def attend_all(
        self, query: Tensor, key: Tensor, value: Tensor, sinusoids: Tensor, content_bias: Tensor, distance_bias: Tensor
    ) -> Tensor:
        """What `forward` does after `project`."""
        _, rows, length, _ = query.shape
        attended = attend(
            query + content_bias.to(query.dtype)[:, None, None],
            query + distance_bias.to(query.dtype)[:, None, None],
            key,
            value,
            self.project_distances(sinusoids),
            self.attention_dropout if self.training else 0.0,
            choose_backend(self.backend, query.device),
        )
        return self.output(attended.permute(1, 2, 0, 3).reshape(rows, length, -1))  # type: ignore[no-any-return]
