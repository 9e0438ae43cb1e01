"""What acceptance counts, compares and writes: only characters with half a window before them, only real choices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_trainer import TEXT, build, change

from speak_neuro.corpus.windows import windows
from speak_neuro.training.fit import train_step
from speak_neuro.training.trainer import Trainer

WINDOW, HALF = 64, 32


def seen(trainer: Trainer) -> tuple[np.ndarray, torch.Tensor, torch.Tensor, np.ndarray]:
    """The next step's window starts, its ids and following ids, and the neuron's spikes in them, computed apart."""
    starts = trainer.sampler.starts_at(trainer.step)
    rows = torch.from_numpy(windows(trainer.ids, starts, WINDOW + 1).astype(np.int64))
    with torch.no_grad():
        spikes = trainer.system.tokenizer(rows[:, :-1]).spikes.numpy().astype(bool)
    return starts, rows[:, :-1], rows[:, 1:], spikes


def proxies(trainer: Trainer) -> np.ndarray:
    assert trainer.proxy is not None
    return np.array(trainer.proxy.read([0], len(TEXT))[0])


def visit(trainer: Trainer) -> None:
    assert trainer.proxy is not None
    trainer.proxy.mark_visited(np.zeros(1, dtype=np.int64), len(TEXT))


def test_only_characters_with_half_a_window_before_them_are_written() -> None:
    trainer = build(change(acceptance="always"))
    visit(trainer)
    written = np.zeros(len(TEXT), dtype=bool)
    for _ in range(3 * trainer.sampler.steps_per_epoch):
        starts, _, _, spikes = seen(trainer)
        expected = proxies(trainer)
        for start, row in zip(starts, spikes, strict=True):  # of a window's characters, those from 32 to 63
            for place in range(HALF, WINDOW):
                expected[(start + place) % len(TEXT)] = row[place]
                written[(start + place) % len(TEXT)] = True
        train_step(trainer)
        assert np.array_equal(proxies(trainer), expected)
    assert written.mean() > 0.75, "other epochs' windows begin elsewhere"


def test_the_losses_compared_differ_by_the_second_half_alone() -> None:
    trainer = build(change(acceptance="never"))
    visit(trainer)
    _, ids, following, spikes = seen(trainer)
    starts = trainer.sampler.starts_at(trainer.step)
    assert trainer.proxy is not None
    current = spikes.copy()
    current[:, HALF:] = trainer.proxy.read(starts, WINDOW)[:, HALF:]
    model = trainer.system.language_model
    losses = []
    with torch.no_grad():
        for cut in (spikes, current):
            logits = model.decode(model.pre(ids), torch.from_numpy(cut))
            chances = logits.double().log_softmax(-1).gather(-1, following[..., None])
            losses.append(-float(chances.sum()) / len(ids))
    record = train_step(trainer)
    assert record["nats_candidate"] == pytest.approx(losses[0], rel=1e-5)
    assert record["nats_proxy"] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[1], rel=1e-4), "there is something to choose"


@pytest.mark.parametrize(("rule", "share"), [("always", 1.0), ("never", 0.0)])
def test_accepted_is_a_share_of_the_windows_with_a_choice(rule: str, share: float) -> None:
    """A window whose spikes are the proxy's already was counted as accepted, whatever the rule."""
    trainer = build(change(acceptance=rule))
    visit(trainer)
    assert trainer.proxy is not None
    starts, _, _, spikes = seen(trainer)
    alike = spikes.copy()
    alike[0, HALF + 3] ^= True  # one of four windows has a choice, another differs where nothing is written
    alike[1, HALF - 3] ^= True
    trainer.proxy.write(starts, alike)
    record = train_step(trainer)
    assert record["accepted"] == share
    assert record["changed"] == share / 4
    starts, _, _, spikes = seen(trainer)
    trainer.proxy.write(starts, spikes)
    record = train_step(trainer)
    assert "accepted" not in record
    assert record["changed"] == 0


@pytest.mark.parametrize("epochs", [1, 2])
def test_what_was_read_in_proxy_steps_is_visited(epochs: int) -> None:
    """The language model read it, so the first decision is at the first step after the proxy steps."""
    steps = build().sampler.steps_per_epoch * epochs
    trainer = build(change(proxy_steps=steps, acceptance="always"))
    records: list[dict[str, Any]] = [train_step(trainer) for _ in range(steps + 2)]
    assert ["changed" in record for record in records] == [False] * steps + [True] * 2
