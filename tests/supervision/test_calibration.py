"""Where the neuron fires against how often it should: symbols drawn independently, each a spike with its own chance."""

import numpy as np
import pytest
import torch

from speak_neuro.neuron.module import GatedLeaky
from speak_neuro.supervision.losses import membrane_loss, membrane_targets, spike_loss

CHANCES = torch.arange(1, 20) / 20


def crossing(loss: str, decay: float, price: float = 0.0) -> float:
    """The true chance at which a neuron with one current per symbol begins to fire more often than not."""
    current = torch.nn.Parameter(torch.zeros(len(CHANCES)))
    neuron = GatedLeaky(decay=decay, mode="hard")
    optimiser, draws = torch.optim.Adam([current], lr=0.02), torch.Generator().manual_seed(1)

    def fire(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        symbols = torch.randint(0, len(CHANCES), (rows, 64), generator=draws)
        spikes, membrane, _ = neuron(current[symbols], torch.ones(rows, 64))
        return symbols, spikes, membrane

    for step in range(500):
        optimiser.param_groups[0]["lr"] = 0.02 * (1 - step / 500)
        symbols, _, membrane = fire(64)
        proxy = torch.rand(symbols.shape, generator=draws) < CHANCES[symbols]
        if loss == "spike":
            value = spike_loss(membrane, proxy, price=price)
        else:
            targets = membrane_targets(current[symbols], proxy, 1.0, 0.5, decay=decay)
            value = membrane_loss(membrane, targets, proxy)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    with torch.no_grad():
        symbols, spikes, _ = fire(512)
    rates = np.array([float(spikes[symbols == symbol].mean()) for symbol in range(len(CHANCES))])
    if not (rates > 0.5).any():
        return 1.0
    first = int(np.argmax(rates > 0.5))  # and on the straight line from the symbol below
    part = (0.5 - rates[first - 1]) / (rates[first] - rates[first - 1])
    return float(CHANCES[first - 1] + 0.05 * part)


# Where nothing is worth remembering, what a leak keeps of the potential is noise: 0.552 measured at decay 0.25.
@pytest.mark.parametrize(("decay", "within"), [(0.0, 0.05), (0.25, 0.06)])
def test_the_spike_likelihood_fires_above_one_half(decay: float, within: float) -> None:
    assert crossing("spike", decay) == pytest.approx(0.5, abs=within)


def test_the_membrane_loss_does_not() -> None:
    """At decay 0.25 the formula in `losses` gives 0.5 / 0.75 for a neuron without memory, at decay 0 a whole 1."""
    assert crossing("membrane", 0.25) > 0.6
    assert crossing("membrane", 0.0) > 0.9


def test_a_price_moves_the_border() -> None:
    assert crossing("spike", 0.0, price=1.0986) == pytest.approx(0.75, abs=0.05)
