"""The Hourglass step by step against its own whole pass."""

from __future__ import annotations

import itertools

import pytest
import torch

from speak_neuro.model.hourglass import NORMS, Hourglass, HourglassConfig, Norm
from speak_neuro.model.stepping import ROOM, HourglassStepper

LENGTH = 2 * ROOM + 11  # the caches grow twice


def model(pre: int, shortened: int, post: int, norm: Norm = "post") -> Hourglass:
    torch.manual_seed(pre + 10 * shortened + 100 * post)
    sizes = {"pre_layers": pre, "shortened_layers": shortened, "post_layers": post}
    made = Hourglass(HourglassConfig(vocabulary=23, width=16, heads=4, inner=32, norm=norm, **sizes)).eval()
    with torch.no_grad():
        for weight in made.parameters():  # as drawn, attention is all but uniform and would hide a wrong distance
            weight.mul_(6 if weight.ndim > 1 else 1)
    return made


def rows(seed: int, count: int, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 23, (count, LENGTH), generator=drawn)
    return ids, torch.rand(count, LENGTH, generator=drawn) < rate


@pytest.mark.parametrize("layers", [(1, 2, 1), (2, 1, 2), (0, 1, 1), (1, 1, 0), (2, 0, 1), (0, 0, 1)])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("norm", NORMS)
def test_every_step_of_every_row_equals_the_whole_pass(layers: tuple[int, int, int], rate: float, norm: Norm) -> None:
    made = model(*layers, norm)
    lengths = torch.tensor([1, 37, 5])
    ids, boundaries = rows(int(rate * 10), len(lengths), rate)
    each = torch.arange(len(lengths))
    with torch.no_grad():
        whole = made(ids, boundaries)
        stepper = HourglassStepper(made, len(lengths))
        hidden = stepper.begin(ids[:, :37], lengths)
        logits = stepper.decode_beginning(hidden, boundaries[:, :37])
        for _ in itertools.count():
            torch.testing.assert_close(logits, whole[each, lengths - 1], atol=2e-5, rtol=0)
            if int(lengths.max()) == LENGTH:
                break
            hidden = stepper.pre(ids[each, lengths])
            logits = stepper.decode(hidden, boundaries[each, lengths])
            lengths = lengths + 1
    assert whole.std() > 0.1  # the logits do say something


def test_the_padding_of_a_beginning_is_not_read() -> None:
    made, (ids, boundaries) = model(1, 1, 1), rows(3, 2, 0.4)
    lengths = torch.tensor([4, 20])
    found = []
    with torch.no_grad():
        for filler in (0, 7):
            padded = ids[:, :20].clone()
            padded[0, 4:] = filler
            stepper = HourglassStepper(made, 2)
            closes = boundaries[:, :20].clone()
            closes[0, 4:] = bool(filler)
            logits = [stepper.decode_beginning(stepper.begin(padded, lengths), closes)]
            for t in range(20, 30):
                logits.append(stepper.decode(stepper.pre(ids[:, t]), boundaries[:, t]))
            found.append(torch.stack(logits))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="training mode"):
        HourglassStepper(model(1, 1, 1).train(), 1)
