"""Tokens as HTML: a page of one file without any script, or a fragment for a notebook.

The chart is cut into pieces of a few characters that flow like words, so it fits a telephone and a wide screen alike.
A right-to-left text has its pieces, and the characters in them, running from right to left as its lines do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from speak_neuro.common.pages import templates
from speak_neuro.pictures.view import NeuronRun, View, clusters, is_right_to_left, same_text, visible

PIECE = 7
"""Characters of one piece of the chart: 105 pixels, three of which fit a telephone."""
CELL = 15
TOP, BASE, HEIGHT = 14.0, 112.0, 166
"""Of the curve: the line of the largest potential, that of the smallest, and the height of a piece with its text."""
BARS = 24.0
"""Height of the entropy's bars at the most bits shown."""

_environment = templates("speak_neuro.pictures", "templates")


@dataclass(frozen=True)
class Scale:
    """Potential to pixels, the same in all pieces of a chart."""

    low: float
    high: float
    most_bits: float

    @classmethod
    def of(cls, run: NeuronRun) -> Scale:
        """From the run's smallest potential (or 0) to its largest (or the threshold)."""
        values = [*np.asarray(run.membrane, dtype=np.float64).tolist(), 0.0, run.threshold]
        bits = float(run.entropy.max()) if run.entropy is not None and run.entropy.size else 0.0
        return cls(min(values), max(values), max(bits, 1e-6))

    def y(self, potential: float) -> float:
        """Pixels from the top."""
        return round(BASE - (potential - self.low) / (self.high - self.low) * (BASE - TOP), 1)


def page(views: Sequence[View], title: str) -> str:
    """A self-contained page."""
    return _environment.get_template("page.html").render(title=title, **_content(views))


def fragment(views: Sequence[View]) -> str:
    """The same for a notebook: it brings its own style and leaves the notebook's alone."""
    return _environment.get_template("fragment.html").render(**_content(views))


def _content(views: Sequence[View]) -> dict[str, Any]:
    text = same_text(views)
    return {
        "views": [_view(view) for view in views],
        "direction": "rtl" if is_right_to_left(text) else "ltr",
        "neurons": any(view.neuron for view in views),
        "resets": any(ending in ("hard", "soft") for view in views for ending in view.endings),
        "plain": any("plain" in view.endings for view in views),
        "entropy": any(view.neuron and view.neuron.entropy is not None for view in views),
        "cell": CELL,
        "height": HEIGHT,
    }


def _view(view: View) -> dict[str, Any]:
    return {
        "name": view.name,
        "summary": view.summary,
        "tokens": list(zip(map(_shown, view.tokens), view.endings, strict=True)),
        "pieces": _pieces(view) if view.neuron else [],
    }


def _shown(token: str) -> Markup | str:
    """A token of the running text: a line feed is seen and breaks the line, what HTML cannot hold is replaced."""
    return "".join(c if c.isprintable() or c == "\t" else "↵\n" if c == "\n" else "\ufffd" for c in token)


def _pieces(view: View) -> list[dict[str, Any]]:
    run = view.neuron
    assert run is not None
    scale, text = Scale.of(run), view.text
    rtl = is_right_to_left(text)
    endings = dict(zip((view.spans[:, 1] - 1).tolist(), view.endings, strict=True))
    pieces, groups = [], clusters(text)
    for start in range(0, len(text), PIECE):
        end = min(start + PIECE, len(text))
        width = (end - start) * CELL

        def x(place: float, start: int = start, width: int = width) -> float:
            """Pixels from the left of `place`, in characters from the text's beginning."""
            along = (place - start) * CELL
            return round(width - along if rtl else along, 1)

        points = [(t + 0.5, float(run.membrane[t])) for t in range(max(0, start - 1), min(len(text), end + 1))]
        spikes = [
            {
                "x": x(t + 0.5),
                "y": scale.y(float(run.membrane[t])),
                "edge": min(max(x(t + 1), 1.0), width - 1.0),
                "kind": endings[t],
                "what": f"{'hard' if endings[t] == 'hard' else 'soft'} reset, potential {run.membrane[t]:.2f}",
            }
            for t in range(start, end)
            if run.spikes[t]
        ]
        glyphs = [
            {"x": x((max(a, start) + min(b, end)) / 2), "text": "".join(map(visible, text[a:b]))}
            for a, b in groups
            if start <= a < end
        ]
        bars = []
        if run.entropy is not None:
            tall = [float(run.entropy[t]) / scale.most_bits * BARS for t in range(start, end)]
            bars = [{"x": x(start + i + 0.5) - CELL * 0.3, "height": round(h, 1)} for i, h in enumerate(tall)]
        pieces.append(
            {
                "width": width,
                "path": " ".join(f"{x(place)},{scale.y(u)}" for place, u in points),
                "threshold": scale.y(run.threshold),
                "zero": scale.y(0.0),
                "spikes": spikes,
                "glyphs": glyphs,
                "bars": bars,
                "bar_width": CELL * 0.6,
            }
        )
    return pieces
