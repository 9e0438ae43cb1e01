"""Training for the networks of `models.py`, on real data that a package brings.

    loss = sum_t cross_entropy(spikes of the last layer at t, label);   the class that spikes most often is the answer

digits    handwritten digits of scikit-learn (8 x 8, the UCI set of 1,797), each pixel as large as 28 x 28 allows, shown
          for 25 steps; 1,400 to train on
vowels    speakers of spoken vowels (`vowels.py`)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import vowels

STEPS = 25
"""Time steps for which a picture is shown, as in snnTorch's tutorials."""
BATCH = 32


class Part(NamedTuple):
    """Sequences (B, T, ...) and their labels (B,)."""

    x: Any
    label: Any


def digits(flat: bool) -> tuple[Part, Part]:
    """Pictures (B, 25, 784) or (B, 25, 1, 28, 28) to train on and to test on."""
    import torch
    from sklearn.datasets import load_digits

    data = load_digits()
    pictures = torch.from_numpy(data.images).float()[:, None] / 16
    pictures = torch.nn.functional.interpolate(pictures, size=(28, 28), mode="nearest")
    labels = torch.from_numpy(data.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    shape = (784,) if flat else (1, 28, 28)
    x = pictures.view(-1, 1, *shape).expand(-1, STEPS, *shape)
    return Part(x[order[:1400]], labels[order[:1400]]), Part(x[order[1400:]], labels[order[1400:]])


def speakers() -> tuple[Part, Part]:
    """Utterances (B, 29, 12) to train on and to test on."""
    train, test = vowels.load()
    return Part(train.frames, train.speakers), Part(test.frames, test.speakers)


def spikes_of(net: Any, x: Any) -> Any:
    """The last layer's spikes (T, B, classes) on (B, T, ...) inputs, from no state."""
    import torch
    from snntorch import utils

    utils.reset(net)
    found, states = [], ()
    for t in range(x.shape[1]):
        out = net(x[:, t], *states)
        out, states = (out[0], out[1:]) if isinstance(out, tuple) else (out, ())
        found.append(out)
    return torch.stack(found)


def train(net: Any, part: Part, steps: int, rate: float) -> None:
    """Adam for `steps` batches."""
    import torch
    from snntorch import functional

    generator = torch.Generator().manual_seed(2)
    optimiser, loss_of = torch.optim.Adam(net.parameters(), rate), functional.ce_rate_loss()
    for _ in range(steps):
        chosen = torch.randint(len(part.label), (BATCH,), generator=generator)
        loss = loss_of(spikes_of(net, part.x[chosen]), part.label[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    snntorch_reset(net)


def snntorch_reset(net: Any) -> None:
    """No state of training may be seen by what comes after."""
    from snntorch import utils

    utils.reset(net)


def accuracy(net: Any, part: Part) -> float:
    """The share of right answers."""
    import torch

    with torch.no_grad():
        found = [spikes_of(net, x).sum(0).argmax(1) for x in part.x.split(128)]
    snntorch_reset(net)
    return float((torch.cat(found) == part.label).float().mean())
