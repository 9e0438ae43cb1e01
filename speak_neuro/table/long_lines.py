"""A line of any length through a tokenizer in pieces: the same output as in one piece, in memory that stays flat.

The tokens come from a cursor that carries the neuron's state on; what is written of a token is written as its
characters come, so that not even a token as long as the line is held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.table.pieces import cut_units
from speak_neuro.table.slots import LONGEST
from speak_neuro.table.vocabulary import Vocabulary
from speak_neuro.text.lines import invalid_utf8

PIECE = 1 << 16
"""Bytes of a line that are in memory at once."""


class Reader(Protocol):
    """A file, or what reads like one."""

    def readline(self, size: int, /) -> bytes: ...


class LineWriter:
    """One output line in a format of `speak_neuro.text.lines`, given part by part; it equals `render` of the whole."""

    def __init__(self, stream: IO[bytes], style: str, vocabulary: Vocabulary | None = None) -> None:
        if style == "ids" and vocabulary is None:
            raise SpeakError("ids need a vocabulary; give --vocabulary FILE")
        self._stream, self._style, self._vocabulary = stream, style, vocabulary
        self._open = False
        self._spilled = False
        self._held = ""
        self._start = 0
        self._reached = 0
        self._written = 0
        self.characters = self.tokens = 0
        if style != "marked":
            stream.write(b"[")

    def part(self, text: str, closes: bool) -> None:
        """The next characters of the open token, or the first of a new one; `closes`: the token ends with them."""
        if not text:
            return
        if not self._open:
            self._begin()
        self.characters += len(text)
        self._reached += len(text.encode("utf-8")) if self._style == "bytes" else len(text)
        if self._style == "json":
            self._stream.write(json.dumps(text, ensure_ascii=False)[1:-1].encode())
        elif self._style == "marked":
            self._stream.write(text.encode())
        elif self._style == "ids" and self._vocabulary is not None and self._vocabulary.fitted != "whole":
            # The end of a unit decides its ids, or its length does.
            *decided, rest = cut_units((self._held + text).encode())
            self._ids(self._vocabulary.encode(decided).tolist())
            self._held = rest.decode()
        elif self._style == "ids":
            self._held += text
            if self._spilled or len(self._held.encode()) > LONGEST:
                # Too long for the vocabulary, wherever it ends: its bytes.
                self._spilled = True
                self._ids(list(self._held.encode()))
                self._held = ""
        if closes:
            self._end()

    def end(self) -> None:
        """The end of the line, which always closes its last token."""
        if self._open:
            self._end()
        self._stream.write(b"\n" if self._style == "marked" else b"]\n")

    def _begin(self) -> None:
        self._open, self._start = True, self._reached
        if self.tokens and self._style != "ids":
            self._stream.write(b"|" if self._style == "marked" else b", ")
        if self._style == "json":
            self._stream.write(b'"')

    def _end(self) -> None:
        if self._style == "json":
            self._stream.write(b'"')
        elif self._style in ("spans", "bytes"):
            self._stream.write(b"[%d, %d]" % (self._start, self._reached))
        elif self._style == "ids" and self._vocabulary is not None and self._held:
            self._ids(self._vocabulary.encode([self._held]).tolist())
        self._open = self._spilled = False
        self._held = ""
        self.tokens += 1
        if self._style == "ids" and self._vocabulary is not None and self._vocabulary.fitted != "whole":
            self.tokens = self._written  # the tokens are the pieces

    def _ids(self, ids: list[int]) -> None:
        if not ids:
            return
        before = ", " if self._written else ""
        self._stream.write((before + ", ".join(map(str, ids))).encode())
        self._written += len(ids)


def rest_of_line(first: bytes, source: Reader, name: str, offset: int) -> Iterator[str]:
    """The line that begins with `first` at `offset` of the file `name`, in pieces, without its line feed."""
    raw = first
    while True:
        ended = raw.endswith(b"\n")
        following = b"" if ended else source.readline(PIECE)
        try:
            text, rest = raw.removesuffix(b"\n").decode("utf-8"), b""
        except UnicodeDecodeError as error:
            cut_off = error.reason == "unexpected end of data" and error.end == len(raw)
            if not (cut_off and following):
                raise invalid_utf8(name, offset + error.start, raw[error.start]) from None
            text, rest = raw[: error.start].decode("utf-8"), raw[error.start :]
        yield text
        if not following:
            return
        offset += len(raw) - len(rest)
        raw = rest + following


def write_tokens(writer: LineWriter, text: str, spikes: npt.NDArray[np.bool_]) -> None:
    """The characters `text` of a line and where in them tokens end."""
    start = 0
    for end in (np.flatnonzero(spikes) + 1).tolist():
        writer.part(text[start:end], True)
        start = end
    writer.part(text[start:], False)
