"""The context encoders: what they see, and the window encoder's two ways to the same numbers."""

import pytest
import torch

from speak_neuro.tokenizer.window import WindowEncoder


@pytest.mark.parametrize("context", [1, 3, 8])
def test_the_window_encoder_by_table_is_the_one_by_position(context):
    """In training, with more positions than characters, it sums rows of a table; values and gradients agree."""
    torch.manual_seed(0)
    encoder = WindowEncoder(7, 6, context)
    torch.nn.init.normal_(encoder.norm.weight)
    ids, weights = torch.randint(0, 7, (4, 11)), torch.randn(4, 11, 6)
    found = []
    for training in (True, False):
        encoder.train(training).zero_grad()
        features = encoder(ids)
        (features * weights).sum().backward()
        found.append([features.detach(), *(p.grad.clone() for p in encoder.parameters())])
    assert not torch.equal(found[0][0], torch.zeros_like(found[0][0]))
    for by_table, by_position in zip(*found, strict=True):
        torch.testing.assert_close(by_table, by_position, rtol=1e-4, atol=1e-5)


def test_the_table_is_used_only_where_it_saves_work(monkeypatch):
    encoder = WindowEncoder(20, 4, 2)
    used = []
    monkeypatch.setattr(encoder, "_by_table", lambda ids: used.append(ids.numel()) or encoder._by_position(ids))
    encoder.train()
    encoder(torch.zeros(2, 10, dtype=torch.long))
    assert used == []
    encoder(torch.zeros(3, 7, dtype=torch.long))
    assert used == [21]
    encoder.eval()
    encoder(torch.zeros(30, 7, dtype=torch.long))
    assert used == [21]


@pytest.mark.parametrize("training", [False, True])
def test_the_window_encoder_sees_its_context_and_nothing_else(training):
    torch.manual_seed(0)
    encoder = WindowEncoder(5, 8, 3).train(training)
    ids = torch.randint(0, 5, (2, 12))
    changed = ids.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 5
    difference = (encoder(ids) - encoder(changed)).abs().sum(2).detach()
    assert (difference[:, 6:9] > 0).all()
    assert (difference[:, :6] == 0).all()
    assert (difference[:, 9:] == 0).all()
