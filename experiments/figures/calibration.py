"""Firing against the true chance of a spike, for L_mem and for the spikes' likelihood: docs/calibration.png.

python experiments/figures/calibration.py --out docs/calibration.png --json experiments/results/gtok/calibration.json

Nineteen symbols are drawn independently, the proxy spikes at each with a chance of its own, 0.05 to 0.95. A neuron with
one current per symbol learns from them; a calibrated one fires above one half. Half a minute on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.command import run_command
from speak_neuro.common.extras import extra
from speak_neuro.common.files import atomic_write, check_writable
from speak_neuro.common.provenance import write_result

STEPS, ROWS, LENGTH, RATE = 1000, 64, 64, 0.02
DECAYS = (0.0, 0.25, 1.0)
LOSSES = {"membrane": "L_mem (Eq. 14)", "spike": "spike likelihood"}
COLOURS = {0.0: "#1f66a6", 0.25: "#b5351c", 1.0: "#7a8288"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="calibration.py", description="Firing against the true chance of a spike, as a PNG."
    )
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--json", type=Path, help="write the measured rates there")
    return run_command(parser, measure, argv)


def firing(loss: str, decay: float) -> list[float]:
    """Share of firing at each symbol, after training."""
    import torch

    from speak_neuro.neuron.module import GatedLeaky
    from speak_neuro.supervision.losses import membrane_loss, membrane_targets, spike_loss

    chances = torch.arange(1, 20) / 20
    current = torch.nn.Parameter(torch.zeros(len(chances)))
    neuron = GatedLeaky(decay=decay, mode="hard")
    optimiser, draws = torch.optim.Adam([current], lr=RATE), torch.Generator().manual_seed(1)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        symbols = torch.randint(0, len(chances), (ROWS, LENGTH), generator=draws)
        proxy = torch.rand(symbols.shape, generator=draws) < chances[symbols]
        _, membrane, _ = neuron(current[symbols], torch.ones(symbols.shape))
        if loss == "spike":
            value = spike_loss(membrane, proxy)
        else:
            value = membrane_loss(membrane, membrane_targets(current[symbols], proxy, 1.0, 0.5, decay=decay), proxy)
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        symbols = torch.randint(0, len(chances), (1024, LENGTH), generator=draws)
        spikes, _, _ = neuron(current[symbols], torch.ones(symbols.shape))
    return [round(float(spikes[symbols == symbol].mean()), 4) for symbol in range(len(chances))]


def measure(arguments: argparse.Namespace) -> int:
    """Train each neuron and draw."""
    figures = extra("matplotlib.figure", "speak-neuro[viz]")
    check_writable(arguments.out)
    chances = [round(0.05 * k, 2) for k in range(1, 20)]
    rates = {loss: {str(decay): firing(loss, decay) for decay in DECAYS} for loss in LOSSES}
    figure = figures.Figure(figsize=(7.4, 2.9), layout="constrained")
    for axes, (loss, title) in zip(figure.subplots(1, 2, sharey=True), LOSSES.items(), strict=True):
        axes.axvline(0.5, color="#888", linewidth=0.8, linestyle=":")
        axes.plot([0, 0.5, 0.5, 1], [0, 0, 1, 1], color="#ccc", linewidth=4, label="best without memory")
        for decay in DECAYS:
            axes.plot(chances, rates[loss][str(decay)], color=COLOURS[decay], linewidth=1.2, label=f"decay {decay:g}")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("true chance of a spike", fontsize=8)
        axes.tick_params(labelsize=7)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.axes[0].set_ylabel("share of firing", fontsize=8)
    figure.axes[0].legend(fontsize=7, frameon=False, loc="upper left")
    with atomic_write(arguments.out) as stream:
        figure.savefig(stream, format="png", dpi=130)
    metrics: dict[str, Any] = {"chances": chances, "firing": rates, "steps": STEPS, "symbols": ROWS * LENGTH}
    write_result(arguments, metrics, "cpu")
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
