"""The training curves of a run as one PNG: losses, BPC, SF, acceptance and gate rate (needs the `viz` extra)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.extras import extra
from speak_neuro.common.files import atomic_write, legible

PANELS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("losses (nats)", (("loss_lm", "L_LM"), ("loss_mem", "L_mem"), ("loss_reset", "L_reset"))),
    ("bits per character", (("bpc", "training"), ("valid_bpc", "validation"))),
    ("shortening factor", (("sf", "training"), ("valid_shortening_factor", "validation"))),
    ("share of windows", (("accepted", "accepted of those that differ"), ("changed", "changed of all"))),
    ("hard resets among spikes", (("gate_rate", "training"), ("valid_gate_rate", "validation"))),
    (
        "boundary F1",
        (("proxy_f1", "against proxy"), ("target_f1", "against target"), ("valid_boundary_f1", "against exemplar")),
    ),
)


LOGARITHMIC = ("losses (nats)", "shortening factor")
"""Panels whose first steps are so far from the rest that a linear axis would show those alone."""
COLOURS = ("#d55e00", "#0072b2", "#009e73")
"""Of a panel's curves; each has a dash of its own too."""
DASHES = ("-", "--", "-.")


def smoothed(values: Sequence[float], width: int) -> list[float]:
    """Running mean over up to `width` past values."""
    out, total = [], 0.0
    for index, value in enumerate(values):
        total += value - (values[index - width] if index >= width else 0.0)
        out.append(total / min(index + 1, width))
    return out


def plot_metrics(records: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw `records` of metrics.jsonl into `path`."""
    ticker = extra("matplotlib.ticker", "speak-neuro[viz]")
    figure = extra("matplotlib.figure", "speak-neuro[viz]").Figure(figsize=(12, 6.5))
    figure.subplots_adjust(0.05, 0.08, 0.98, 0.91, wspace=0.18, hspace=0.32)  # a searched layout takes twice as long
    figure.suptitle(legible(title))
    for axes, (name, curves) in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        for (key, label), colour, dash in zip(curves, COLOURS, DASHES, strict=False):
            points = [(r["step"], r[key]) for r in records if key in r]
            if not points:
                continue
            steps, values = zip(*points, strict=True)
            if key.startswith("valid_"):
                axes.plot(steps, values, f"o{dash}", color=colour, markersize=4, label=label)
            else:
                running = smoothed(values, max(1, len(values) // 50))
                axes.plot(steps, running, dash, color=colour, linewidth=1.2, label=label)
        drawn = [value for line in axes.lines for value in line.get_ydata()]
        if name in LOGARITHMIC and drawn and min(drawn) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(fontsize=8)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=110)
