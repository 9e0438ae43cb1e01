"""Shortening: from positions to segments and back, causally (Dynamic Token Pooling's rule, the `closes` convention).

A boundary b_t = 1 says that position t is the last of its segment. With n the number of closed segments so far,

    segment(t) = sum_{u < t} b_u            the segment that position t belongs to (counted from 0)
    pooled_0   = null_group                 learned, read before the first boundary
    pooled_s+1 = mean of hidden_t over segment(t) = s
    read(t)    = sum_{u <= t} b_u           index into `pooled`: the last closed segment, including one t itself closes

so what position t reads depends on nothing after t. Example, hidden 1..7:

    b          0  0  1  0  1  0  0
    pooled     null, mean(1, 2, 3) = 2, mean(4, 5) = 4.5
    read       null, null, 2, 2, 4.5, 4.5, 4.5

Shapes: B rows, L positions, D features, S segments (the most boundaries of any row). Everything works by index; no
L x S matrix is built.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-9  # keeps empty slots at 0 / eps = 0; far below the smallest real count, 1


def is_boundary(boundaries: Tensor) -> Tensor:
    """Boundaries as bool (B, L). Floating-point boundaries hold 0 and 1 (a straight-through sample)."""
    return boundaries if boundaries.dtype == torch.bool else boundaries.detach() > 0.5


def count_slots(boundaries: Tensor, multiple: int = 1) -> int:
    """1 + S, S the most boundaries of any row, rounded up to a multiple. The one place that waits for the device."""
    most = int(is_boundary(boundaries).sum(1).max()) if len(boundaries) else 0
    return -(-(1 + most) // multiple) * multiple


def downsample(hidden: Tensor, boundaries: Tensor, null_group: Tensor, slots: int | None = None) -> Tensor:
    """Mean of each closed segment, after the null group: (B, L, D), (B, L), (D,) -> (B, 1 + S, D).

    Unfinished tails are dropped: no position ever reads them. Rows with fewer than S segments end in zero vectors,
    which no position reads either. Sums are taken in float32 or wider. `slots`, where the caller knows it, is 1 + S or
    more (`count_slots`).

    When `boundaries` is floating point and requires a gradient, the gradient reaches it through the weights of the
    means. With c_t = sum_{u < t} b_u, position t enters its segment with the weight 1 + (c_t - detach(c_t)), whose
    value is 1, hence

        d pooled_s+1 / d c_t = (hidden_t - pooled_s+1) / n_s          for segment(t) = s, otherwise 0

    which is the gradient of Dynamic Token Pooling's relaxed assignment. (Its un-pooling passes none: `upsample`.)
    """
    _check(hidden, boundaries)
    if null_group.shape != hidden.shape[2:]:
        raise ValueError(f"null_group has shape {tuple(null_group.shape)}; allowed: ({hidden.shape[2]},)")
    rows, _, width = hidden.shape
    closes = is_boundary(boundaries)
    read = closes.cumsum(1)
    counts = closes.sum(1)
    slots = count_slots(boundaries) if slots is None else slots

    # Slot 0 of each row collects the row's unfinished tail and is overwritten by the null group.
    segment = read - closes.to(read.dtype)
    slot = torch.where(segment < counts.unsqueeze(1), segment + 1, 0)
    index = (slot + _row_offsets(rows, slots, hidden.device)).flatten()

    wide = torch.promote_types(hidden.dtype, torch.float32)
    values = hidden.to(wide)
    if boundaries.is_floating_point() and boundaries.requires_grad:
        soft = boundaries.to(wide)
        before = soft.cumsum(1) - soft
        weight = 1 + (before - before.detach())
        values = values * weight.unsqueeze(2)
    else:
        weight = values.new_ones(closes.shape)
    total = values.new_zeros(rows * slots, width).index_add(0, index, values.reshape(-1, width))
    size = values.new_zeros(rows * slots).index_add(0, index, weight.flatten())
    mean = (total / (size + _EPSILON).unsqueeze(1)).view(rows, slots, width)
    return torch.cat([null_group.to(wide).expand(rows, 1, width), mean[:, 1:]], dim=1).to(hidden.dtype)


def upsample(pooled: Tensor, boundaries: Tensor) -> Tensor:
    """What each position reads: (B, 1 + S, D), (B, L) -> (B, L, D). No gradient goes to `boundaries`.

    `pooled` may have passed through any map that keeps the slots apart or mixes them causally.
    """
    _check(pooled, boundaries, lengths_match=False)
    rows, slots, width = pooled.shape
    read = is_boundary(boundaries).cumsum(1)
    index = (read + _row_offsets(rows, slots, pooled.device)).flatten()
    return pooled.reshape(-1, width).index_select(0, index).view(rows, -1, width)


def smooth(pooled: Tensor, boundaries: Tensor, confidence: Tensor) -> Tensor:
    """Each segment mixed with those before it, the more the less sure its end was (H-Net): (B, 1 + S, D) -> the same.

        z_0 = pooled_0,    z_s = P_s pooled_s + (1 - P_s) z_{s-1},    P_s the confidence (B, L) where segment s ended

    Written as one lower triangle of weights; (1 - P) is kept above 1e-4, as H-Net's code does, so that its logarithms
    are finite. Unlike `upsample` it passes a gradient to how sure a boundary is.
    """
    _check(pooled, boundaries, lengths_match=False)
    rows, slots, _ = pooled.shape
    closes = is_boundary(boundaries)
    slot = torch.where(closes, closes.cumsum(1), 0)
    chance = torch.where(closes, confidence.float(), torch.ones_like(confidence, dtype=torch.float32))
    ends = chance.new_ones(rows, slots).scatter(1, slot, chance).clamp(max=1 - 1e-4)
    first = torch.zeros(slots, dtype=torch.bool, device=pooled.device)
    first[0] = True
    ends = torch.where(first, torch.ones_like(ends), ends)
    kept = torch.where(first, torch.zeros_like(ends), (1 - ends).clamp(min=1e-4).log()).cumsum(1)
    weights = (kept.unsqueeze(2) - kept.unsqueeze(1)).tril().exp().tril() * ends.unsqueeze(1)
    return (weights @ pooled.float()).to(pooled.dtype)


def _row_offsets(rows: int, slots: int, device: torch.device) -> Tensor:
    return torch.arange(0, rows * slots, slots, device=device).unsqueeze(1)


def _check(hidden: Tensor, boundaries: Tensor, lengths_match: bool = True) -> None:
    if hidden.ndim != 3:
        raise ValueError(f"hidden has shape {tuple(hidden.shape)}; allowed: (B, L, D)")
    expected = hidden.shape[:2] if lengths_match else hidden.shape[:1]
    if boundaries.ndim != 2 or boundaries.shape[: len(expected)] != expected:
        allowed = f"({hidden.shape[0]}, {hidden.shape[1] if lengths_match else 'L'})"
        raise ValueError(f"boundaries has shape {tuple(boundaries.shape)}; allowed: {allowed}")
