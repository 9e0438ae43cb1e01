"""Token entropy and the gate's targets, on examples worked out by hand."""

import math

import pytest
import torch

from speak_neuro.supervision.entropy import character_entropy, reset_targets, token_entropy

H = torch.tensor([[1.0, 4.0, 2.0, 6.0, 3.0, 5.0]])
S = torch.tensor([[0.0, 1.0, 0.0, 0.0, 1.0, 0.0]])


def test_entropy_is_in_nats() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]]]))
    expected = torch.tensor([[0.5 * math.log(2) + 0.5 * math.log(4), math.log(3)]])
    torch.testing.assert_close(character_entropy(logits), expected)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    # The token opened at 1 has its characters predicted at 1, 2, 3; the one opened at 4 at 4, 5.
    [("first", 4.0, 3.0), ("mean", 4.0, 4.0), ("sum", 12.0, 8.0), ("max", 6.0, 5.0)],
)
def test_kinds(kind: str, first: float, second: float) -> None:
    value = token_entropy(H, S, kind)
    assert value[0, 1] == first
    assert value[0, 4] == second
    assert torch.isinf(value[0, [0, 2, 3, 5]]).all()


def test_rows_do_not_mix() -> None:
    both = token_entropy(H.repeat(2, 1) * torch.tensor([[1.0], [10.0]]), S.repeat(2, 1), "sum")
    assert both[:, 1].tolist() == [12.0, 120.0]


def test_the_index_is_the_spike_that_opens_the_token() -> None:
    """The reset happens at the character before the token: there the target stands, not at the token's first."""
    entropy = torch.zeros(1, 10)
    spikes = torch.zeros(1, 10)
    spikes[0, [1, 3, 5, 7, 9]] = 1
    entropy[0, 5] = 1.0
    targets = reset_targets(entropy, spikes, 0.2)
    assert targets.nonzero().tolist() == [[0, 5]]


@pytest.mark.parametrize(("spikes", "chosen"), [(1, 1), (5, 1), (6, 2), (15, 3), (16, 4), (0, 0)])
def test_exactly_the_ceiling_is_chosen(spikes: int, chosen: int) -> None:
    fired = torch.zeros(2, 10)
    fired.view(-1)[:spikes] = 1
    targets = reset_targets(torch.rand(2, 10), fired, 0.2)
    assert int(targets.sum()) == chosen
    assert (targets <= fired).all()


def test_ties_go_to_the_earlier_position() -> None:
    targets = reset_targets(torch.ones(1, 10), torch.ones(1, 10), 0.2)
    assert targets[0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]


def test_selection_is_over_the_batch_not_the_row() -> None:
    entropy = torch.stack([torch.arange(5.0), 100 + torch.arange(5.0)])
    targets = reset_targets(entropy, torch.ones(2, 5), 0.2)
    assert targets.sum(1).tolist() == [0, 2]


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="entropy is 'median'; allowed: first, mean, sum, max"):
        token_entropy(H, S, "median")
