"""L_mem and L_reset against Eq. 12 and 14 written out, and what their gradients must not do."""

import math

import numpy as np
import pytest
import torch

from speak_neuro.supervision.losses import (
    REST_MARGIN,
    Mixes,
    contextual,
    current_loss,
    information_targets,
    membrane_loss,
    membrane_targets,
    rate_hinge,
    reset_loss,
    rise,
    spike_loss,
)


def test_targets_by_hand() -> None:
    current = torch.tensor([[0.5, -3.0, 0.5, 2.0]])
    proxy = torch.tensor([[True, True, False, False]])
    targets = membrane_targets(current, proxy, 0.5, 0.25)
    # fire: 0.5 * max(1, 1 + 0.5) + 0.5 = 1.25;   0.5 * max(1, 1 - 3) + 0.5 = 1
    # rest: 0.25 * min(1 - eps, 0.5) = 0.125;      0.25 * min(1 - eps, 2) = 0.25 * (1 - eps)
    torch.testing.assert_close(targets, torch.tensor([[1.25, 1.0, 0.125, 0.25 * (1 - REST_MARGIN)]]), rtol=0, atol=0)


def test_targets_with_leak_gain_and_reset_potential() -> None:
    targets = membrane_targets(
        torch.tensor([[1.0, 1.0]]),
        torch.tensor([[True, False]]),
        1.0,
        0.5,
        decay=0.5,
        gain=2.0,
        threshold=2.0,
        reset_potential=-1.0,
    )
    # fire: max(2, 0.5 * 2 + 2) = 3;  rest: 0.5 * min(2 - eps, -0.5 + 2) + 0.5 * -1 = 0.25
    assert targets.tolist() == [[3.0, 0.25]]


def test_margin_survives_float32() -> None:
    assert torch.tensor(1.0) - REST_MARGIN < 1.0
    assert torch.tensor(1.0) - 1e-8 == 1.0  # the paper's value would not


def test_the_target_is_detached_from_the_current_but_not_from_the_mixes() -> None:
    current = torch.tensor([[0.5, 0.5]], requires_grad=True)
    mixes = Mixes(0.5, 0.5)
    proxy = torch.tensor([[True, False]])
    targets = membrane_targets(current, proxy, mixes.fire_mix, mixes.rest_mix)
    targets.sum().backward()
    assert current.grad is None
    assert mixes.fire_mix.grad == 0.5  # d/da of a * 1.5 + (1 - a)
    assert mixes.rest_mix.grad == 0.5


def test_mean_over_real_positions() -> None:
    membrane, targets = torch.tensor([[1.0, 2.0, 9.0]]), torch.zeros(1, 3)
    proxy = torch.tensor([[True, False, True]])
    assert membrane_loss(membrane, targets, proxy) == pytest.approx((1 + 4 + 81) / 3)
    valid = torch.tensor([[True, True, False]])
    assert membrane_loss(membrane, targets, proxy, valid) == pytest.approx(5 / 2)
    assert membrane_loss(membrane, targets, proxy, valid, rest_term=False) == pytest.approx(1 / 2)
    assert membrane_loss(membrane, targets, proxy, valid, rest_weight=0.25) == pytest.approx((1 + 0.25 * 4) / 2)
    nothing = membrane_loss(membrane, targets, proxy, rest_weight=0.0)
    assert nothing == membrane_loss(membrane, targets, proxy, rest_term=False)


def test_padding_cannot_poison_the_gradient() -> None:
    membrane = torch.tensor([[1.0, float("inf")]], requires_grad=True)
    loss = membrane_loss(membrane, torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([[True, False]]))
    loss.backward()
    assert membrane.grad.tolist() == [[2.0, 0.0]]


def test_mixes_are_projected_when_learned_and_left_alone_when_constant() -> None:
    learned = Mixes(1.0, 0.5)
    with torch.no_grad():
        learned.fire_mix.fill_(1.7)
        learned.rest_mix.fill_(-0.1)
    learned.project()
    assert (learned.fire_mix.item(), learned.rest_mix.item()) == (1.0, 0.0)
    constant = Mixes(1.2, 0.6, learned=False)
    constant.project()
    assert (constant.fire_mix.item(), constant.rest_mix.item()) == (pytest.approx(1.2), pytest.approx(0.6))
    assert not any(p.requires_grad for p in constant.parameters())


def test_reset_loss_by_hand() -> None:
    logit = torch.tensor([[0.0, 0.0, math.log(3.0)]])
    target = torch.tensor([[1.0, 0.0, 0.0]])
    spikes = torch.tensor([[1.0, 0.0, 1.0]])
    ln2, ln4 = math.log(2), math.log(4)
    assert float(reset_loss(logit, target, spikes)) == pytest.approx((2 * ln2 + ln4) / 3)
    assert float(reset_loss(logit, target, spikes, on="spikes")) == pytest.approx((ln2 + ln4) / 2)
    assert float(reset_loss(logit, target, spikes, positive_weight=3.0)) == pytest.approx((4 * ln2 + ln4) / 3)
    valid = torch.tensor([[True, False, False]])
    assert float(reset_loss(logit, target, spikes, valid=valid)) == pytest.approx(ln2)
    assert float(reset_loss(logit, target, torch.zeros(1, 3), on="spikes")) == 0.0


def test_rate_hinge_acts_above_its_limit_only() -> None:
    spikes = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert float(rate_hinge(spikes, 0.2)) == pytest.approx(0.05)
    assert float(rate_hinge(spikes, 0.3)) == 0.0


def test_spike_loss_by_hand() -> None:
    membrane, proxy = torch.tensor([[1.5, 0.5]]), torch.tensor([[True, False]])
    expected = (math.log1p(math.exp(-4 * 0.5 - 1)) + math.log1p(math.exp(-4 * 0.5 + 1))) / 2
    assert spike_loss(membrane, proxy, price=1.0) == pytest.approx(expected)


def test_a_rise_is_over_the_character_before_and_none_at_first() -> None:
    entropy = torch.rand(3, 9)
    expected = np.diff(entropy.numpy(), axis=1)
    assert np.array_equal(rise(entropy)[:, 1:].numpy(), expected)
    assert (rise(entropy)[:, 0] == 0).all()


def test_the_drive_carries_the_neuron_over_the_threshold_at_contextual_boundaries() -> None:
    entropy = torch.tensor([[0.5, 2.0, 0.0, 2.0], [1.0, 0.5, 0.1, 0.2]])
    opens = contextual(entropy, 0.25)
    assert opens.tolist() == [[False, True, False, True], [False] * 4]
    assert contextual(entropy, 1 / 8).sum() == 1  # of two that are equal the earlier one
    assert contextual(entropy, 1 / 8)[0, 1]
    targets = information_targets(entropy, opens, 0.25, threshold=2.0)
    torch.testing.assert_close(targets, torch.tensor([[0.125, 2.5, 0.0, 2.5], [0.25, 0.125, 0.025, 0.05]]))
    current = torch.zeros(2, 4, requires_grad=True)
    targets.requires_grad_()
    current_loss(current, targets).backward()
    torch.testing.assert_close(current.grad, -2 * targets.detach() / 8)
    assert targets.grad is None
