"""A picture of a network's graph: a box for each node, from left to right, edges that close a cycle below. Needs
matplotlib."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from speak_neuro.common.extras import extra
from speak_neuro.export.graphs.layers import LINEAR, Neurons
from speak_neuro.export.graphs.network import Network

WIDE, HIGH = 1.9, 1.0
COLOURS = {"neurons": "#f9e4db", "linear": "#e0ecf8", "other": "#f1f1ee"}


def save_picture(path: str | os.PathLike[str], network: Network) -> None:
    """Draw `network` into a file of any format that matplotlib writes."""
    figures = extra("matplotlib.figure", "speak-neuro[viz]")
    places = _places(network)
    columns = int(max(x for x, _ in places.values())) + 1
    rows = max(y for _, y in places.values()) - min(y for _, y in places.values()) + 1
    below = 0.75 if any(s.delayed for sources in network.sources.values() for s in sources) else 0.1
    figure = figures.Figure(figsize=(columns * WIDE + 0.4, (rows + below) * HIGH + 0.3), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    boxes = {name: _box(axes, network, name, place) for name, place in places.items()}
    for name in network.layers:
        for source in network.sources[name]:
            _arrow(axes, (places[source.name], boxes[source.name]), (places[name], boxes[name]), source.delayed)
    middle = float(np.mean([y for _, y in places.values()]))
    axes.set_xlim(-0.62, columns - 0.38)
    axes.set_ylim(middle - rows / 2 - below, middle + rows / 2 + 0.25)
    figure.savefig(path)


def _places(network: Network) -> dict[str, tuple[float, float]]:
    """A column by the longest way from the input, a row by the order within the column."""
    column: dict[str, int] = {}
    for name in network.layers:
        before = [column[s.name] for s in network.sources[name] if not s.delayed and s.name in column]
        column[name] = max(before, default=-1) + 1
    by_column: dict[int, list[str]] = {}
    for name, at in column.items():
        by_column.setdefault(at, []).append(name)
    return {
        name: (float(at), (len(names) - 1) / 2 - row)
        for at, names in by_column.items()
        for row, name in enumerate(names)
    }


def _box(axes: Any, network: Network, name: str, place: tuple[float, float]) -> Any:
    """Draws a node; returns the box, at which arrows end."""
    layer = network.layers[name]
    kind = "neurons" if isinstance(layer, Neurons) else "linear" if isinstance(layer, LINEAR) else "other"
    shape = " x ".join(map(str, network.shapes[name]))
    text = axes.text(
        *place,
        f"{name}\n{network.kinds[name]}\n{shape}",
        ha="center",
        va="center",
        fontsize=8,
        linespacing=1.3,
        bbox={"boxstyle": "round,pad=0.35", "facecolor": COLOURS[kind], "edgecolor": "#5d6670", "linewidth": 0.8},
    )
    return text.get_bbox_patch()


def _arrow(axes: Any, source: tuple[Any, Any], target: tuple[Any, Any], delayed: bool) -> None:
    bend = "arc3,rad=-0.45" if delayed else "arc3,rad=0"
    axes.annotate(
        "",
        xy=target[0],
        xytext=source[0],
        arrowprops={
            "arrowstyle": "-|>",
            "connectionstyle": bend,
            "patchA": source[1],
            "patchB": target[1],
            "shrinkA": 2,
            "shrinkB": 2,
            "color": "#b3401f" if delayed else "#3c4650",
            "linestyle": "--" if delayed else "-",
            "linewidth": 1.0,
        },
    )
