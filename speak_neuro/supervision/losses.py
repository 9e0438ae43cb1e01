"""The tokenizer's losses (paper Eq. 12, 14). Each is a mean over real positions; shapes (B, L).

    L_mem    = mean (u_t - target_t)^2
    target_t = fire_mix * max(th, decay*th + gain*I_t) + (1 - fire_mix) * th              where the proxy spikes
             = rest_mix * min(th - eps, decay*reset + gain*I_t) + (1 - rest_mix) * reset  elsewhere
    L_reset  = mean binary cross-entropy of the gate logit e_t and its target
    L_spike  = mean binary cross-entropy of slope * (u_t - threshold) + price and the proxy's spikes
    L_info   = mean (I_t - target_t)^2,   target_t = nats_gain * H_t + [H_t among the highest of the batch] * threshold

The current inside a target of L_mem is detached: a target that moved with the current would make silence the best
answer. L_mem regresses the potential, so that a neuron without memory fires only where the proxy spikes with a
probability above (1 - rest_mix) / (fire_mix * decay + 1 - rest_mix); L_spike is calibrated, it fires above one half
(docs/equations.md has the figure). L_info is the information drive: the neuron integrates the language model's own
uncertainty H about the next character and ends a token when it holds enough of it, or where H itself stands out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

REST_MARGIN = 2.0**-12
"""eps. The paper's 1e-8 vanishes in float32: 1 - 1e-8 == 1, and a resting target on the threshold fires."""


class Mixes(nn.Module):
    """alpha and beta of Eq. 14, learned or constant.

    Learned, they are kept where the loss is sound: fire_mix in [0, 1] (above 1 a detached target runs away from the
    potential that chases it) and rest_mix in [0, 0.99] (a resting target below the threshold).
    """

    def __init__(self, fire_mix: float = 1.0, rest_mix: float = 0.5, learned: bool = True) -> None:
        super().__init__()
        self.fire_mix = nn.Parameter(torch.tensor(float(fire_mix)), requires_grad=learned)
        self.rest_mix = nn.Parameter(torch.tensor(float(rest_mix)), requires_grad=learned)

    @torch.no_grad()
    def project(self) -> None:
        """Bring learned mixes back into their range; called after every optimiser step."""
        if self.fire_mix.requires_grad:
            self.fire_mix.clamp_(0.0, 1.0)
            self.rest_mix.clamp_(0.0, 0.99)


def membrane_targets(
    current: Tensor,
    proxy: Tensor,
    fire_mix: Tensor | float,
    rest_mix: Tensor | float,
    *,
    decay: float | Tensor = 1.0,
    gain: float | Tensor = 1.0,
    threshold: float | Tensor = 1.0,
    reset_potential: float | Tensor = 0.0,
) -> Tensor:
    """The potential each position should have (Eq. 14); the current is detached."""
    drive = gain * current.detach()
    fire = fire_mix * (decay * threshold + drive).clamp(min=threshold) + (1 - fire_mix) * threshold
    rest = (
        rest_mix * (decay * reset_potential + drive).clamp(max=threshold - REST_MARGIN)
        + (1 - rest_mix) * reset_potential
    )
    return torch.where(proxy.bool(), fire, rest)


def membrane_loss(
    membrane: Tensor,
    targets: Tensor,
    proxy: Tensor,
    valid: Tensor | None = None,
    rest_term: bool = True,
    rest_weight: float = 1.0,
) -> Tensor:
    """L_mem. Without `rest_term` only positions with a proxy spike count, in the sum; the divisor stays the same.

    `rest_weight` multiplies the terms of the other positions; below 1 the neuron fires more readily.
    """
    counted = torch.ones_like(membrane, dtype=torch.bool) if valid is None else valid.bool()
    positions = counted.sum().clamp(min=1)
    if not rest_term:
        counted = counted & proxy.bool()
    # Selected before squaring: what stands in the padding, be it infinite, has no gradient.
    error = torch.where(counted, membrane - targets, torch.zeros_like(membrane))
    squared = error**2
    if rest_weight != 1:
        squared = torch.where(proxy.bool(), squared, rest_weight * squared)
    return squared.sum() / positions


def spike_loss(
    membrane: Tensor,
    proxy: Tensor,
    threshold: float | Tensor = 1.0,
    slope: float = 4.0,
    price: float | Tensor = 0.0,
    valid: Tensor | None = None,
) -> Tensor:
    """L_spike, in nats: the potential as the logit of a spike. A `price` above 0 makes the neuron fire less, it then
    spikes where the proxy does with a probability above sigmoid(price). `valid` is False at what does not count."""
    logit = slope * (membrane - threshold) + price
    target = proxy.to(membrane.dtype)
    if valid is None:
        return nn.functional.binary_cross_entropy_with_logits(logit, target, reduction="none").mean()
    # Selected before the loss: what stands in the padding, be it infinite, has no gradient.
    logit = torch.where(valid, logit, torch.zeros_like(logit))
    loss = nn.functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    return torch.where(valid, loss, torch.zeros_like(loss)).sum() / valid.sum().clamp(min=1)


def contextual(entropy: Tensor, share: float) -> Tensor:
    """The round(share * B * L) positions of highest entropy of a batch (B, L); the earlier ones where equal."""
    flat = entropy.flatten()
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[torch.sort(flat, descending=True, stable=True).indices[: round(share * flat.numel())]] = True
    return chosen.view_as(entropy)


def rise(entropy: Tensor) -> Tensor:
    """H_t - H_{t-1}, 0 at the first position: how much more open the text is than a character before. (B, L)."""
    return torch.diff(entropy, dim=1, prepend=entropy[:, :1])


def information_targets(
    entropy: Tensor, opens: Tensor, nats_gain: float | Tensor, threshold: float | Tensor = 1.0
) -> Tensor:
    """The current that each position should have: its information, and what lifts any potential over the threshold
    where a contextual boundary is. (B, L), (B, L) -> (B, L)."""
    return nats_gain * entropy + threshold * opens.to(entropy.dtype)


def current_loss(current: Tensor, targets: Tensor) -> Tensor:
    """L_info."""
    return nn.functional.mse_loss(current, targets.detach())


def reset_loss(
    gate_logit: Tensor,
    targets: Tensor,
    spikes: Tensor,
    *,
    on: str = "all",
    positive_weight: float = 1.0,
    valid: Tensor | None = None,
) -> Tensor:
    """L_reset, in nats, over all real positions or over the spikes alone; 0 when there is no such position."""
    loss = nn.functional.binary_cross_entropy_with_logits(
        gate_logit, targets, reduction="none", pos_weight=torch.tensor(positive_weight, device=gate_logit.device)
    )
    if on == "spikes":
        counted = spikes.to(loss.dtype)
    elif on == "all":
        counted = torch.ones_like(loss)
    else:
        raise ValueError(f"reset_loss_on is {on!r}; allowed: all, spikes")
    if valid is not None:
        counted = counted * valid.to(loss.dtype)
    return (loss * counted).sum() / counted.sum().clamp(min=1)


def rate_hinge(spikes: Tensor, limit: float) -> Tensor:
    """Optional anchor of SF: mean spike rate above `limit`; its gradient lowers the currents through the surrogate."""
    return (spikes.mean() - limit).clamp(min=0)
