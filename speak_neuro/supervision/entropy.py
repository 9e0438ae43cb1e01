"""Token entropy and the gate's targets (paper section 3.3, Eq. 12).

The language model's distribution at position t is that of character t+1. A spike at t closes a token and opens the
next, whose first character is t+1; so the entropy at t is that of the opened token's first character, known at the
moment the reset happens. Entropies are in nats. B batch, L positions, V alphabet.

    H_t = -sum_c p_t(c) ln p_t(c)

The first token of a row is opened by no spike and does not count. The unfinished last one counts, with the characters
of it that the row holds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ENTROPY_KINDS = ("first", "mean", "sum", "max")


def character_entropy(logits: Tensor) -> Tensor:
    """H_t in nats: (B, L, V) logits -> (B, L)."""
    log_probability = torch.log_softmax(logits.float(), dim=-1)
    return -(log_probability.exp() * log_probability).sum(-1)


def token_entropy(entropy: Tensor, spikes: Tensor, kind: str = "first") -> Tensor:
    """Entropy of the token that each spike opens: (B, L) character entropies and spikes -> (B, L).

    Its characters' entropies are those at positions t .. e-1, e the position of the next spike (or of the row's end).
    Positions without a spike hold -inf.
    """
    if kind not in ENTROPY_KINDS:
        raise ValueError(f"entropy is {kind!r}; allowed: {', '.join(ENTROPY_KINDS)}")
    fired = spikes.bool()
    if kind == "first":
        value = entropy
    else:
        rows, length = entropy.shape
        # Position t belongs to the token opened by the latest spike at or before t.
        opened = fired.long().cumsum(1)
        slots = opened + torch.arange(rows, device=entropy.device)[:, None] * (length + 1)
        flat = torch.zeros(rows * (length + 1), dtype=entropy.dtype, device=entropy.device)
        if kind == "max":
            pooled = flat.scatter_reduce(0, slots.flatten(), entropy.flatten(), "amax", include_self=False)
        else:
            pooled = flat.index_add(0, slots.flatten(), entropy.flatten())
            if kind == "mean":
                count = torch.zeros_like(flat).index_add(0, slots.flatten(), torch.ones_like(entropy).flatten())
                pooled = pooled / count.clamp(min=1)
        value = pooled[slots]
    return torch.where(fired, value, torch.full_like(value, -math.inf))


def reset_targets(entropy: Tensor, spikes: Tensor, share: float = 0.2, kind: str = "first") -> Tensor:
    """Targets of the gate: 1 at the spikes that open the ceil(share * n) of the batch's n tokens of highest entropy.

    Ties at the border go to the earlier position, so exactly that many are chosen. (B, L), (B, L) -> (B, L) float32.
    """
    value = token_entropy(entropy, spikes, kind).flatten()
    targets = torch.zeros_like(value, dtype=torch.float32)
    opened = int(spikes.bool().sum())
    # 0.2 * 15 is 3.0000000000000004 in binary: the quotient is rounded before the ceiling.
    chosen = math.ceil(round(share * opened, 9))
    if chosen:
        order = torch.sort(value, descending=True, stable=True).indices[:chosen]
        targets[order] = 1.0
    return targets.view_as(entropy)
