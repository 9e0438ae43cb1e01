"""Files of any size through compiled code: lines in, output lines out, memory independent of the file and its lines.

A file is read in blocks. A block is cut behind its last line feed into a *piece* of whole lines, which any thread can
do by itself; a line longer than a block makes pieces that are done one after the other with the state carried on.
The output is the same as line by line with `speak_neuro.text.lines`, byte for byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.table import render as compiled_lines
from speak_neuro.table.ids import PADDING
from speak_neuro.table.render import LINES, TOKEN_OPEN, TOKENS
from speak_neuro.table.scanner import BLOCK, Running, Scanner, padded, whole_characters
from speak_neuro.table.slots import LONGEST
from speak_neuro.table.table import CompiledTable
from speak_neuro.table.token_counter import TokenCounter
from speak_neuro.table.vocabulary import Vocabulary
from speak_neuro.text.lines import invalid_utf8

Result = TypeVar("Result")
LINE_FEED = 10


class Source(Protocol):
    """A file, or what reads like one."""

    def read(self, size: int, /) -> bytes: ...


class Piece(NamedTuple):
    """A part of a file."""

    raw: bytes
    offset: int
    """Of its first byte in the file."""
    continues: bool
    """It begins inside a line, or does not end with one: to be done in order, with the state carried on."""


class Counts(NamedTuple):
    """What was tokenized; line feeds are not counted."""

    lines: int = 0
    characters: int = 0
    tokens: int = 0

    def __add__(self, other: object) -> Counts:
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts(self.lines + other.lines, self.characters + other.characters, self.tokens + other.tokens)


class Output(NamedTuple):
    """Lines of output, and the error that ended them early."""

    data: memoryview
    counts: Counts
    error: SpeakError | None = None


@dataclass
class Carried:
    """The state between two pieces of one line."""

    running: Running
    bytes_before: int = 0
    """Bytes and characters before the piece, in the same file."""
    characters_before: int = 0
    held: bytes = b""
    """The open token, where its bytes are needed once more."""
    fields: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(compiled_lines.STATE_SIZE, np.int64))


def pieces(source: Source, block: int = BLOCK) -> Iterator[Piece]:
    """The file's pieces. The last line gets a line feed if it has none."""
    rest, offset, continues = b"", 0, False
    while True:
        read = source.read(block)
        data = rest + read
        if continues:  # up to the end of the long line
            end = data.find(b"\n") + 1 or (whole_characters(data, len(data)) if read else len(data))
            ended = data[end - 1 : end] == b"\n"
            tail = data[:end] if ended or read else data + b"\n"
            yield Piece(tail, offset, True)
            continues = not ended and bool(read)
            data, offset = data[end:], offset + end
        if not continues:
            end = data.rfind(b"\n") + 1
            if end:
                yield Piece(data[:end], offset, False)
                data, offset = data[end:], offset + end
            if not read:
                if data:
                    yield Piece(data + b"\n", offset, False)
                return
            if len(data) >= block:
                end = whole_characters(data, len(data))
                yield Piece(data[:end], offset, True)
                data, offset, continues = data[end:], offset + end, True
        rest = data


def in_order(parts: Iterator[Piece], work: Callable[[Piece], Result], threads: int) -> Iterator[Result]:
    """`work` of every piece, in order; pieces of whole lines by several threads, a few pieces ahead."""
    if threads == 1:
        yield from map(work, parts)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for part in parts:
                if part.continues:
                    while pending:
                        yield pending.popleft().result()
                    yield work(part)
                    continue
                pending.append(pool.submit(work, part))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class LineTokenizer:
    """Renders the lines of files in one style."""

    def __init__(self, table: CompiledTable, style: str, vocabulary: Vocabulary | None = None) -> None:
        self._scanner = Scanner(table, LINE_FEED)
        self._style = style
        self._vocabulary = vocabulary if style == "ids" else None
        self._hard_only = self._vocabulary is not None and self._vocabulary.hard_only

    def run(self, source: Source, name: str, write: Callable[[memoryview], Any], threads: int = 1) -> Counts:
        """Write the output lines of a file."""
        total, line = Counts(), self._fresh()

        def work(piece: Piece) -> Output:
            return self._render(piece, name, line if piece.continues else self._fresh())

        for data, counts, error in in_order(pieces(source), work, threads):
            write(data)
            if error is not None:
                raise error
            total += counts
        return total

    def _fresh(self) -> Carried:
        return Carried(self._scanner.start())

    def _render(self, piece: Piece, name: str, carried: Carried) -> Output:
        held, style, fields = len(carried.held), self._style, carried.fields
        scanned = _scan(self._scanner, piece, carried, self._hard_only)
        if scanned.bad is not None:
            error = invalid_utf8(name, piece.offset + scanned.bad, piece.raw[scanned.bad])
            good = 0 if piece.continues else piece.raw.rfind(b"\n", 0, scanned.bad) + 1
            before = Piece(piece.raw[:good], piece.offset, False)
            return Output(self._render(before, name, self._fresh()).data if good else memoryview(b""), Counts(), error)
        data, last, ends, cuts = scanned.data, scanned.last, scanned.ends, scanned.cuts
        fields[LINES] = fields[TOKENS] = 0
        if style in ("json", "marked"):
            out = np.empty((6 if style == "json" else 1) * last + 8 * cuts + 16, np.uint8)
            size = compiled_lines.render_text(data, 0, last, ends, cuts, style == "json", fields, out)
        elif self._vocabulary is not None:
            out = np.empty(12 * last + 4 * cuts + 16, np.uint8)
            size = self._render_ids(scanned, carried, out)
        else:
            out, by_characters = np.empty(56 * cuts + 16, np.uint8), style == "spans"
            base = carried.characters_before if by_characters else carried.bytes_before - held
            size = compiled_lines.render_spans(data, ends, cuts, int(by_characters), base, fields, out)
        carried.bytes_before += last - held
        carried.characters_before += scanned.characters
        lines, tokens = int(fields[LINES]), int(fields[TOKENS])
        return Output(out[:size].data, Counts(lines, scanned.characters - lines, tokens))

    def _render_ids(self, scanned: Scanned, carried: Carried, out: npt.NDArray[np.uint8]) -> int:
        """An open token is held until it is whole; when it can no longer be in the vocabulary, it goes on as bytes."""
        vocabulary = self._vocabulary
        assert vocabulary is not None
        data, last, ends, fields = scanned.data, scanned.last, scanned.ends[: scanned.cuts, 0], carried.fields
        spilled = bool(fields[TOKEN_OPEN])
        closes_line = data[ends - 1] == LINE_FEED
        lines = int(closes_line.sum())
        ids, sizes = np.empty(last + PADDING, np.int32), np.empty(lines, np.int64)
        count, start = vocabulary.look_up(data, 0, scanned.ends, len(ends), LINE_FEED, spilled, ids, sizes)
        # An empty cut, a line feed behind a cut, is no token, unless it closes one that went before as bytes.
        empty = np.diff(ends, prepend=0) == closes_line
        fields[TOKENS] = len(ends) - int(empty.sum()) + int(spilled and bool(empty[:1].any()))
        count, start, spilled = vocabulary.spill(data, start, last, spilled and not len(ends), ids, count)
        if vocabulary.fitted != "whole":  # the tokens are the pieces
            fields[TOKENS] = count
        fields[TOKEN_OPEN] = spilled
        carried.held = data[start:last].tobytes()
        return int(compiled_lines.render_ids(ids, count, sizes, lines, fields, out))


def count_tokens(table: CompiledTable, source: Source, name: str, counter: TokenCounter, threads: int = 1) -> None:
    """Add the tokens of a file's lines to `counter`."""
    scanner = Scanner(table, LINE_FEED)
    line = Carried(scanner.start())

    def work(piece: Piece) -> tuple[Piece, Scanned]:
        carried = line if piece.continues else Carried(scanner.start())
        found = _scan(scanner, piece, carried)
        if piece.continues:
            # A token above the limit is not counted, so its last bytes stand for it.
            start = int(found.ends[found.cuts - 1, 0]) if found.cuts else 0
            carried.held = found.data[start : found.last].tobytes()[-LONGEST - 1 :]
        return piece, found

    for piece, found in in_order(pieces(source), work, threads):
        if found.bad is not None:
            raise invalid_utf8(name, piece.offset + found.bad, piece.raw[found.bad])
        counter.add(found.data, 0, found.ends[: found.cuts], LINE_FEED)


class Scanned(NamedTuple):
    """A piece's boundaries."""

    data: npt.NDArray[np.uint8]
    """The bytes held before and those of the piece."""
    last: int
    ends: npt.NDArray[np.int32]
    """Counted from `data`'s beginning in bytes, from the piece's beginning in characters."""
    cuts: int
    characters: int
    bad: int | None
    """The place in the piece of bytes that are not UTF-8."""


def _scan(scanner: Scanner, piece: Piece, carried: Carried, hard_only: bool = False) -> Scanned:
    held = len(carried.held)
    data = padded(carried.held + piece.raw)
    last = held + len(piece.raw)
    ends = np.empty((len(piece.raw) + 1, 2), np.int32)
    characters, cuts, stop = scanner.scan(data, held, last, False, carried.running, ends, hard_only)
    return Scanned(data, last, ends, cuts, characters, None if stop == last else stop - held)
