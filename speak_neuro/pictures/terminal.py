"""Tokens in a terminal: two grounds in turn, and behind each token how its spike reset the neuron.

hard reset  a solid bar      soft reset  a dotted bar      other tokenizers  the ground alone
"""

from __future__ import annotations

import os
from typing import IO

from speak_neuro.pictures.view import Ending, View

GROUNDS = ("\x1b[48;5;254;38;5;16m", "\x1b[48;5;152;38;5;16m")
"""Light grey and light cyan under black letters: told apart by their lightness too."""
MARKS: dict[Ending, str] = {"hard": "\x1b[38;5;130m┃", "soft": "\x1b[38;5;25m┊", "plain": "", "open": ""}
PLAIN_MARKS: dict[Ending, str] = {"hard": "┃", "soft": "┊", "plain": "│", "open": ""}
RESET = "\x1b[0m"


def wants_colour(stream: IO[str]) -> bool:
    """Whether colours make sense on `stream`: a terminal, and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """Line feeds and tabs as they are; what would steer the terminal as a visible sign."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


def paint(token: str, ending: Ending, index: int, colour: bool) -> str:
    """One token of a line; `index` is its number in the line."""
    shown = printable(token)
    if not colour:
        return shown + PLAIN_MARKS[ending]
    # A ground that ran over a line feed would colour the rest of the screen's line.
    lines = [f"{GROUNDS[index % 2]}{part}{MARKS[ending] if last else ''}{RESET}" for part, last in _marked(shown)]
    return "\n".join(lines)


def _marked(shown: str) -> list[tuple[str, bool]]:
    parts = shown.split("\n")
    marked = len(parts) - 1 if parts[-1] or len(parts) == 1 else len(parts) - 2
    return [(part, index == marked) for index, part in enumerate(parts)]


def terminal(views: list[View], colour: bool) -> str:
    """Each view's name, counts and text."""
    blocks = []
    for view in views:
        marked = zip(view.tokens, view.endings, strict=True)
        text = "".join(paint(token, ending, index, colour) for index, (token, ending) in enumerate(marked))
        blocks.append(f"{printable(view.name)}: {view.summary}\n{text}\n")
    if any(ending in ("hard", "soft") for view in views for ending in view.endings):
        blocks.append("┃ closed by a spike with a hard reset   ┊ closed by a spike with a soft reset\n")
    return "\n".join(blocks)
