"""One picture of the benchmarks' results.

    python experiments/bench/plot.py --results experiments/results --out docs/benchmarks.png

Draws a panel for each of bench_scan.json, bench_step.json and bench_tokenizer.json that is there (`make bench`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.command import run_command
from speak_neuro.common.files import atomic_write
from speak_neuro.errors import MissingExtra, SpeakError

OWN, PEER = "#2277aa", "#999999"


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
                record = json.loads(file.read_text(encoding="utf-8"))
                found.append((panel, record["metrics"], record["device"]))
            except (ValueError, KeyError, TypeError) as error:
                raise SpeakError(f"{file}: not a benchmark's result ({error!r}); run make bench again") from error
    if not found:
        raise SpeakError(f"{arguments.results}: no results of benchmarks; run make bench")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib is not installed: pip install 'speak-neuro[viz]'") from None
    figure = Figure(figsize=(5 * len(found), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (panel, metrics, device) in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        panel(axes, metrics)
        axes.set_title(f"{axes.get_title()}\n{device}", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(arguments.out) as stream:
        figure.savefig(stream, format="png", dpi=100)
    print(arguments.out)
    return 0


def bars(axes: Any, values: dict[str, float], own: Callable[[str], bool], title: str, unit: str) -> None:
    """One horizontal bar each on a logarithmic axis, the first on top."""
    names = list(values)[::-1]
    drawn = axes.barh(names, [values[name] for name in names], color=[OWN if own(name) else PEER for name in names])
    axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set_title(title)
    axes.set_xlabel(unit, fontsize=8)


def scan(axes: Any, metrics: dict[str, Any]) -> None:
    size = f"{metrics['batch']} x {metrics['length']}"
    bars(axes, metrics["milliseconds"], lambda name: name.startswith("fused"), f"neuron over {size}", "milliseconds")


def step(axes: Any, metrics: dict[str, Any]) -> None:
    values = {}
    for size, found in metrics["models"].items():
        values[f"{size}: plain model"], values[f"{size}: package's"] = found["plain_wall_ms"], found["ours_wall_ms"]
    for size, found in metrics["systems"].items():
        values |= {f"{size}: {name}": found[name]["wall_ms"] for name in ("dtp-gumbel", "speak")}
    bars(axes, values, lambda name: name.endswith(("package's", "speak")), "training step", "milliseconds")


def tokenizer(axes: Any, metrics: dict[str, Any]) -> None:
    speeds = metrics["million_characters_per_second"]
    bars(axes, speeds, lambda name: "Face" not in name, "tokenizing with a table", "million characters / s")


PANELS: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "bench_scan": scan,
    "bench_step": step,
    "bench_tokenizer": tokenizer,
}


if __name__ == "__main__":
    sys.exit(main())
