"""The boundary predictor of Dynamic Token Pooling (DTP) and MAGNET: boundaries sampled, trained by the language model.

    e_t = Linear(GELU(Linear(h_t)))                              logit of a boundary at t, h the model's pre-layers
    b~_t = sigmoid((e_t + log u_t - log(1 - u_t)) / temperature)      relaxed Bernoulli sample, u_t uniform
    b_t = [b~_t > 1/2], with the gradient of b~_t                straight-through
    L_prior = -ln Binomial(sum_t b_t; L, prior) / L, mean over rows

The boundaries go into `Hourglass.decode` as floating-point numbers that require a gradient; pooling carries it back
(`pooling.downsample`). The prior keeps their rate, since the language model alone would not. At evaluation b_t is
[e_t > 0], the likelier value; DTP itself samples there too (`sample=True`). B rows, L positions, D width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GumbelBoundaries(NamedTuple):
    """One pass of the predictor."""

    boundaries: Tensor
    """b, (B, L) float32, exactly 0 and 1; 1 closes the token whose last character is t."""
    logit: Tensor
    """e, (B, L)."""


class GumbelPredictor(nn.Module):
    """Boundaries from the language model's pre-layer states: (B, L, D) -> `GumbelBoundaries`."""

    def __init__(self, width: int, inner: int, temperature: float = 0.5) -> None:
        super().__init__()
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature is {temperature}; allowed: above 0, finite")
        self.temperature = temperature
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, 1)
        for layer in (self.expand, self.contract):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, sample: bool | None = None, uniform: Tensor | None = None) -> GumbelBoundaries:
        """`sample`: whether to draw (default: in training) or to take the likelier value of each boundary.

        `uniform` (B, L) holds u; by default it is drawn here.
        """
        logit = self.contract(F.gelu(self.expand(hidden))).squeeze(-1).float()
        if self.training if sample is None else sample:
            return GumbelBoundaries(sample_boundaries(logit, self.temperature, uniform), logit)
        return GumbelBoundaries((logit > 0).float(), logit)


def sample_boundaries(logit: Tensor, temperature: float, uniform: Tensor | None = None) -> Tensor:
    """b of the logits e, of the same shape: a sample of Bernoulli(sigmoid(e)) with the relaxed sample's gradient.

    `uniform` holds u, drawn from [0, 1), of the same shape; by default it is drawn here.
    """
    epsilon = torch.finfo(logit.dtype).eps
    if uniform is None:
        uniform = torch.rand_like(logit)
    uniform = uniform.clamp(epsilon, 1 - epsilon)
    # Kept off 0 and 1, where a relaxed sample's density is infinite.
    relaxed = torch.sigmoid((logit + uniform.log() - (-uniform).log1p()) / temperature).clamp(epsilon, 1 - epsilon)
    # The difference is exactly zero, so the sum is exactly 0 or 1; (hard - relaxed) + relaxed would round.
    return (relaxed > 0.5).to(logit.dtype) + (relaxed - relaxed.detach())


def binomial_prior_loss(boundaries: Tensor, prior: float | Tensor) -> Tensor:
    """L_prior of boundaries (B, L), in nats per position; its gradient reaches them through their sum.

    `prior`, the wanted share of boundaries, is a number or one per row (B,): MAGNET gives each script its own.
    """
    rate = torch.as_tensor(prior, dtype=boundaries.dtype, device=boundaries.device)
    if rate.dim() > 1 or rate.numel() not in (1, len(boundaries)):
        raise ValueError(f"prior has shape {tuple(rate.shape)}; allowed: a number or ({len(boundaries)},)")
    if isinstance(prior, (int, float)) and not 0 < prior < 1:
        raise ValueError(f"prior is {prior}; allowed: above 0 and below 1")
    total = boundaries.new_full((len(boundaries),), boundaries.shape[1])
    count = boundaries.sum(1)
    ways = torch.lgamma(total + 1) - torch.lgamma(count + 1) - torch.lgamma(total - count + 1)
    likelihood = ways + count * rate.log() + (total - count) * (-rate).log1p()
    return -(likelihood / total.clamp(min=1)).mean()
