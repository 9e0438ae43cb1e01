"""Dropout from 16-bit draws: exact probability, scaling, gradient, reproducibility."""

from __future__ import annotations

import pytest
import torch

from speak_neuro.model.dropout import Dropout, drop, dropped_states, keep_limit, kept_share, random_bits


def test_bits_are_uniform_in_every_lane():
    torch.manual_seed(0)
    bits = random_bits((4 * 250_000,)).view(-1, 4).long()
    for lane in bits.unbind(1):
        values = lane + 32768
        assert values.min() < 5
        assert values.max() > 65530
        sixteenths = torch.bincount(values // 4096, minlength=16) / len(values)
        assert (sixteenths - 1 / 16).abs().max() < 0.003
        sixteenths = torch.bincount(values % 16, minlength=16) / len(values)
        assert (sixteenths - 1 / 16).abs().max() < 0.003
    correlation = torch.corrcoef(bits.T.double()) - torch.eye(4, dtype=torch.float64)
    assert correlation.abs().max() < 0.01


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,), (5, 3), (0,), (2, 0)])
def test_bits_have_any_shape(shape):
    assert random_bits(shape).shape == shape


def test_the_probability_is_rounded_to_16_bits():
    assert dropped_states(0.1) == 6554
    assert kept_share(0.5) == 0.5
    assert dropped_states(1e-9) == 0
    assert dropped_states(0.9999999) == 65535
    every = torch.arange(-32768, 32768)
    for probability in (0.0, 0.1, 0.5, 0.999):
        assert (every < keep_limit(probability)).sum() == dropped_states(probability)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_are_dropped_or_scaled_and_so_is_the_gradient(dtype):
    torch.manual_seed(0)
    values = torch.ones(301, 333, dtype=dtype, requires_grad=True)
    dropped = drop(values, 0.25)
    assert dropped.dtype == dtype
    assert dropped.unique().tolist() == [0, torch.tensor(1 / 0.75, dtype=dtype).item()]
    assert (dropped == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
    (gradient,) = torch.autograd.grad(dropped.sum(), values)
    assert torch.equal(gradient, dropped)


def test_strided_values():
    values = torch.randn(6, 4, requires_grad=True)
    torch.manual_seed(3)
    dropped = drop(values.t(), 0.5)
    kept = dropped != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(dropped[kept], 2 * values.t()[kept])
    (gradient,) = torch.autograd.grad(dropped.sum(), values)
    torch.testing.assert_close(gradient, 2.0 * kept.t())


def test_evaluation_and_zero_probability_change_nothing():
    values = torch.randn(5)
    assert drop(values, 0.5, training=False) is values
    assert drop(values, 0.0) is values
    module = Dropout(0.5).eval()
    assert module(values) is values


def test_the_default_generator_decides():
    module = Dropout(0.5)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(module(torch.ones(100)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("probability", [-0.1, 1.0, float("nan")])
def test_impossible_probabilities_are_named(probability):
    with pytest.raises(ValueError, match=f"dropout is {probability}; allowed: a probability"):
        Dropout(probability)
