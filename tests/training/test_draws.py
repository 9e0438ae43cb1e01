"""The random numbers of a step."""

from __future__ import annotations

import torch

from speak_neuro.config import TrainingConfig
from speak_neuro.training.draws import seed_dropout, seed_of, uniform_draws


def test_seeds_are_distinct_and_fit_torch() -> None:
    seeds = {
        seed_of(seed, step, kind, rank) for seed in (0, 1) for step in range(50) for kind in (2, 3) for rank in (0, 1)
    }
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_dropout_repeats_with_step_and_rank() -> None:
    def draw(*numbers: int) -> list[float]:
        seed_dropout(*numbers)
        return torch.rand(4).tolist()

    assert draw(7, 3, 1) == draw(7, 3, 1)
    assert len({tuple(draw(*numbers)) for numbers in ((7, 3, 1), (7, 3, 0), (7, 4, 1), (8, 3, 1))}) == 4


def test_boundary_draws_belong_to_the_batch() -> None:
    """They neither read nor move torch's own generator."""
    config = TrainingConfig(batch=4, window=16, seed=5)
    torch.manual_seed(0)
    first = uniform_draws(config, 9, torch.device("cpu"))
    following = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(uniform_draws(config, 9, torch.device("cpu")), first)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), following)
    assert first.shape == (4, 16)
    assert not torch.equal(uniform_draws(config, 10, torch.device("cpu")), first)
    assert float(first.min()) >= 0
    assert float(first.max()) < 1
