"""hnet: its routing by hand, its ratio loss, and the language model's gradient through the un-pooling."""

from __future__ import annotations

import pytest
import torch

from speak_neuro.config import ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.systems.hnet import HNet, ratio_loss
from speak_neuro.systems.system import System

CONFIG = RunConfig(
    tokenizer=TokenizerConfig(kind="hnet"),
    model=ModelConfig(width=8, heads=2, inner=16, pre_layers=1, shortened_layers=1, post_layers=1, norm="post"),
    training=TrainingConfig(target_sf=4.0),
)


def test_a_boundary_is_where_neighbours_differ() -> None:
    hidden = torch.zeros(1, 4, 8)
    hidden[0, :, 0] = torch.tensor([1.0, 2.0, -1.0, 0.0])
    hidden[0, 3, 1] = 1.0
    segmenter = HNet(CONFIG)
    assert segmenter.route(hidden).tolist() == [[1.0, 0.0, 1.0, 0.5]]  # the first; alike; opposite; at right angles
    found = segmenter.segment(torch.zeros(1, 4, dtype=torch.long), hidden)
    assert found.boundaries.tolist() == [[True, False, True, False]]
    assert found.confidence is not None
    assert found.confidence.tolist() == [[1.0, 1.0, 1.0, 0.5]]


def test_the_ratio_loss_is_least_at_the_wanted_rate() -> None:
    for wanted in (2.0, 4.0):
        rates = torch.linspace(0.05, 0.95, 91)
        shares = [(torch.arange(1000) < round(float(rate) * 1000)) for rate in rates]
        losses = [float(ratio_loss(share, share.float(), wanted)) for share in shares]
        assert float(rates[int(torch.tensor(losses).argmin())]) == pytest.approx(1 / wanted, abs=0.02)
        assert min(losses) == pytest.approx(1.0, abs=1e-3)


def test_the_language_models_loss_reaches_the_routing_through_the_unpooling() -> None:
    torch.manual_seed(3)
    system = System(CONFIG, 20)
    ids = torch.randint(0, 20, (2, 40))
    hidden = system.language_model.pre(ids).detach()
    cut = system.segmenter.cut(ids, hidden, 0, None)
    with_gradient = system.language_model.decode(hidden, cut.boundaries, cut.confidence)
    with_gradient.logsumexp(-1).sum().backward()  # type: ignore[no-untyped-call]
    gradient = system.segmenter.query.weight.grad  # type: ignore[union-attr]
    assert gradient is not None
    assert gradient.abs().max() > 0
    # The factor of straight-through is exactly 1.
    plain = system.language_model.decode(hidden, cut.boundaries, cut.confidence.detach())  # type: ignore[union-attr]
    assert torch.equal(plain, with_gradient)
