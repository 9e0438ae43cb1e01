"""Pictures of a comparison: BPC against SF for every system, and BPC over training.

    python experiments/compare/plot.py experiments/results/comparison.json --out docs/gtok
    python experiments/compare/plot.py experiments/results/comparison.json --out docs/gtok --json gtok_plots.json

Writes OUT_frontier.png (a line per system through the points of its rate knob, bars of one standard deviation over
seeds) and OUT_curves.png (validation BPC against steps, training time and training compute). --json has the numbers.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curves import AXES, curve
from selection import add_selection, select
from settings import Setting, first_view

from speak_neuro.common.command import run_command
from speak_neuro.common.extras import extra
from speak_neuro.common.files import atomic_write, check_writable
from speak_neuro.common.provenance import write_result
from speak_neuro.common.seeds import sample

LOOKS = {
    "vanilla": ("#6b6b6b", "X"),
    "fixed": ("#8c6d1f", "D"),
    "whitespace": ("#000000", "s"),
    "dtp-entropy": ("#2a8fd0", "v"),
    "dtp-unigram": ("#009e73", "^"),
    "dtp-gumbel": ("#cc79a7", "<"),
    "dtp-gumbel, started": ("#cc79a7", "P"),
    "magnet": ("#0072b2", ">"),
    "magnet, started": ("#b97a00", "P"),
    "speak": ("#d55e00", "o"),
}
"""Colour and marker of each system: the palette of Okabe and Ito, told apart by shape too."""
COLUMNS = 3
WIDE = 20
"""Shortening factor beyond which the frontier's axis is logarithmic: a system that all but stopped to cut."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="plot.py", description=(__doc__ or "").split("\n\n")[0])
    add_selection(parser)
    parser.add_argument("--out", type=Path, required=True, help="beginning of the PNG files' names")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plotted numbers there")
    return run_command(parser, plot, argv)


def plot(arguments: argparse.Namespace) -> int:
    """Read, compute, draw."""
    files = {name: Path(f"{arguments.out}_{name}.png") for name in ("frontier", "curves")}
    check_writable(*files.values())
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
    write_result(arguments, numbers)
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


def look(system: str) -> tuple[str, str]:
    """Colour and marker; the second view of a system's runs has the first's."""
    return LOOKS.get(first_view(system), ("#000000", "*"))


def canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    figure = extra("matplotlib.figure", "speak-neuro[viz]").Figure(
        figsize=(size[0] * columns, size[1] * rows), layout="constrained"
    )
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


def label_at_right(axes: Any, ends: dict[str, tuple[float, float]]) -> None:
    """A name for each point (x, y), in a column right of the axes, as near to its height as its neighbours allow.

    A grey line leads from the name to the point.
    """
    low, high = axes.get_ylim()
    step = (high - low) / 22
    order = sorted(ends, key=lambda name: ends[name][1])
    places = {name: ends[name][1] for name in order}
    for _ in range(200):  # push neighbours apart until none overlaps
        for below, above in itertools.pairwise(order):
            lack = step - (places[above] - places[below])
            if lack > 0:
                places[below] -= lack / 2
                places[above] += lack / 2
        lowest = min(places.values(), default=low)
        if lowest < low:
            places = {name: place + low - lowest for name, place in places.items()}
    for name in order:
        x, y = ends[name]
        axes.annotate(
            name,
            (x, y),
            (1.03, places[name]),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            color=look(name)[0],
            fontweight="bold" if name == "speak" else "normal",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#b8bec4", "linewidth": 0.7, "shrinkB": 4},
        )


def draw_frontier(numbers: dict[str, Any], path: Path) -> None:
    """One panel for each setting; right and down is better."""
    columns = min(len(numbers), COLUMNS)
    figure, panels = canvas(-(-len(numbers) // columns), columns, (7.2, 4.6))
    for axes in panels.flat[len(numbers) :]:
        axes.set_axis_off()
    for axes, (label, part) in zip(panels.flat, numbers.items(), strict=False):
        ends: dict[str, tuple[float, float]] = {}
        for system, points in part["frontier"].items():
            colour, marker = look(system)
            first = system == first_view(system)
            axes.errorbar(
                [point["sf"] for point in points],
                [point["bpc"] for point in points],
                xerr=[point["sf_deviation"] or 0.0 for point in points],
                yerr=[point["bpc_deviation"] or 0.0 for point in points],
                fmt=f"{marker}{'-' if first else '--'}",
                # White space often lies where SPEAK does: an open square around the point.
                markersize=11 if system == "whitespace" else 7,
                markerfacecolor=colour if first and system != "whitespace" else "none",
                markeredgewidth=1.4,
                linewidth=1.2,
                elinewidth=1.2,
                capsize=3,
                color=colour,
            )
            main = next((point for point in points if point["main"]), points[-1])
            ends[system] = (main["sf"], main["bpc"])
        factors = [point["sf"] for points in part["frontier"].values() for point in points]
        if factors and max(factors) > WIDE:
            axes.set_xscale("log")
        dressed(axes, "characters per token (more is shorter)", "test bits per character (lower is better)", label)
        label_at_right(axes, ends)
    save(figure, path)


def draw_curves(numbers: dict[str, Any], path: Path) -> None:
    """A row for each setting, a column for each axis that has a curve, shaded by one standard deviation."""
    used = {axis: title for axis, title in AXES.items() if any(axis in part["curves"] for part in numbers.values())}
    figure, panels = canvas(len(numbers), len(used), (4.2, 3.6))
    for row, (label, part) in zip(panels, numbers.items(), strict=True):
        for axes, (axis, title) in zip(row, used.items(), strict=True):
            for system, values in part["curves"].get(axis, {}).items():
                colour, marker = look(system)
                every = max(1, len(values["x"]) // 6)
                (line,) = axes.plot(values["x"], values["bpc"], f"{marker}-", color=colour, label=system)
                line.set(linewidth=1.3, markersize=4.5, markevery=every)
                if values["seeds"] > 1:
                    low = [b - d for b, d in zip(values["bpc"], values["deviation"], strict=True)]
                    high = [b + d for b, d in zip(values["bpc"], values["deviation"], strict=True)]
                    axes.fill_between(values["x"], low, high, color=colour, alpha=0.15, linewidth=0)
            every = [bpc for values in part["curves"].get(axis, {}).values() for bpc in values["bpc"]]
            late = [b for v in part["curves"].get(axis, {}).values() for b in v["bpc"][len(v["bpc"]) // 3 :]]
            if late and min(late) < max(late):  # the first third falls so far that the systems would lie on one line
                margin = 0.05 * (max(late) - min(late))
                axes.set_ylim(min(every) - margin, max(late) + margin)
            dressed(axes, title, "validation BPC (lower is better)", label)
    shown = {text: line for axes in panels.flat for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    names = [name for name in LOOKS if name in shown] + [name for name in shown if name not in LOOKS]
    figure.legend([shown[n] for n in names], names, loc="outside lower center", ncols=min(len(names), 5), fontsize=9)
    save(figure, path)


if __name__ == "__main__":
    sys.exit(main())
