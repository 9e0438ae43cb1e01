"""One picture of the benchmarks' results: how many times as fast as what they are compared with.

    python experiments/bench/plot.py --results experiments/results --out docs/benchmarks.png

Draws a panel for each of bench_scan.json, bench_step.json and bench_tokenizer.json that is there (`make bench`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.command import run_command
from speak_neuro.common.extras import extra
from speak_neuro.common.files import atomic_write
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import read_whole
from speak_neuro.errors import SpeakError

OWN, PEER = "#0072b2", "#a85400"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="plot_bench", description="one picture of the benchmarks' results")
    folder = Path(__file__).resolve().parents[1]
    parser.add_argument("--results", type=Path, default=folder / "results" / "bench", help="folder of bench_*.json")
    parser.add_argument("--out", type=Path, default=folder.parent / "docs" / "benchmarks.png", help="PNG to write")
    return run_command(parser, plot, argv)


def plot(arguments: argparse.Namespace) -> int:
    found = []
    for name, panel in PANELS.items():
        file = arguments.results / f"{name}.json"
        if file.exists():
            try:
                record = parse_json(read_whole(file, "run make bench again"), str(file), "run make bench again")
                found.append((*panel(record["metrics"]), counted(record["device"])))
            except (ValueError, KeyError, TypeError) as error:
                raise SpeakError(f"{file}: not a benchmark's result ({error!r}); run make bench again") from error
    if not found:
        raise SpeakError(f"{arguments.results}: no results of benchmarks; run make bench")
    figures = extra("matplotlib.figure", "speak-neuro[viz]")
    heights = [len(rows) for _, rows, _ in found]
    figure = figures.Figure(figsize=(8.9, 0.34 * sum(heights) + 0.95 * len(found) + 0.4), layout="constrained")
    panels = figure.subplots(len(found), 1, squeeze=False, height_ratios=[height + 1 for height in heights])[:, 0]
    limit = max(ratio for _, rows, _ in found for _, ratio in rows)
    for axes, (title, rows, device) in zip(panels, found, strict=True):
        dots(axes, rows, title, device, limit)
    panels[-1].set_xlabel("times as fast (1: level)", fontsize=9)
    with atomic_write(arguments.out) as stream:
        figure.savefig(stream, format="png", dpi=100)
    print(arguments.out)
    return 0


def counted(device: str) -> str:
    """The device with its cores in English."""
    return device.replace(", 1 cores", ", 1 core")


def dots(axes: Any, rows: list[tuple[str, float]], title: str, device: str, limit: float) -> None:
    """One dot a row at its ratio and a line to it from 1, the largest on top: a logarithmic axis has no zero."""
    rows = sorted(rows, key=lambda row: row[1])
    for y, (_, ratio) in enumerate(rows):
        colour = OWN if ratio >= 1 else PEER
        axes.plot([1, ratio], [y, y], color=colour, linewidth=1.6, alpha=0.6)
        axes.plot(ratio, y, "o" if ratio >= 1 else "s", color=colour, markersize=6)
        side = ("left", 7) if ratio >= 1 else ("right", -7)
        place = {"textcoords": "offset points", "ha": side[0], "va": "center"}
        axes.annotate(plain(ratio), (ratio, y), (side[1], 0), fontsize=9, **place)
    axes.axvline(1, color="#555555", linewidth=0.9)
    axes.set_xscale("log")
    axes.set_xlim(0.5, limit * 2.6)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=9)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"{title}  ({device})", fontsize=9.5, loc="left")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)


def plain(ratio: float) -> str:
    """Three digits without an exponent."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def scan(metrics: dict[str, Any]) -> tuple[str, list[tuple[str, float]]]:
    """The fused neuron against other loops over the same positions."""
    ratios = metrics["ratios"]
    names = {
        "stock / fused": "snnTorch's Leaky, forward",
        "loop / fused": "the same neuron as a torch loop, forward",
        "stock + backward / fused + backward": "snnTorch's Leaky, with gradient",
        "loop + backward / fused + backward": "the torch loop, with gradient",
        "C / fused": "the same neuron in plain C, forward",
    }
    rows = [(f"against {label}", ratios[name]) for name, label in names.items() if name in ratios]
    return f"Neuron over {metrics['batch']} x {metrics['length']} characters", rows


def step(metrics: dict[str, Any]) -> tuple[str, list[tuple[str, float]]]:
    """The language model against itself written plainly, and SPEAK's step against Gumbel's."""
    rows = [
        (f"size {size}: against the model written plainly", found["ratio"]) for size, found in metrics["models"].items()
    ]
    for size, found in metrics["systems"].items():
        rows.append((f"size {size}: SPEAK against DTP's Gumbel tokenizer", 1 / found["ratio"]))
    return "Training step", rows


def tokenizer(metrics: dict[str, Any]) -> tuple[str, list[tuple[str, float]]]:
    """The compiled tokenizer against the `tokenizers` library."""
    rows = []
    for name, ratio in metrics["ratios"].items():
        own, _, peer = name.partition(" / ")
        rows.append((f"{own.split(',')[0]}: against {peer}", ratio))
    return "Tokenizing with a table", rows


PANELS: dict[str, Callable[[dict[str, Any]], tuple[str, list[tuple[str, float]]]]] = {
    "bench_scan": scan,
    "bench_step": step,
    "bench_tokenizer": tokenizer,
}


if __name__ == "__main__":
    sys.exit(main())
