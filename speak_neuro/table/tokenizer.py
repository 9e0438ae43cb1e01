"""A table tokenizer as its users want it: strings in, tokens or ids out, nothing lost. Needs no torch.

tokenizer = speak_neuro.table.tokenizer.load("table.safetensors", vocabulary="vocabulary.safetensors")
tokenizer.tokens("a line of text")          # the same tokens as speak_neuro.inference.speak.Speak gives
ids = tokenizer.encode("a line of text")    # tokenizer.decode(ids) gives the line back
tokenizer.encode_batch(lines, threads=8)

Two backends with the same results: plain numpy, slow but at once, and compiled code, which takes a while to load.
"auto" starts with the first and changes to the second when a text, or all texts so far, are long enough to repay it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.table.load_vocabulary import load_vocabulary
from speak_neuro.table.scanner import BLOCK, ByteArray, Scanner, padded, whole_characters
from speak_neuro.table.slots import LONGEST_UNIT
from speak_neuro.table.table import CompiledTable, State
from speak_neuro.table.vocabulary import IdArray, Vocabulary
from speak_neuro.text import segments
from speak_neuro.text.stream import TokenStream

IndexArray = npt.NDArray[np.int64]

BACKENDS = ("auto", "numpy", "numba")
UNITS = ("character", "byte")
PATIENCE = 1 << 18
"""Characters for which "auto" uses numpy; about as long as loading compiled code takes."""


class TableTokenizer:
    """A compiled tokenizer, with token ids when it has a vocabulary."""

    def __init__(self, table: CompiledTable, vocabulary: Vocabulary | None = None, backend: str = "auto") -> None:
        if backend not in BACKENDS:
            raise ValueError(f"backend is {backend!r}; allowed: {', '.join(BACKENDS)}")
        self.table = table
        self.alphabet = table.alphabet
        self.vocabulary = vocabulary
        self.backend = backend
        self._seen = 0
        self._scanner: Scanner | None = None

    def __getstate__(self) -> dict[str, Any]:
        """As it was made, whatever it has seen: the same tokenizer is the same bytes, so a cache's key holds."""
        return {**self.__dict__, "_seen": 0, "_scanner": None}

    def compiled(self, characters: int) -> bool:
        """Whether to use compiled code for the next `characters`."""
        if self.backend != "auto":
            return self.backend == "numba"
        self._seen += characters
        return self._seen > PATIENCE or "speak_neuro.table.scan" in sys.modules

    @property
    def scanner(self) -> Scanner:
        """The table as compiled code wants it, made once."""
        if self._scanner is None:
            self._scanner = Scanner(self.table)
        return self._scanner

    def spans(self, text: str, unit: str = "character", hard_only: bool = False) -> IndexArray:
        """(n, 2) half-open spans [start, end) that partition `text`, in characters or in UTF-8 bytes.

        They are SPEAK's tokens, with `hard_only` the contextual ranges between hard resets.
        """
        column = _column(unit)
        size = len(text) if column else _utf8_size(text)
        if not self.compiled(len(text)):
            spikes, _ = self.table.spikes(text, None, hard_only)
            found = segments.spans(spikes)
            return found if column else segments.byte_spans(text, found)
        from speak_neuro.table.scan import put_spans

        blocks, _ = self._scanned(text, self.table.start(), hard_only)
        spans = np.empty((sum(len(ends) for ends, *_ in blocks) + 1, 2), np.int64)
        start = n = 0
        for ends, *before in blocks:
            start = put_spans(ends, len(ends), column, before[column], start, spans, n)
            n += len(ends)
        if start < size:  # the last token always closes
            spans[n] = start, size
            n += 1
        return spans[:n]

    def tokens(self, text: str) -> list[str]:
        """The tokens of `text`; joined they are `text`."""
        return [text[start:end] for start, end in self.spans(text).tolist()]

    def encode(self, text: str) -> IdArray:
        """The token ids of `text`, (n,) int32."""
        vocabulary = self._vocabulary()
        if not self.compiled(len(text)):
            spans = self.spans(text, hard_only=vocabulary.hard_only).tolist()
            return vocabulary.encode(text[start:end] for start, end in spans)
        from speak_neuro.table.ids import PADDING

        raw = text.encode("utf-8", "surrogatepass")
        data, size, scanner = padded(raw), len(raw), self.scanner
        room = min(size, BLOCK) + LONGEST_UNIT + 2
        ends, ids = np.empty((room, 2), np.int32), np.empty(room + PADDING, np.int32)
        sizes = np.empty(0, np.int64)
        found, at, start, spilled = [], 0, 0, False
        running = scanner.start()
        while at < size:
            last = whole_characters(data, min(at + BLOCK, size))
            view = data[start:]
            _, cuts, _ = scanner.scan(view, at - start, last - start, True, running, ends, vocabulary.hard_only)
            if last == size and (cuts == 0 or ends[cuts - 1, 0] < size - start):
                ends[cuts, 0] = size - start
                cuts += 1
            count, ahead = vocabulary.look_up(view, 0, ends, cuts, -1, spilled, ids, sizes)
            count, ahead, spilled = vocabulary.spill(view, ahead, last - start, spilled and cuts == 0, ids, count)
            found.append(ids[:count].copy())
            start, at = start + ahead, last
        return np.concatenate(found) if found else np.zeros(0, np.int32)

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of ids (n,): the inverse of `encode`."""
        return self._vocabulary().decode(ids)

    def running(self, hard_only: bool = False) -> Callable[[str], npt.NDArray[np.bool_]]:
        """A function that gives the `spikes` of a text's next characters, call after call."""
        state: State | None = None

        def spikes(text: str) -> npt.NDArray[np.bool_]:
            nonlocal state
            fired, state = self.table.spikes(text, state, hard_only)
            return fired

        return spikes

    def stream(self) -> TokenStream:
        """A stream at the beginning of a text."""
        return TokenStream(lambda: None, self.advance)

    def advance(self, state: State | None, piece: str, hard_only: bool = False) -> tuple[list[int], State]:
        """Where tokens, or contextual ranges, end in the next `piece`, in characters of it; the state behind it."""
        cuts, reached = self.cuts(piece, state, hard_only)
        return cuts[:, 1].tolist(), reached

    def spans_batch(self, texts: Sequence[str], unit: str = "character", threads: int = 1) -> list[IndexArray]:
        """`spans` of each text. Threads do not change the result."""
        column = _column(unit)
        if not self.compiled(sum(map(len, texts))):
            return [self.spans(text, unit) for text in texts]
        from speak_neuro.table.scan import cut_texts

        def of_group(data: ByteArray, ends: npt.NDArray[np.int32], texts: int) -> list[IndexArray]:
            spans, sizes = np.empty((len(ends), 2), np.int64), np.empty(texts, np.int64)
            return _split(spans[: cut_texts(data, ends, len(ends), column, spans, sizes)], sizes)

        return self._batch(texts, of_group, lambda text: self.spans(text, unit), threads)

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[IdArray]:
        """`encode` of each text. Threads do not change the result."""
        vocabulary = self._vocabulary()
        if not self.compiled(sum(map(len, texts))):
            return [self.encode(text) for text in texts]
        from speak_neuro.table.scan import BREAK

        def of_group(data: ByteArray, ends: npt.NDArray[np.int32], texts: int) -> list[IdArray]:
            ids, sizes = np.empty(len(data), np.int32), np.empty(texts, np.int64)
            count, _ = vocabulary.look_up(data, 0, ends, len(ends), BREAK, False, ids, sizes)
            return _split(ids[:count], sizes)

        return self._batch(texts, of_group, self.encode, threads, vocabulary.hard_only)

    def _batch(
        self,
        texts: Sequence[str],
        of_group: Callable[[ByteArray, npt.NDArray[np.int32], int], list[npt.NDArray[Any]]],
        of_long: Callable[[str], npt.NDArray[Any]],
        threads: int,
        hard_only: bool = False,
    ) -> list[npt.NDArray[Any]]:
        if threads < 1:
            raise ValueError(f"threads is {threads}; allowed: at least 1")
        from speak_neuro.table.scan import BREAK

        scanner = self.scanner

        def run(group: list[str]) -> list[npt.NDArray[Any]]:
            if len(group) == 1 and len(group[0]) > BLOCK:
                return [of_long(group[0])]
            mark = bytes([BREAK])
            raw = mark.join([text.encode("utf-8", "surrogatepass") for text in group]) + mark
            data = padded(raw)
            ends = np.empty((len(raw) + 1, 2), np.int32)
            _, cuts, _ = scanner.scan(data, 0, len(raw), True, scanner.start(), ends, hard_only)
            return of_group(data, ends[:cuts], len(group))

        groups = _groups(texts)
        if threads == 1:
            return [found for group in groups for found in run(group)]
        with ThreadPoolExecutor(threads) as pool:
            return [found for part in pool.map(run, groups) for found in part]

    def cuts(self, text: str, state: State | None = None, hard_only: bool = False) -> tuple[IndexArray, State]:
        """(n, 2) ends of the tokens, or ranges, that close in `text`, in bytes and characters; the state after it."""
        if not self.compiled(len(text)):
            spikes, reached = self.table.spikes(text, state, hard_only)
            at = np.flatnonzero(spikes) + 1
            both = segments.byte_spans(text, np.stack([at, at], axis=1))
            both[:, 1] = at
            return both, reached
        state = state or self.table.start()
        blocks, potential = self._scanned(text, state, hard_only)
        found = [ends + np.array(before, dtype=np.int64) for ends, *before in blocks]
        return np.concatenate(found) if found else np.zeros((0, 2), np.int64), self.table.after(state, text, potential)

    def _scanned(
        self, text: str, state: State, hard_only: bool
    ) -> tuple[list[tuple[npt.NDArray[np.int32], int, int]], np.float32]:
        """The text by compiled code in blocks: their cuts, and the bytes and characters before; then the potential."""
        raw = text.encode("utf-8", "surrogatepass")
        data, size = padded(raw), len(raw)
        running = self.scanner.start(state)
        ends = np.empty((min(size, BLOCK) + 2, 2), np.int32)
        found, at_byte, at_character = [], 0, 0
        while at_byte < size:
            last = whole_characters(data, min(at_byte + BLOCK, size))
            characters, cuts, _ = self.scanner.scan(data[at_byte:], 0, last - at_byte, True, running, ends, hard_only)
            found.append((ends[:cuts].copy(), at_byte, at_character))
            at_byte, at_character = last, at_character + characters
        return found, running.potential[0]

    def _vocabulary(self) -> Vocabulary:
        if self.vocabulary is None:
            raise SpeakError("this tokenizer has no vocabulary; give one: load(table, vocabulary=FILE)")
        return self.vocabulary


def _column(unit: str) -> int:
    if unit not in UNITS:
        raise ValueError(f"unit is {unit!r}; allowed: {', '.join(UNITS)}")
    return int(unit == "character")


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """Runs of texts of up to `BLOCK` characters together; a longer one is alone."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > BLOCK:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text) + 1
    if group:
        yield group


def _split(values: npt.NDArray[Any], sizes: IndexArray) -> list[npt.NDArray[Any]]:
    """The first sizes[0] values, the next sizes[1], and so on, each a copy that does not keep the whole alive."""
    ends = np.cumsum(sizes).tolist()
    return [values[start:end].copy() for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def load(
    path: str | os.PathLike[str],
    vocabulary: Vocabulary | str | os.PathLike[str] | None = None,
    backend: str = "auto",
) -> TableTokenizer:
    """The tokenizer of a table file, with token ids when a vocabulary (or its file) is given."""
    if vocabulary is not None and not isinstance(vocabulary, Vocabulary):
        vocabulary = load_vocabulary(vocabulary)
    return TableTokenizer(CompiledTable.read(path), vocabulary, backend)
