"""Pictures of a comparison: BPC against SF for every system, and BPC over training.

    python experiments/compare/plot.py experiments/results/comparison.json --out docs/gtok
    python experiments/compare/plot.py experiments/results/comparison.json --out docs/gtok --json gtok_plots.json

Writes OUT_frontier.png (a line per system through the points of its rate knob, bars of one standard deviation over
seeds) and OUT_curves.png (validation BPC against steps, training time and training compute). --json has the numbers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curves import AXES, curve
from selection import add_selection, select
from settings import Setting, first_view

from speak_neuro.common.command import run_command
from speak_neuro.common.files import atomic_write, check_writable, write_json
from speak_neuro.common.provenance import result_record
from speak_neuro.common.seeds import sample
from speak_neuro.errors import MissingExtra

COLOURS = {
    "vanilla": "#7f7f7f",
    "fixed": "#bcbd22",
    "whitespace": "#8c564b",
    "dtp-entropy": "#17becf",
    "dtp-unigram": "#2ca02c",
    "dtp-gumbel": "#9467bd",
    "dtp-gumbel, started": "#e377c2",
    "magnet": "#1f77b4",
    "magnet, started": "#ff7f0e",
    "speak": "#d62728",
}
COLUMNS = 3
WIDE = 20
"""Shortening factor beyond which the frontier's axis is logarithmic: a system that all but stopped to cut."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="plot_gtok.py", description=(__doc__ or "").split("\n\n")[0])
    add_selection(parser)
    parser.add_argument("--out", type=Path, required=True, help="beginning of the PNG files' names")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plotted numbers there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(build_parser(), plot, argv)


def plot(arguments: argparse.Namespace) -> int:
    """Read, compute, draw."""
    files = {name: Path(f"{arguments.out}_{name}.png") for name in ("frontier", "curves")}
    for file in [*files.values(), *([arguments.json] if arguments.json else [])]:
        check_writable(file)
    found = select(arguments)
    found = [setting for setting in found if len(setting.systems()) > 1] or found
    numbers = {setting.label: {"frontier": frontier_points(setting), "curves": curves(setting)} for setting in found}
    draw_frontier(numbers, files["frontier"])
    print(files["frontier"])
    if any(values for part in numbers.values() for values in part["curves"].values()):
        draw_curves(numbers, files["curves"])
        print(files["curves"])
    else:
        print("no curves: none of the results has a validation curve (collect.py keeps it)", file=sys.stderr)
    if arguments.json:
        write_json(arguments.json, result_record(f"python experiments/{arguments.command_line}", numbers))
    return 0


def frontier_points(setting: Setting) -> dict[str, list[dict[str, Any]]]:
    """For each system its points by SF."""
    found: dict[str, list[dict[str, Any]]] = {}
    for system in setting.systems():
        main = setting.main(system)
        for variant in setting.frontier(system):
            if not variant.bpc:
                continue
            bpc, sf = sample(variant.bpc), sample(variant.sf)
            found.setdefault(system, []).append(
                {
                    "sf": sf.mean,
                    "sf_deviation": sf.deviation,
                    "bpc": bpc.mean,
                    "bpc_deviation": bpc.deviation,
                    "seeds": variant.seeds,
                    "knobs": setting.knobs(variant),
                    "main": variant is main,
                }
            )
    return found


def curves(setting: Setting) -> dict[str, dict[str, Any]]:
    """For each axis the curve of each system's main variant that can be placed on it."""
    found: dict[str, dict[str, Any]] = {}
    for axis in AXES:
        for system in setting.systems():
            variant = setting.main(system)
            values = None if variant is None else curve(variant, axis)
            if values is not None:
                found.setdefault(axis, {})[system] = values
    return found


def colour(system: str) -> str:
    """The second view of a system's runs has the first's colour."""
    return COLOURS.get(first_view(system), "#000000")


def canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib is not installed: pip install 'speak-neuro[viz]'") from None
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Any, path: Path) -> None:
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=110)


def dressed(axes: Any, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def draw_frontier(numbers: dict[str, Any], path: Path) -> None:
    """One panel for each setting; right and down is better."""
    columns = min(len(numbers), COLUMNS)
    figure, panels = canvas(-(-len(numbers) // columns), columns, (5.5, 4.2))
    for axes in panels.flat[len(numbers) :]:
        axes.set_axis_off()
    for axes, (label, part) in zip(panels.flat, numbers.items(), strict=False):
        for system, points in part["frontier"].items():
            axes.errorbar(
                [point["sf"] for point in points],
                [point["bpc"] for point in points],
                xerr=[point["sf_deviation"] or 0.0 for point in points],
                yerr=[point["bpc_deviation"] or 0.0 for point in points],
                fmt="o-" if system == first_view(system) else "o--",
                markersize=4 if system != "speak" else 6,
                markerfacecolor=colour(system) if system == first_view(system) else "white",
                linewidth=1.2,
                capsize=2,
                color=colour(system),
                label=system,
            )
        factors = [point["sf"] for points in part["frontier"].values() for point in points]
        if factors and max(factors) > WIDE:
            axes.set_xscale("log")
        dressed(axes, "shortening factor (characters / tokens)", "test BPC", label)
    save(figure, path)


def draw_curves(numbers: dict[str, Any], path: Path) -> None:
    """A row for each setting, a column for each axis that has a curve, shaded by one standard deviation."""
    used = {axis: title for axis, title in AXES.items() if any(axis in part["curves"] for part in numbers.values())}
    figure, panels = canvas(len(numbers), len(used), (4.5, 3.6))
    for row, (label, part) in zip(panels, numbers.items(), strict=True):
        for axes, (axis, title) in zip(row, used.items(), strict=True):
            for system, values in part["curves"].get(axis, {}).items():
                axes.plot(values["x"], values["bpc"], linewidth=1.3, color=colour(system), label=system)
                if values["seeds"] > 1:
                    low = [b - d for b, d in zip(values["bpc"], values["deviation"], strict=True)]
                    high = [b + d for b, d in zip(values["bpc"], values["deviation"], strict=True)]
                    axes.fill_between(values["x"], low, high, color=colour(system), alpha=0.15, linewidth=0)
            every = [bpc for values in part["curves"].get(axis, {}).values() for bpc in values["bpc"]]
            late = [b for v in part["curves"].get(axis, {}).values() for b in v["bpc"][len(v["bpc"]) // 3 :]]
            if late and min(late) < max(late):  # the first third falls so far that the systems would lie on one line
                margin = 0.05 * (max(late) - min(late))
                axes.set_ylim(min(every) - margin, max(late) + margin)
            dressed(axes, title, "validation BPC", label)
    save(figure, path)


if __name__ == "__main__":
    sys.exit(main())
