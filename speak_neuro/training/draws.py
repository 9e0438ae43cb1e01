"""The random numbers of a training step, each a function of the seed and the step: a resume needs no saved state.

The kinds of draws are numbered, so that no two share a stream; acceptance (training.trainer) has streams of its own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from speak_neuro.config import TrainingConfig

DROPOUT, BOUNDARIES = 2, 3


def seed_of(*numbers: int) -> int:
    """A seed for torch, different for different numbers."""
    high, low = np.random.SeedSequence(numbers).generate_state(2)
    return (int(high) << 32 | int(low)) & ((1 << 63) - 1)


def seed_dropout(seed: int, step: int, rank: int = 0) -> None:
    """Set torch's generators for a step. Its masks belong to the rows that a process has, so each rank has its own."""
    torch.manual_seed(seed_of(seed, step, DROPOUT, rank))


def uniform_draws(config: TrainingConfig, step: int, device: torch.device) -> Tensor:
    """Draws from [0, 1) for sampled boundaries, a number for each position of the step's batch: (B, L) float32."""
    generator = torch.Generator(device).manual_seed(seed_of(config.seed, step, BOUNDARIES))
    return torch.rand(config.batch, config.window, generator=generator, device=device)
