"""One picture of one text, read by one or several tokenizers: shown where it is asked for, saved in four forms."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from speak_neuro.common.files import atomic_write
from speak_neuro.errors import SpeakError
from speak_neuro.pictures import html
from speak_neuro.pictures.terminal import terminal, wants_colour
from speak_neuro.pictures.view import View, same_text

FORMS = (".html", ".png", ".svg", ".txt")


class Picture:
    """Tokens, and the neuron behind them, as a notebook or a terminal shows them.

    A notebook draws the last expression of a cell by itself; in a terminal print it.
    """

    def __init__(self, views: Sequence[View], title: str = "Tokens") -> None:
        same_text(views)
        self.views = list(views)
        self.title = title

    def beside(self, other: Picture) -> Picture:
        """Both pictures' tokenizers, one below the other; they are of the same text."""
        return Picture([*self.views, *other.views], self.title)

    def html(self) -> str:
        """A page that needs no other file and runs no script."""
        return html.page(self.views, self.title)

    def terminal(self, colour: bool = False) -> str:
        """Lines for a terminal."""
        return terminal(self.views, colour)

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write .html, .png, .svg or .txt by the file's ending; returns a note on letters that no font has, or ""."""
        ending = Path(path).suffix.lower()
        check_form(path)
        note = ""
        with atomic_write(path) as stream:
            if ending in (".png", ".svg"):
                from speak_neuro.pictures import figure  # matplotlib, of an extra, and half a second

                note = figure.save(self.views, stream, ending[1:])
            else:
                text = self.html() if ending == ".html" else self.terminal()
                stream.write(text.encode("utf-8", "replace"))
        return note

    def _repr_html_(self) -> str:
        return html.fragment(self.views)

    def __repr__(self) -> str:
        return self.terminal(wants_colour(sys.stdout))


def check_form(path: str | os.PathLike[str]) -> None:
    """Refuse a file name from whose ending no picture can be made."""
    if Path(path).suffix.lower() not in FORMS:
        raise SpeakError(f"{os.fspath(path)}: no such form of picture; allowed: a name that ends in {', '.join(FORMS)}")
