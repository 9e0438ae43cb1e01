"""The number that moves a system's rate of boundaries while it trains towards a target shortening factor.

    price    speak, spike loss: a spike pays where the proxy spikes with a probability above sigmoid(value)
    nats     speak, information: a token holds about exp(-value) nats, the current is exp(value) thresholds a nat
    odds     dtp-gumbel, magnet: added to the log-odds of each prior

`training.rate` moves it after each step; it is saved with the weights, so that a resumed run goes on with it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from speak_neuro.config import SYSTEMS, RunConfig

Kind = Literal["price", "nats", "odds"]
NATS_PER_TOKEN = 5.0
"""Where the information drive begins: English has about 1.3 nats a character, of which a token of four holds five."""


class Knob(nn.Module):
    """`value` moves; `target` is the shortening factor wanted."""

    value: Tensor

    def __init__(self, kind: Kind, target: float) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.target = target
        start = -math.log(NATS_PER_TOKEN) if kind == "nats" else 0.0
        self.register_buffer("value", torch.tensor(start))

    def priors(self, priors: Tensor) -> Tensor:
        """Priors with the knob's value added to their log-odds."""
        return torch.sigmoid(torch.logit(priors) + self.value)


def build_knob(config: RunConfig) -> Knob | None:
    """The knob of a configuration with a target; None where there is no target, or no knob that training moves."""
    target = config.training.target_sf
    kind = SYSTEMS.load(config.tokenizer.kind).knob(config) if target else None
    return None if kind is None else Knob(kind, target)
