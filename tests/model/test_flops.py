"""The estimate of FLOPs against torch's own count of the same model, and the parts of a step by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from speak_neuro.config import ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.model.flops import cumulative_flops, forward_flops, layer_flops, step_flops
from speak_neuro.model.hourglass import Hourglass, HourglassConfig

MODEL = ModelConfig(width=16, heads=2, inner=48, pre_layers=1, shortened_layers=3, post_layers=2)


def counted(model: Hourglass, ids: torch.Tensor, boundaries: torch.Tensor | None) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids, boundaries)
    return counter.get_total_flops()


@pytest.mark.parametrize(("rows", "length", "factor"), [(1, 24, 4), (3, 24, 2), (2, 7, 1)])
def test_equals_torch_s_count(rows: int, length: int, factor: int) -> None:
    config = HourglassConfig(vocabulary=11, **dataclasses.asdict(MODEL))
    model = Hourglass(config, "plain").eval()
    ids = torch.randint(0, 11, (rows, length))
    boundaries = (torch.arange(length) % factor == factor - 1).expand(rows, length)
    found = rows * sum(forward_flops(MODEL, 11, length, factor, rows=rows, square=True))
    assert found == pytest.approx(counted(model, ids, boundaries), rel=1e-12)


def test_vanilla_has_every_layer_on_characters() -> None:
    plain = dataclasses.replace(MODEL, pre_layers=6, shortened_layers=0, post_layers=0)
    model = Hourglass(HourglassConfig(vocabulary=11, **dataclasses.asdict(plain)), "plain").eval()
    found = sum(forward_flops(MODEL, 11, 20, 5.0, shortened=False, square=True))
    assert found == pytest.approx(counted(model, torch.zeros(1, 20, dtype=torch.long), None), rel=1e-12)


def test_causal_pairs() -> None:
    # Position i attends to i + 1 keys; three products of D multiplications and additions for each.
    pairs = sum(i + 1 for i in range(10))
    bare = layer_flops(10, 4, 8) - 10 * (8 * 16 + 4 * 4 * 8) - 2 * 16 * 11
    assert bare == pytest.approx(6 * 4 * pairs)


def test_step_by_hand() -> None:
    config = RunConfig(model=MODEL, training=TrainingConfig(batch=2, window=32))
    before, after = forward_flops(MODEL, 11, 32, 4.0, rows=2)
    trained = 3 * (before + after + 2 * 32 * 100)
    assert step_flops(config, 11, 100, 4.0) == pytest.approx(2 * (trained + after))
    dropout = dataclasses.replace(config, model=dataclasses.replace(MODEL, dropout=0.1))
    assert step_flops(dropout, 11, 100, 4.0) == pytest.approx(2 * (trained + before + 2 * after))
    for other in (
        dataclasses.replace(config, training=dataclasses.replace(config.training, drive="information")),
        dataclasses.replace(config, tokenizer=TokenizerConfig(kind="dtp-gumbel")),
    ):
        assert step_flops(other, 11, 100, 4.0) == pytest.approx(2 * trained), "no proxy is judged"
    vanilla = dataclasses.replace(config, tokenizer=TokenizerConfig(kind="vanilla"))
    whole = 3 * sum(forward_flops(MODEL, 11, 32, 4.0, rows=2, shortened=False))
    assert step_flops(vanilla, 11, 0, 1.0) == pytest.approx(2 * whole)
    seldom = dataclasses.replace(config, training=dataclasses.replace(config.training, acceptance_share=0.25))
    assert step_flops(seldom, 11, 100, 4.0) == pytest.approx(2 * (trained + 0.25 * after))


def test_longer_tokens_cost_less() -> None:
    costs = [step_flops(RunConfig(model=MODEL), 11, 0, factor) for factor in (1.0, 2.0, 4.0, 8.0)]
    assert costs == sorted(costs, reverse=True)


def test_cumulative() -> None:
    config = RunConfig(model=MODEL)
    one, two = (step_flops(config, 11, 50, factor) for factor in (2.0, 4.0))
    assert cumulative_flops(config, 11, 50, [10, 30], [2.0, 4.0]) == pytest.approx([10 * one, 10 * one + 20 * two])
    late = dataclasses.replace(config, training=dataclasses.replace(config.training, proxy_steps=15))
    bare = [step_flops(config, 11, 50, factor, 0.0) for factor in (2.0, 4.0)]
    expected = [10 * bare[0], 10 * bare[0] + 5 * bare[1] + 15 * two]
    assert cumulative_flops(late, 11, 50, [10, 30], [2.0, 4.0]) == pytest.approx(expected)
    # Where it is known how often SPEAK decided, that counts and no setting.
    quarter = step_flops(config, 11, 50, 4.0, 0.25)
    expected = [10 * bare[0], 10 * bare[0] + 20 * quarter]
    assert cumulative_flops(late, 11, 50, [10, 30], [2.0, 4.0], [0.0, 0.25]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="as many of both"):
        cumulative_flops(config, 11, 50, [1], [])
    with pytest.raises(ValueError, match="1 steps, 2 shares of decisions"):
        cumulative_flops(config, 11, 50, [1], [2.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="at least 1"):
        forward_flops(MODEL, 11, 8, 0.5)
