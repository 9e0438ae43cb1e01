"""Tokens of a text that arrives in pieces: the same tokens as of the whole, whatever the pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any


class TokenStream:
    """Gives a token out with the character that closes it, without waiting for the next.

    `start` makes the state at the beginning of a text; `advance(state, piece)` says where tokens end in the next piece,
    in characters of it, and what the state is behind it.
    """

    def __init__(self, start: Callable[[], Any], advance: Callable[[Any, str], tuple[list[int], Any]]) -> None:
        self._start, self._advance = start, advance
        self._state = start()
        self._open: list[str] = []  # pieces of the token that nothing has closed yet: joined once, when it ends

    def feed(self, piece: str) -> list[str]:
        """The tokens that `piece` closes."""
        ends, self._state = self._advance(self._state, piece)
        tokens, start = [], 0
        for end in ends:
            tokens.append(piece[start:end])
            start = end
        if tokens and self._open:
            tokens[0], self._open = "".join(self._open) + tokens[0], []
        if start < len(piece):
            self._open.append(piece[start:])
        return tokens

    def flush(self) -> list[str]:
        """The last, unfinished token, if any; the stream is then at the beginning of a new text."""
        rest, self._open = "".join(self._open), []
        self._state = self._start()
        return [rest] if rest else []

    def feed_all(self, pieces: Iterable[str]) -> Iterator[str]:
        """Tokens of all `pieces`, then the last one."""
        for piece in pieces:
            yield from self.feed(piece)
        yield from self.flush()
