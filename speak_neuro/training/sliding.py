"""Sliding context: which windows read a text, and which of its characters each of them scores.

    every character is scored once, by the one window that scores it
    windows of W characters move on by S (stride): the first scores all its characters, each later one its last S
    growing (Dynamic Token Pooling's protocol):    every window scores its last S; the first ones are short, S, 2S, ...

so that each scored character sees at least W - S characters before it, or all there are. Since nothing reads the
future, a character's score does not depend on where its window ends, and with S a divisor of W both give the same.
"""

from __future__ import annotations

from typing import NamedTuple

from speak_neuro.errors import SpeakError


class View(NamedTuple):
    """One window over a text: it reads [start, end) and scores [first, end)."""

    start: int
    first: int
    end: int


def views(size: int, window: int, stride: int | None = None, growing: bool = False) -> list[View]:
    """The windows over a text of `size` characters; `stride` defaults to half a window."""
    stride = default_stride(window) if stride is None else stride
    if window < 1:
        raise SpeakError(f"window is {window}; allowed: at least 1")
    if not 1 <= stride <= window:
        raise SpeakError(f"stride is {stride}; allowed: 1 to the window, {window}")
    found = []
    scored = 0
    while scored < size:
        end = scored + (stride if growing or scored else window)
        found.append(View(max(0, end - window), scored, min(end, size)))
        scored = end
    return found


def default_stride(window: int) -> int:
    """Half a window."""
    return max(1, window // 2)
