"""Segment pooling: the hand example, the dense formula with both gradients, and properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speak_neuro.model import plain
from speak_neuro.model.pooling import downsample, is_boundary, smooth, upsample


def random_boundaries(rows: int, length: int, rate: float, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, length, generator=torch.Generator().manual_seed(seed)) < rate


def test_hand_example():
    hidden = torch.arange(1.0, 8.0).view(1, 7, 1)
    boundaries = torch.tensor([[0, 0, 1, 0, 1, 0, 0]], dtype=torch.bool)
    pooled = downsample(hidden, boundaries, torch.tensor([-9.0]))
    assert pooled.flatten().tolist() == [-9.0, 2.0, 4.5]
    assert upsample(pooled, boundaries).flatten().tolist() == [-9.0, -9.0, 2.0, 2.0, 4.5, 4.5, 4.5]


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3, 1.0])
def test_equals_the_dense_formula_with_its_gradients(rate):
    torch.manual_seed(1)
    hidden = torch.randn(3, 40, 5, dtype=torch.float64, requires_grad=True)
    null_group = torch.randn(5, dtype=torch.float64, requires_grad=True)
    hard = random_boundaries(3, 40, rate).double()
    results = []
    for down, up in ((downsample, upsample), (plain.plain_downsample, plain.plain_upsample)):
        # As a straight-through sample would: hard values, the gradient of a probability.
        soft = torch.full((3, 40), 0.4, dtype=torch.float64, requires_grad=True)
        boundaries = hard - soft.detach() + soft
        pooled = down(hidden, boundaries, null_group)
        shared = pooled[:, : 1 + int(hard.sum(1).max())]
        readable = torch.arange(shared.shape[1]) <= hard.sum(1, keepdim=True)
        read = up(pooled.tanh(), boundaries.detach())
        weight = torch.linspace(-1, 1, read.numel(), dtype=torch.float64).view_as(read)
        loss = (read * weight).sum() + pooled.square().mul(readable.unsqueeze(2)).sum()
        gradients = torch.autograd.grad(loss, (hidden, null_group, soft), allow_unused=True, materialize_grads=True)
        results.append((shared * readable.unsqueeze(2), read, *gradients))
    for ours, dense in zip(*results, strict=True):
        torch.testing.assert_close(ours, dense, rtol=0, atol=1e-8)
    if 0 < rate < 1:
        assert results[0][-1].abs().max() > 0.1


def test_gradients_by_finite_differences():
    boundaries = random_boundaries(2, 9, 0.3)
    hidden = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    null_group = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda h, n: upsample(downsample(h, boundaries, n).tanh(), boundaries), (hidden, null_group)
    )


def test_upsample_passes_no_gradient_to_boundaries():
    boundaries = torch.tensor([[0.0, 1.0, 0.0]], requires_grad=True)
    read = upsample(torch.randn(1, 2, 4, requires_grad=True), boundaries)
    assert torch.autograd.grad(read.sum(), boundaries, allow_unused=True) == (None,)


@settings(max_examples=60)
@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=4), st.integers(1, 3))
def test_each_position_reads_the_mean_of_the_last_closed_segment(rows, width):
    boundaries = torch.tensor(rows)
    hidden = torch.randn(len(rows), 7, width, dtype=torch.float64)
    null_group = torch.randn(width, dtype=torch.float64)
    pooled = downsample(hidden, boundaries, null_group)
    read = upsample(pooled, boundaries)
    assert pooled.shape == (len(rows), 1 + max(map(sum, rows)), width)
    for row, closes in enumerate(rows):
        expected, start, segments = null_group, 0, 0
        for position, closed in enumerate(closes):
            if closed:
                expected = hidden[row, start : position + 1].mean(0)
                start, segments = position + 1, segments + 1
                torch.testing.assert_close(pooled[row, segments], expected, rtol=0, atol=1e-8)
            torch.testing.assert_close(read[row, position], expected, rtol=0, atol=1e-8)
        assert not pooled[row, segments + 1 :].any()


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=2, max_size=20), st.data())
def test_the_future_is_not_read(closes, data):
    position = data.draw(st.integers(0, len(closes) - 2))
    later = data.draw(st.lists(st.booleans(), min_size=len(closes), max_size=len(closes)))
    changed = closes[: position + 1] + later[position + 1 :]
    hidden = torch.randn(1, len(closes), 2)
    other = hidden.clone()
    other[:, position + 1 :] += 1
    null_group = torch.randn(2)
    reads = [
        upsample(downsample(h, torch.tensor([b]), null_group), torch.tensor([b]))
        for h, b in ((hidden, closes), (other, changed))
    ]
    assert torch.equal(reads[0][:, : position + 1], reads[1][:, : position + 1])


def test_rows_are_independent_of_their_batch():
    boundaries = torch.stack([random_boundaries(1, 50, rate, seed=3)[0] for rate in (0.0, 0.1, 0.5, 1.0)])
    hidden, null_group = torch.randn(4, 50, 6), torch.randn(6)
    together = upsample(downsample(hidden, boundaries, null_group), boundaries)
    for row in range(4):
        one = slice(row, row + 1)
        alone = upsample(downsample(hidden[one], boundaries[one], null_group), boundaries[one])
        assert torch.equal(alone, together[one])


def test_half_precision_is_summed_in_float32():
    hidden = torch.full((1, 4096, 1), 1.0, dtype=torch.bfloat16)  # a bfloat16 sum would stop at 256
    boundaries = torch.zeros(1, 4096, dtype=torch.bool)
    boundaries[0, -1] = True
    pooled = downsample(hidden, boundaries, torch.zeros(1))
    assert pooled.dtype == torch.bfloat16
    assert pooled[0, 1].item() == 1.0


def test_empty_text_and_empty_batch():
    assert downsample(torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.bool), torch.ones(3)).shape == (2, 1, 3)
    assert downsample(torch.zeros(0, 4, 3), torch.zeros(0, 4, dtype=torch.bool), torch.ones(3)).shape == (0, 1, 3)
    assert upsample(torch.zeros(2, 1, 3), torch.zeros(2, 0, dtype=torch.bool)).shape == (2, 0, 3)


def test_floating_point_boundaries_are_zeros_and_ones():
    assert is_boundary(torch.tensor([[0.0, 1.0]])).tolist() == [[False, True]]


def test_wrong_shapes_are_named():
    hidden = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match=r"boundaries has shape \(2, 4\); allowed: \(2, 3\)"):
        downsample(hidden, torch.zeros(2, 4, dtype=torch.bool), torch.zeros(4))
    with pytest.raises(ValueError, match=r"null_group has shape \(5,\); allowed: \(4,\)"):
        downsample(hidden, torch.zeros(2, 3, dtype=torch.bool), torch.zeros(5))
    with pytest.raises(ValueError, match=r"hidden has shape \(3, 4\)"):
        downsample(torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.bool), torch.zeros(4))
    with pytest.raises(ValueError, match=r"boundaries has shape \(3, 9\); allowed: \(2, L\)"):
        upsample(hidden, torch.zeros(3, 9, dtype=torch.bool))


@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_smoothing_is_a_running_mixture(rate):
    torch.manual_seed(2)
    boundaries = random_boundaries(3, 30, rate, seed=5)
    slots = 1 + int(boundaries.sum(1).max())
    pooled = torch.randn(3, slots, 4, requires_grad=True)
    confidence = (0.5 + 0.49 * torch.rand(3, 30)).requires_grad_()
    smoothed = smooth(pooled, boundaries, confidence)
    for row in range(3):
        state = pooled[row, 0]
        torch.testing.assert_close(smoothed[row, 0], state)
        for slot, at in enumerate(torch.nonzero(boundaries[row]).flatten().tolist(), start=1):
            state = confidence[row, at] * pooled[row, slot] + (1 - confidence[row, at]) * state
            torch.testing.assert_close(smoothed[row, slot], state)
    upsample(smoothed, boundaries).sum().backward()
    assert confidence.grad is None or torch.isfinite(confidence.grad).all()
    if rate == 0.2:
        assert ((confidence.grad != 0) == boundaries).all()


def test_a_sure_boundary_smooths_next_to_nothing():
    pooled, boundaries = torch.randn(1, 4, 3), torch.tensor([[True, True, True]])
    smoothed = smooth(pooled, boundaries, torch.ones(1, 3))
    torch.testing.assert_close(smoothed, pooled, atol=1e-3, rtol=1e-3)
    assert torch.isfinite(smoothed).all()
