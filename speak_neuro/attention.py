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
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AttentionBackend = Literal["auto", "blocked", "sdpa", "plain"]
ATTENTION_BACKENDS: tuple[str, ...] = get_args(AttentionBackend)

_QUERY_BLOCK = 128


@functools.lru_cache(maxsize=8)
def _sinusoid_table(length: int, width: int, device: torch.device) -> Tensor:
    distance = torch.arange(length - 1, -2, -1, dtype=torch.float64)
    frequency = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = distance.unsqueeze(1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1).to(torch.float32).to(device)


@functools.lru_cache(maxsize=8)
def _future_table(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


def _table_length(length: int) -> int:
    """The next power of two: segment counts change with every batch, and each would need a table of its own."""
    return 1 << (length - 1).bit_length()


def distance_sinusoids(length: int, width: int, device: torch.device) -> Tensor:
    """(length + 1, width): the sinusoids of the distances length - 1, ..., 1, 0, -1, in this order.

        [sin(distance f_0), sin(distance f_1), ... | cos(distance f_0), ...],   f_n = 10000^(-2n / width)

    Distance -1 is never attended to; its row makes room for `shift_distances`. The table is computed in float64 and
    rounded to float32, whatever autocast says: bfloat16 cannot count past 256.
    """
    with torch.inference_mode(False):  # a cached inference tensor would break every later training step
        return _sinusoid_table(_table_length(length), width, device)[-length - 1 :]


def future_mask(length: int, device: torch.device) -> Tensor:
    """(length, length) bool, true where the key comes after the query."""
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
        return _attend_blocked(content_query, distance_query, key, value, distance_key, dropout)
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


def _attend_blocked(
    content_query: Tensor, distance_query: Tensor, key: Tensor, value: Tensor, distance_key: Tensor, dropout: float
) -> Tensor:
    heads, rows, length, width = key.shape
    scale = 1 / math.sqrt(width)
    key, value, content_query = (x.reshape(heads * rows, length, width) for x in (key, value, content_query))
    outputs = [value[:, :0]]
    for start in range(0, length, _QUERY_BLOCK):
        end = min(start + _QUERY_BLOCK, length)
        block = end - start
        queries = distance_query[:, :, start:end].reshape(heads, rows * block, width)
        by_distance = queries @ distance_key[:, length - end :].transpose(1, 2)
        by_distance = shift_distances(by_distance.view(heads * rows, block, end + 1))
        scores = torch.baddbmm(
            by_distance, content_query[:, start:end], key[:, :end].transpose(1, 2), beta=scale, alpha=scale
        )
        scores[:, :, start:].masked_fill_(future_mask(block, key.device), -math.inf)
        weights = F.dropout(_softmax(scores), dropout)
        outputs.append(weights.to(value.dtype) @ value[:, :end])
    return torch.cat(outputs, dim=1).view(heads, rows, length, width)


def _softmax(scores: Tensor) -> Tensor:
    return torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))


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

    def forward(self, hidden: Tensor, sinusoids: Tensor, content_bias: Tensor, distance_bias: Tensor) -> Tensor:
        """(B, L, D), (L + 1, D) in the order of `distance_sinusoids`, two biases (H, d) -> (B, L, D)."""
        rows, length, width = hidden.shape
        split = self.query_key_value(hidden).view(rows, length, 3, self.heads, -1).permute(2, 3, 0, 1, 4)
        query, key, value = split.unbind(0)
        distance_key = self.distance(sinusoids).view(length + 1, self.heads, -1).transpose(0, 1)
        attended = attend(
            query + content_bias.to(query.dtype)[:, None, None],
            query + distance_bias.to(query.dtype)[:, None, None],
            key,
            value,
            distance_key,
            self.attention_dropout if self.training else 0.0,
            choose_backend(self.backend, hidden.device),
        )
        return self.output(attended.permute(1, 2, 0, 3).reshape(rows, length, width))  # type: ignore[no-any-return]
