"""verify.html: one self-contained page with the verdict, a table a level, and rasters and potentials of chosen
neurons."""

# Markup reads better in whole lines.
# ruff: noqa: E501

from __future__ import annotations

import html
from typing import Any

import numpy as np

from speak_neuro.common.array_types import Array
from speak_neuro.export.graphs.network_run import LayerRun
from speak_neuro.sim.networks.verify import Verification

SHOWN_STEPS = 400
SHOWN_NEURONS = 128
TRACED = 4
WHAT = {
    "neuron": "Each layer of neurons alone, on the reference's own inputs: every spike and every bit must agree.",
    "network": "Lava computes everything from the inputs. Sums of another order may differ in their last bits; the first spike "
    "that differs in a sequence must be that close to its threshold.",
    "fixed": "Loihi's integers: Lava against the integer reference, every spike and potential.",
}
STYLE = """
:root { color-scheme: light dark; --ground: #fbfbf9; --panel: #fff; --ink: #1d2126; --soft: #5d6670; --line: #e2e4e3;
  --good: #1f7a4d; --bad: #b3261e; --spike: #b3401f; --lava: #1f64a8; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --panel: #1b1f24; --ink: #e6e8ea; --soft: #9aa4ae;
  --line: #2d333a; --good: #6fd3a0; --bad: #ff8a80; --spike: #f08a66; --lava: #7db5ec; } }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0; } h1.pass { color: var(--good); } h1.fail { color: var(--bad); }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.25rem; margin:
1.1rem 0; } h2 { font-size: 1.05rem; margin: 0 0 .3rem; } p { margin: .2rem 0 .7rem; color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { text-align: start; padding: .4rem .9rem .4rem 0; border-top: 1px solid var(--line); font-weight: 400;
vertical-align: top; } thead th { border-top: 0; color: var(--soft); font-size: .85rem; } .n { text-align: end;
font-variant-numeric: tabular-nums; } svg { display: block; font: 12px system-ui, sans-serif; } svg text { fill:
var(--soft); } .raster { stroke: var(--spike); stroke-width: 1.6; } .u { fill: none; stroke: var(--ink); stroke-width: 1.2; }
.other { fill: none; stroke: var(--lava); stroke-width: 1.2; stroke-dasharray: 4 3; } .axis { stroke: var(--line); }
.threshold { stroke: var(--soft); stroke-dasharray: 2 4; }
"""


def render(report: dict[str, Any], found: Verification, neurons: list[int] | None = None) -> str:
    """The page; `neurons` are drawn of every layer that has them, else the busiest."""
    passed = report["passed"]
    verdict = "The network runs in Lava as it should" if passed else "The network differs in Lava"
    levels = "".join(_level(name, result) for name, result in report["levels"].items())
    pictures = "".join(_layer(row, found, neurons) for row in report["layers"])
    summary = f"{report['sequences']:,} sequences of {report['steps']:,} steps; reference: {report['reference']}"
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{verdict} · speak_neuro</title>'
        f"<style>{STYLE}</style></head><body><main>"
        f'<h1 class="{"pass" if passed else "fail"}">{verdict}</h1><p>{html.escape(summary)}</p>{levels}{pictures}'
        "</main></body></html>\n"
    )


def _level(name: str, result: dict[str, Any]) -> str:
    rows = []
    for row in result["layers"]:
        first = row["first"]
        where = (
            f"sequence {first['sequence']}, step {first['step']}, neuron {first['neuron']}: {first['cause']}"
            if first
            else ""
        )
        extra = ""
        if name == "network":
            extra = f"{row['largest_difference']:.2g} of {row['bound']:.2g}"
        elif name == "fixed":
            extra = f"{row['float_agreement']:.3%}"
        counts = "".join(
            f'<td class="n">{row[key]:,}</td>' for key in ("spikes", "spike_mismatches", "membrane_mismatches")
        )
        rows.append(
            f'<tr><th scope="row">{html.escape(row["name"])}</th>{counts}<td class="n">{extra}</td><td>{html.escape(where)}</td></tr>'
        )
    last = {"neuron": "", "network": "largest difference, allowed", "fixed": "as in float32"}[name]
    verdict = "equal" if result["passed"] else "NOT equal"
    return (
        f"<section><h2>{name} level: {verdict}</h2><p>{WHAT[name]}</p><div "
        "class='scroll'><table><thead><tr><th>layer</th>"
        f'<th class="n">spikes</th><th class="n">spikes that differ</th><th class="n">potentials that differ</th>'
        f'<th class="n">{last}</th><th>first difference</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>'
    )


def _layer(row: dict[str, Any], found: Verification, neurons: list[int] | None) -> str:
    """Raster and potentials of one layer in the first sequence."""
    name = row["name"]
    run = found.reference[name]
    lava = next((runs[name] for level, runs in found.lava.items() if level in ("network", "neuron")), None)
    spikes, steps = run.spikes[0, :SHOWN_STEPS], min(SHOWN_STEPS, run.spikes.shape[1])
    busiest = np.argsort(-spikes.sum(axis=0), kind="stable")[:TRACED]
    chosen = [n for n in neurons if 0 <= n < row["neurons"]] if neurons else sorted(int(n) for n in busiest)
    shown = min(SHOWN_NEURONS, row["neurons"])
    title = f"{name}: {row['kind']}, {row['neurons']:,} neurons, {row['spikes']:,} spikes"
    note = f"Sequence 0, steps 0 to {steps - 1}" + (f"; the first {shown} neurons" if shown < row["neurons"] else "")
    traces = "".join(_trace(run, lava, n, steps) for n in chosen)
    return (
        f"<section><h2>{html.escape(title)}</h2><p>{note}. Below, potentials before reset of neurons "
        f"{', '.join(map(str, chosen))}: the reference, and Lava dashed.</p><div "
        f"class='scroll'>{_raster(spikes[:, :shown])}{traces}</div></section>"
    )


def _x(steps: int) -> float:
    return max(2.0, min(24.0, 960 / max(steps, 1)))


def _raster(spikes: Array) -> str:
    steps, neurons = spikes.shape
    width, high = _x(steps), max(2.0, min(8.0, 260 / neurons))
    path = "".join(f"M{t * width + 40:.1f} {n * high + 4:.1f}v{high * 0.8:.1f}" for t, n in np.argwhere(spikes))
    total = neurons * high + 24
    return (
        f'<svg width="{steps * width + 50:.0f}" height="{total:.0f}" role="img" aria-label="spikes"><path class="raster" d="{path}"/>'
        f'<text x="0" y="14">0</text><text x="0" y="{total - 16:.0f}">{neurons - 1}</text>{_axis(steps, width, total)}</svg>'
    )


def _axis(steps: int, width: float, total: float) -> str:
    every = max(1, 10 ** int(np.log10(max(steps, 10)) - 0.3))
    marks = "".join(
        f'<text x="{40 + t * width:.0f}" y="{total - 2:.0f}">{t}</text>' for t in range(0, steps, every * 5)
    )
    return f'<path class="axis" d="M40 {total - 16:.0f}h{steps * width:.0f}"/>{marks}'


def _trace(run: LayerRun, lava: LayerRun | None, neuron: int, steps: int) -> str:
    reference = run.membrane[0, :steps, neuron].astype(np.float64)
    others = None if lava is None else lava.membrane[0, :steps, neuron].astype(np.float64)
    every = reference if others is None else np.concatenate((reference, others))
    low, high = float(min(every.min(), 0)), float(max(every.max(), 1e-9))
    width = _x(steps)

    def line(values: Array) -> str:
        y = 86 - (values - low) / (high - low) * 76
        return "M" + "L".join(f"{t * width + 40:.1f} {v:.1f}" for t, v in enumerate(y))

    second = "" if others is None else f'<path class="other" d="{line(others)}"/>'
    return (
        f'<svg width="{steps * width + 50:.0f}" height="96" role="img" aria-label="potential of neuron {neuron}">'
        f'<text x="0" y="14">{high:.2g}</text><text x="0" y="50">n {neuron}</text><text x="0" y="90">{low:.2g}</text>'
        f'<path class="u" d="{line(reference)}"/>{second}</svg>'
    )
