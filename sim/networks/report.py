"""verify.html: one self-contained page with the verdict, a table a level, and rasters and potentials of chosen
neurons."""

from __future__ import annotations

from typing import Any

import numpy as np

from speak_neuro.common.array_types import Array
from speak_neuro.common.pages import templates
from speak_neuro.export.graphs.network_run import LayerRun
from speak_neuro.sim.networks.verify import Verification

SHOWN_STEPS = 400
SHOWN_NEURONS = 128
TRACED = 4
WHAT = {
    "neuron": "Each layer of neurons alone, on the reference's own inputs: every spike and every bit must agree.",
    "network": "Lava computes everything from the inputs. Sums of another order may differ in their last bits; the "
    "first spike that differs in a sequence must be that close to its threshold.",
    "fixed": "Loihi's integers: Lava against the integer reference, every spike and potential.",
}
LAST = {"neuron": "", "network": "largest difference, allowed", "fixed": "as in float32"}
"""Head of each level's own column."""


def render(report: dict[str, Any], found: Verification, neurons: list[int] | None = None) -> str:
    """The page; `neurons` are drawn of every layer that has them, else the busiest."""
    verdict = "The network runs in Lava as it should" if report["passed"] else "The network differs in Lava"
    page = templates("speak_neuro.sim").get_template("network.html")
    layers = [_layer(row, found, neurons) for row in report["layers"]]
    return page.render(verdict=verdict, report=report, what=WHAT, last=LAST, layers=layers) + "\n"


def _layer(row: dict[str, Any], found: Verification, neurons: list[int] | None) -> dict[str, Any]:
    """Raster and potentials of one layer in the first sequence."""
    name = row["name"]
    run = found.reference[name]
    lava = next((runs[name] for level, runs in found.lava.items() if level in ("network", "neuron")), None)
    spikes, steps = run.spikes[0, :SHOWN_STEPS], min(SHOWN_STEPS, run.spikes.shape[1])
    busiest = np.argsort(-spikes.sum(axis=0), kind="stable")[:TRACED]
    chosen = [n for n in neurons if 0 <= n < row["neurons"]] if neurons else sorted(int(n) for n in busiest)
    shown = min(SHOWN_NEURONS, row["neurons"])
    return {
        "title": f"{name}: {row['kind']}, {row['neurons']:,} neurons, {row['spikes']:,} spikes",
        "note": f"Sequence 0, steps 0 to {steps - 1}"
        + (f"; the first {shown} neurons" if shown < row["neurons"] else ""),
        "chosen": chosen,
        "raster": _raster(spikes[:, :shown]),
        "traces": [_trace(run, lava, n, steps) for n in chosen],
    }


def _x(steps: int) -> float:
    return max(2.0, min(24.0, 960 / max(steps, 1)))


def _raster(spikes: Array) -> dict[str, Any]:
    """A stroke for each spike, and the axis below."""
    steps, neurons = spikes.shape
    width, high = _x(steps), max(2.0, min(8.0, 260 / neurons))
    total = neurons * high + 24
    every = max(1, 10 ** int(np.log10(max(steps, 10)) - 0.3))
    return {
        "path": "".join(f"M{t * width + 40:.1f} {n * high + 4:.1f}v{high * 0.8:.1f}" for t, n in np.argwhere(spikes)),
        "neurons": neurons,
        "width": f"{steps * width + 50:.0f}",
        "length": f"{steps * width:.0f}",
        "height": f"{total:.0f}",
        "base": f"{total - 16:.0f}",
        "below": f"{total - 2:.0f}",
        "marks": [(f"{40 + t * width:.0f}", t) for t in range(0, steps, every * 5)],
    }


def _trace(run: LayerRun, lava: LayerRun | None, neuron: int, steps: int) -> dict[str, Any]:
    """Lines of a neuron's potentials between the smallest and the largest of both runs."""
    reference = run.membrane[0, :steps, neuron].astype(np.float64)
    others = None if lava is None else lava.membrane[0, :steps, neuron].astype(np.float64)
    every = reference if others is None else np.concatenate((reference, others))
    low, high = float(min(every.min(), 0)), float(max(every.max(), 1e-9))
    width = _x(steps)

    def line(values: Array) -> str:
        y = 86 - (values - low) / (high - low) * 76
        return "M" + "L".join(f"{t * width + 40:.1f} {v:.1f}" for t, v in enumerate(y))

    return {
        "neuron": neuron,
        "width": f"{steps * width + 50:.0f}",
        "high": f"{high:.2g}",
        "low": f"{low:.2g}",
        "path": line(reference),
        "other": None if others is None else line(others),
    }
