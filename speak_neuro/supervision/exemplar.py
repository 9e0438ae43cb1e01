"""The exemplar whose boundaries start the proxy spikes: a Unigram model, as in DTP.

Words are runs of letters and digits, or of other signs; a piece never leaves its word. A run of white space belongs to
the end of the token before it (at the text's start it is a token). A character that no piece knows is a token.
Boundaries follow the `closes` convention: True at the last character of a token, always at the text's end.

The same text gives the same model, byte for byte (`speak_neuro.text.unigram`). It is saved with the run all the same,
and a resume reads it: learning it again would take longer, and a later version may learn another one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models, pre_tokenizers

from speak_neuro.common.array_types import BoolArray
from speak_neuro.common.files import atomic_write
from speak_neuro.common.json_files import Strict, check_json
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import read_whole
from speak_neuro.errors import SpeakError
from speak_neuro.text.unigram import UNKNOWN, train_unigram

CHARACTERS_PER_PIECE = 50
"""A text has to have so many characters for each piece: fewer teach no frequencies."""
LONGEST_RUN = 1000
"""Characters without white space that the library gets at once; a longer run is cut here."""

_RUN = re.compile(r"\S+")
_SURROGATE = re.compile("[\ud800-\udfff]")


def whitespace_boundaries(text: str) -> BoolArray:
    """True at the last character of each run of white space, and at the text's end."""
    ends = np.zeros(len(text), dtype=np.bool_)
    for run in _RUN.finditer(text):
        if run.start():
            ends[run.start() - 1] = True
    if text:
        ends[-1] = True
    return ends


class _Model(Strict):
    """The model's part of the file: its unknown piece is the first, as `ends_of_run` has it."""

    type: Literal["Unigram"]
    unk_id: Literal[0]
    vocab: list[list[Any]]


class _File(Strict):
    model: _Model


class UnigramExemplar:
    """A trained exemplar."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ends: dict[str, npt.NDArray[np.int64]] = {}

    @classmethod
    def train(cls, text: str, vocabulary: int = 5000) -> UnigramExemplar:
        """Learn about `vocabulary` pieces from `text`; fewer from a short one, but always each of its characters."""
        if vocabulary < 1:
            raise ValueError(f"vocabulary is {vocabulary}; allowed: at least 1")
        if not text.strip():
            raise SpeakError("the text for the Unigram exemplar is empty or white space; there is nothing to learn")
        # One of the pieces is the unknown one.
        size = min(vocabulary, len(text) // CHARACTERS_PER_PIECE) - 1
        tokenizer = Tokenizer(models.Unigram([(UNKNOWN, 0.0), *train_unigram(_word_counts(text), size)], unk_id=0))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return cls(tokenizer)

    @property
    def pieces(self) -> set[str]:
        """The pieces it knows."""
        return set(self._tokenizer.get_vocab()) - {UNKNOWN}

    def boundaries(self, text: str) -> BoolArray:
        """Where tokens end, (L,)."""
        ends = whitespace_boundaries(text)
        for match in _RUN.finditer(text):
            last = match.end() - 1
            for start, stop in _cut(match.start(), match.end()):
                ends[start + self._run_ends(text[start:stop])] = True
            # White space after the run belongs to its last token.
            ends[last] = last + 1 == len(text)
        return ends

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a tokenizer.json that the `tokenizers` library reads."""
        with atomic_write(path, "w") as stream:
            stream.write(self.to_text())

    def to_text(self) -> str:
        """What `save` writes."""
        return str(self._tokenizer.to_str(pretty=True))

    @classmethod
    def from_text(cls, text: str) -> UnigramExemplar:
        """The inverse of `to_text`."""
        return cls(Tokenizer.from_str(text))

    def digest(self) -> str:
        """SHA-256 of what `save` writes."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()

    @classmethod
    def load(cls, path: str | os.PathLike[str], digest: str | None = None) -> UnigramExemplar:
        """Read the model that `save` wrote; `digest` is what it has to be, where that is known."""
        advice, where = "give the exemplar.json that a run saved", os.fspath(path)
        try:
            raw = read_whole(path, advice)
        except FileNotFoundError:
            raise SpeakError(f"{where}: no such file; {advice}") from None
        if digest is not None and hashlib.sha256(raw).hexdigest() != digest:
            raise SpeakError(f"{where}: was damaged or changed since its run began; restore it")
        try:
            content = parse_json(raw, where, advice)
            check_json(content, _File, where, advice)
            return cls.from_text(raw.decode("utf-8"))
        except Exception as error:  # the library raises bare Exception
            reason = " ".join(str(error).removeprefix(f"{where}: ").removesuffix(f"; {advice}").split())
            raise SpeakError(f"{where}: not an exemplar ({reason}); give the file that a run saved") from None

    def ends_of_run(self, run: str) -> npt.NDArray[np.int64]:
        """Offsets of the last characters of the tokens in a run of up to LONGEST_RUN characters without white space."""
        encoding = self._tokenizer.encode(_encodable(run), add_special_tokens=False)
        found = np.array([end - 1 for _, end in encoding.offsets], dtype=np.int64)
        # The model joins neighbouring unknown characters into one token; here each is one.
        unknown = [
            position
            for (start, end), token in zip(encoding.offsets, encoding.ids, strict=True)
            if token == 0
            for position in range(start, end)
        ]
        return np.union1d(found, np.array(unknown, dtype=np.int64))

    def inner_ends(self, runs: Sequence[str]) -> list[int]:
        """`ends_of_run` of many runs of up to 63 characters, each without its last character, as bits 1 << offset."""
        found = []
        encodings = self._tokenizer.encode_batch([*map(_encodable, runs)], add_special_tokens=False)
        for run, encoding in zip(runs, encodings, strict=True):
            bits = 0
            for (start, end), token in zip(encoding.offsets, encoding.ids, strict=True):
                bits |= 1 << (end - 1) if token else (1 << end) - (1 << start)
            found.append(bits & ~(1 << (len(run) - 1)))
        return found

    def _run_ends(self, run: str) -> npt.NDArray[np.int64]:
        """`ends_of_run`, kept."""
        found = self._ends.get(run)
        if found is None:
            found = self._ends[run] = self.ends_of_run(run)
        return found


def _word_counts(text: str) -> Counter[str]:
    """How often each word occurs; what a word is, the tokenizer's own rule says."""
    words: Counter[str] = Counter()
    rule = pre_tokenizers.Whitespace()
    runs = Counter(text[a:b] for match in _RUN.finditer(text) for a, b in _cut(match.start(), match.end()))
    for run, count in runs.items():
        for word, _ in rule.pre_tokenize_str(_encodable(run)):
            words[word] += count
    return words


def _cut(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for low in range(start, stop, LONGEST_RUN):
        yield low, min(low + LONGEST_RUN, stop)


def _encodable(text: str) -> str:
    """`text` with lone surrogates, which the library cannot take, replaced one for one."""
    return _SURROGATE.sub("\ufffd", text)
