"""Networks that tests export, read back and verify: built and seeded here, not trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import snntorch
import torch
from torch import Tensor, nn

from speak_neuro.neuron.module import GatedLeaky, GatedLeakyCell

ZERO: dict[str, Any] = {"reset_mechanism": "zero", "reset_delay": False}


class Keywords(nn.Module):
    """Linear -> gated neurons -> Linear -> Leaky -> Linear, with current and gate from a Linear each."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.current, self.gate = nn.Linear(16, width), nn.Linear(16, width)
        self.lif1 = GatedLeakyCell(width, decay=0.9, learn_gate="straight-through")
        self.fc2 = nn.Linear(width, width)
        self.lif2 = snntorch.Leaky(beta=0.9, **ZERO)
        self.fc3 = nn.Linear(width, 4)

    def forward(self, x: Tensor, mem1: Any = None, mem2: Any = None) -> Any:
        spk, mem1 = self.lif1(self.current(x), mem1, self.gate(x))
        spk, mem2 = self.lif2(self.fc2(spk), mem2)
        return self.fc3(spk), mem1, mem2


def convolutional() -> nn.Module:
    """Conv2d with lanes -> gated neurons -> pool -> Conv2d -> Leaky -> Flatten -> Linear -> hard gated neurons."""
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        GatedLeakyCell(4, decay=0.85, init_hidden=True, learn_gate="straight-through"),
        nn.AvgPool2d(2),
        nn.Dropout(0.2),
        nn.Conv2d(4, 6, 3, stride=2, groups=2),
        snntorch.Leaky(beta=0.8, init_hidden=True, **ZERO),
        nn.Flatten(),
        nn.Linear(6, 5),
        GatedLeakyCell(5, decay=0.9, mode="hard", init_hidden=True),
    )


def whole() -> nn.Module:
    """Layers that take whole sequences."""
    return nn.Sequential(
        nn.Linear(6, 20),
        GatedLeaky(10, decay=0.9, learn_gate="straight-through", output="spikes"),
        nn.Linear(10, 3),
        GatedLeaky(3, mode="soft", output="spikes"),
    )


class Recurrent(nn.Module):
    """RLeaky and Synaptic, with a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 12)
        self.lif1 = snntorch.RLeaky(beta=0.9, linear_features=12, **ZERO)
        self.fc2, self.skip = nn.Linear(12, 8), nn.Linear(6, 8, bias=False)
        self.lif2 = snntorch.Synaptic(alpha=0.7, beta=0.85, **ZERO)

    def forward(self, x: Tensor, spk: Any = None, mem1: Any = None, syn: Any = None, mem2: Any = None) -> Any:
        spk, mem1 = self.lif1(self.fc1(x), spk, mem1)
        out, syn, mem2 = self.lif2(self.fc2(spk) + self.skip(x), syn, mem2)
        return out, spk, mem1, syn, mem2


class Explicit(nn.Module):
    """A recurrent connection spelt out: the spikes come out and go in again."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.back = nn.Linear(6, 10), nn.Linear(10, 10, bias=False)
        self.lif = GatedLeakyCell(10, decay=0.9, mode="soft")
        self.out = nn.Linear(10, 3)

    def forward(self, x: Tensor, spk: Any = None, mem: Any = None) -> Any:
        if spk is None:
            spk = torch.zeros(len(x), 10)
        spk, mem = self.lif(self.fc(x) + self.back(spk), mem)
        return self.out(spk), spk, mem


class RecurrentSynaptic(nn.Module):
    """What snnTorch's RSynaptic is meant to be, spelt out with the Synaptic that can reset at once."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.back = nn.Linear(6, 10), nn.Linear(10, 10, bias=False)
        self.lif = snntorch.Synaptic(alpha=0.6, beta=0.85, **ZERO)
        self.out = nn.Linear(10, 3)

    def forward(self, x: Tensor, spk: Any = None, syn: Any = None, mem: Any = None) -> Any:
        if spk is None:
            spk = torch.zeros(len(x), 10)
        spk, syn, mem = self.lif(self.fc(x) + self.back(spk), syn, mem)
        return self.out(spk), spk, syn, mem


def sample(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32))


def seeded(make: Any, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module: nn.Module = make()
    return module


CASES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "keywords": (Keywords, (6, 40, 16)),
    "convolutional": (convolutional, (3, 25, 2, 9, 9)),
    "whole": (whole, (4, 30, 6)),
    "recurrent": (Recurrent, (4, 30, 6)),
    "explicit": (Explicit, (4, 30, 6)),
    "synaptic": (RecurrentSynaptic, (4, 30, 6)),
}


def case(name: str) -> tuple[nn.Module, Tensor]:
    make, shape = CASES[name]
    return seeded(make), sample(*shape)
