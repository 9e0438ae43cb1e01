"""Tokens and membrane potential as PNG or SVG, for papers and README files (needs the `viz` extra).

Each line of the picture holds a stretch of the text, one cell a character: a strip of boxes for every tokenizer, so
that their boundaries stand one above the other, then the potential with its threshold. Letters are outlines, so an SVG
looks the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from speak_neuro.errors import SpeakError
from speak_neuro.pictures import glyphs
from speak_neuro.pictures.html import Scale
from speak_neuro.pictures.view import View, is_right_to_left, same_text

PER_LINE = 60
LONGEST = 3000
"""Characters a picture holds at most: 50 lines."""
CELL = 0.145
"""Inches."""
STRIP, CURVE, GAP, LEFT, KEY = 0.3, 1.05, 0.22, 0.95, 0.3
HARD, SOFT, INK, QUIET, BAR = "#b3401f", "#1f64a8", "#22282e", "#5d6670", "#8a6fb0"
GROUNDS = ("#eceeed", "#cfe1ea")


def save(views: Sequence[View], stream: IO[bytes], kind: str) -> str:
    """Draw `views` into `stream` as png or svg; returns a line about letters that no font has, or nothing."""
    glyphs.require()
    import matplotlib
    from matplotlib.figure import Figure

    text = same_text(views)
    if not 0 < len(text) <= LONGEST:
        raise SpeakError(
            f"the text has {len(text):,} characters; allowed in a picture: 1 to {LONGEST:,}, or write .html"
        )
    lines = [(start, min(start + PER_LINE, len(text))) for start in range(0, len(text), PER_LINE)]
    columns = max(end - start for start, end in lines)
    heights = [STRIP * len(views) + CURVE * sum(view.neuron is not None for view in views) + GAP for _ in lines]
    width = max(LEFT + columns * CELL + 0.15, 5.2)
    figure = Figure(figsize=(width, sum(heights) + KEY - GAP + 0.05), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, figure.get_figwidth())
    axes.set_ylim(0, figure.get_figheight())
    axes.set_axis_off()
    found = glyphs.letters(text)
    y = figure.get_figheight() - _key(axes, views)
    for line, height in zip(lines, heights, strict=True):
        _Line(axes, text, line, columns, found).draw(views, y)
        y -= height
    # Ids in an SVG are random unless salted: the same picture shall be the same file.
    with matplotlib.rc_context({"svg.hashsalt": "speak_neuro", "svg.fonttype": "path"}):
        figure.savefig(stream, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return found.complaint()


def _key(axes: Any, views: Sequence[View]) -> float:
    """Names of the strips and what the marks mean; returns the height it takes."""
    from matplotlib.lines import Line2D

    marks = []
    if any(view.neuron for view in views):
        marks.append(Line2D([], [], color=HARD, marker="s", markersize=5, linewidth=1.3, label="hard reset"))
        soft = Line2D([], [], color=SOFT, marker="o", markersize=5, linestyle=":", linewidth=1.6, label="soft reset")
        soft.set_markerfacecolor("white")
        marks.append(soft)
        marks.append(Line2D([], [], color=QUIET, linestyle="--", linewidth=0.9, label="threshold"))
    if any(view.neuron is not None and view.neuron.entropy is not None for view in views):
        marks.append(Line2D([], [], color=BAR, marker="s", markersize=5, linestyle="", label="entropy (bits)"))
    if marks:
        axes.legend(handles=marks, loc="upper right", ncols=len(marks), fontsize=8, frameon=False, borderaxespad=0.2)
    return KEY


class _Line:
    """One line of the picture."""

    def __init__(self, axes: Any, text: str, line: tuple[int, int], columns: int, found: glyphs.Letters) -> None:
        self.axes, self.text, self.found = axes, text, found
        self.start, self.end = line
        self.rtl = is_right_to_left(text)
        self.right = LEFT + columns * CELL

    def x(self, place: float) -> float:
        """Inches from the left of `place`, in characters from the text's beginning."""
        along = (place - self.start) * CELL
        return self.right - along if self.rtl else LEFT + along

    def draw(self, views: Sequence[View], top: float) -> None:
        """All strips, then all curves."""
        y = top
        for view in views:
            self._strip(view, y, named=len(views) > 1)
            y -= STRIP
        for view in views:
            if view.neuron is not None:
                self._curve(view, y, named=sum(other.neuron is not None for other in views) > 1)
                y -= CURVE

    def _strip(self, view: View, top: float, named: bool) -> None:
        from matplotlib.patches import PathPatch, Rectangle
        from matplotlib.transforms import Affine2D

        low, high = top - STRIP + 0.05, top - 0.02
        if named:
            self._label((low + high) / 2, view.name)
        for index, ((a, b), ending) in enumerate(zip(view.spans.tolist(), view.endings, strict=True)):
            if b <= self.start or a >= self.end:
                continue
            sides = sorted((self.x(max(a, self.start)), self.x(min(b, self.end))))
            box = (sides[0], low), sides[1] - sides[0], high - low
            self.axes.add_patch(Rectangle(*box, color=GROUNDS[index % 2], linewidth=0))
            if b <= self.end and ending != "open":
                colour, style = {"hard": (HARD, "-"), "soft": (SOFT, ":"), "plain": (QUIET, "-")}[ending]
                width = 1.8 if ending != "plain" else 1.0
                self.axes.plot([self.x(b)] * 2, [low, high], color=colour, linestyle=style, linewidth=width)
        for glyph in self.found.glyphs:
            if glyph.outline is None or not self.start <= glyph.start < self.end:
                continue
            size = min(0.15, 0.98 * CELL * (glyph.end - glyph.start) / max(glyph.width, 0.1))
            middle = (self.x(glyph.start) + self.x(min(glyph.end, self.end))) / 2
            place = Affine2D().scale(size).translate(middle - glyph.width * size / 2, low + 0.07)
            self.axes.add_patch(PathPatch(place.transform_path(glyph.outline), facecolor=INK, linewidth=0))

    def _label(self, y: float, name: str) -> None:
        lines = [line if len(line) <= 16 else line[:15] + "…" for line in name.split("\n")]
        self.axes.text(LEFT - 0.08, y, "\n".join(lines), fontsize=7, color=QUIET, ha="right", va="center")

    def _curve(self, view: View, top: float, named: bool) -> None:
        run = view.neuron
        assert run is not None
        scale = Scale.of(run)
        low, high = top - CURVE + 0.12, top - 0.1

        def y(potential: float) -> float:
            return low + (potential - scale.low) / (scale.high - scale.low) * (high - low)

        edges = [self.x(self.start), self.x(self.end)]
        self.axes.plot(edges, [y(run.threshold)] * 2, color=QUIET, linestyle="--", linewidth=0.9)
        self.axes.plot(edges, [y(0.0)] * 2, color="#d5d8d8", linewidth=0.7, zorder=0)
        self._label((low + high) / 2, f"potential,\n{view.name}" if named else "potential")
        at = np.arange(self.start, self.end)
        if run.entropy is not None:
            tall = np.asarray(run.entropy)[at] / scale.most_bits * (high - low) * 0.3
            style = {"color": BAR, "alpha": 0.45, "linewidth": 0}
            self.axes.bar([self.x(t + 0.5) for t in at], tall, CELL * 0.6, low - 0.08, **style)
        self.axes.plot([self.x(t + 0.5) for t in at], [y(u) for u in run.membrane[at]], color=INK, linewidth=1.1)
        for t in at[run.spikes[at]].tolist():
            hard = bool(run.gate_open[t])
            colour = HARD if hard else SOFT
            edge, bar = [self.x(t + 1)] * 2, [low - 0.05, high + 0.05]
            self.axes.plot(edge, bar, color=colour, alpha=0.55, linestyle="-" if hard else ":", linewidth=1.1)
            (point,) = self.axes.plot(self.x(t + 0.5), y(float(run.membrane[t])), "s" if hard else "o", color=colour)
            point.set(markersize=4.2, markerfacecolor=colour if hard else "white", markeredgewidth=1.2)
