"""One tokenizer for every trained run: text to ids and back, offsets, special tokens, streams, a vocabulary.

    tokenizer = speak_neuro.Tokenizer.load("runs/mine")                 # a run, GTok or RTok, a table, a saved folder
    tokenizer = tokenizer.learn_vocabulary(texts, 8192, specials=["<|end|>"])
    ids = tokenizer.encode("a line of text")                            # tokenizer.decode(ids) gives the line back
    tokenizer.encode_batch(lines, threads=8)
    tokenizer.save("my-tokenizer/")

Frozen: an id never depends on what was seen before, and `learn_vocabulary` gives another tokenizer. It can be pickled,
shared by threads, and used after a fork. Where the run has a table (`linear`, `convolution`), numpy and numba serve.

Ids: 0 to 255 the bytes, then the vocabulary's pieces, then the special tokens in their order.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from speak_neuro.api.boundaries import Boundaries, NetworkBoundaries, TableBoundaries
from speak_neuro.api.folder import load_parts, save_parts
from speak_neuro.api.specials import Allowed, allowed_names, check_specials, parts
from speak_neuro.api.stream import IdStream
from speak_neuro.common.array_types import Int64Array
from speak_neuro.errors import SpeakError
from speak_neuro.pictures.view import Ending, View
from speak_neuro.table.learn_pieces import learn_pieces
from speak_neuro.table.slots import UNITS
from speak_neuro.table.tokenizer import TableTokenizer
from speak_neuro.table.vocabulary import IdArray, Vocabulary
from speak_neuro.text import segments
from speak_neuro.text.stream import TokenStream

if TYPE_CHECKING:
    from speak_neuro.pictures.picture import Picture


class Encoding(NamedTuple):
    """Ids, and where each comes from."""

    ids: IdArray
    offsets: Int64Array
    """(n, 2) half-open spans of the text. An id that is a part of a character has that character's span."""


@dataclass(frozen=True)
class Tokenizer:
    """See the top of this module."""

    boundaries: Boundaries
    vocabulary: Vocabulary | None = None
    special_tokens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "special_tokens", check_specials(self.special_tokens))
        if isinstance(self.boundaries, TableBoundaries):  # which encodes whole texts in one go
            table = self.boundaries.table
            own = TableBoundaries(TableTokenizer(table.table, self.vocabulary, table.backend))
            object.__setattr__(self, "boundaries", own)

    # Files

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "cpu") -> Tokenizer:
        """The tokenizer of a saved folder, a run folder, or a table file. `device` is for runs without a table."""
        return cls(*load_parts(Path(path), device))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write all of it into one folder."""
        save_parts(Path(folder), self.boundaries, self.vocabulary, self.special_tokens)

    # Vocabulary

    @property
    def vocab_size(self) -> int:
        """The number of ids, special tokens included; 0 without a vocabulary."""
        return 0 if self.vocabulary is None else len(self.vocabulary) + len(self.special_tokens)

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def special_ids(self) -> dict[str, int]:
        """The special tokens' ids by their names."""
        size = 0 if self.vocabulary is None else len(self.vocabulary)
        return {name: size + place for place, name in enumerate(self.special_tokens)}

    def with_specials(self, names: Sequence[str]) -> Tokenizer:
        """This tokenizer with the special tokens `names` in place of its own."""
        return replace(self, special_tokens=tuple(names))

    def learn_vocabulary(
        self, texts: Iterable[str], size: int, unit: str = "ranges", specials: Sequence[str] | None = None
    ) -> Tokenizer:
        """This tokenizer with a vocabulary of at most `size` ids, special tokens included, learned from `texts`.

        `unit` says what no id crosses: contextual "ranges" between hard resets, "tokens", or "whole": the most frequent
        tokens are ids, all others their bytes.
        """
        names = check_specials(self.special_tokens if specials is None else specials)
        if unit not in (*UNITS, "whole"):
            raise ValueError(f"unit is {unit!r}; allowed: {', '.join((*UNITS, 'whole'))}")
        if size < 256 + len(names):
            raise ValueError(
                f"size is {size}; allowed: at least {256 + len(names)}, one for each byte and special token"
            )
        if isinstance(texts, str):
            raise ValueError("texts is one string; allowed: an iterable of strings, such as [text]")
        units = self._units(texts, unit == "ranges")
        wanted = size - len(names)
        if unit == "whole":
            counts: dict[bytes, int] = {}
            for (raw,) in units:
                counts[raw] = counts.get(raw, 0) + 1
            return replace(self, vocabulary=Vocabulary.build(counts, wanted), special_tokens=names)
        return replace(self, vocabulary=learn_pieces(units, wanted, unit), special_tokens=names)

    def _units(self, texts: Iterable[str], ranges: bool) -> Iterator[list[bytes]]:
        """The tokens of the texts' contextual ranges, or each token by itself."""
        for text in texts:
            prepared, _ = self.boundaries.prepare(text)
            tokens = self.boundaries.spans(prepared, "byte")
            units = self.boundaries.spans(prepared, "byte", hard_only=True) if ranges else tokens
            yield from segments.grouped(prepared.encode("utf-8", "surrogatepass"), tokens, units)

    def _known(self) -> Vocabulary:
        if self.vocabulary is None:
            raise SpeakError(
                "this tokenizer has no vocabulary, so no ids; make one: tokenizer.learn_vocabulary(texts, size)"
            )
        return self.vocabulary

    # Tokens

    def spans(self, text: str, unit: str = "character", ranges: bool = False) -> Int64Array:
        """(n, 2) half-open spans of SPEAK's tokens in `text`, or of its contextual ranges, in characters or bytes."""
        if unit not in ("character", "byte"):
            raise ValueError(f"unit is {unit!r}; allowed: character, byte")
        prepared, sources = self.boundaries.prepare(text)
        found = self.boundaries.spans(prepared, "character", ranges)
        if sources is not None:
            found = _of_sources(found, sources)
        return found if unit == "character" else segments.byte_spans(text, found)

    def tokens(self, text: str, ranges: bool = False) -> list[str]:
        """SPEAK's tokens of `text`, or its contextual ranges; joined they are the text (RTok: its normal form)."""
        prepared, _ = self.boundaries.prepare(text)
        spans = self.boundaries.spans(prepared, "character", ranges).tolist()
        return [prepared[start:end] for start, end in spans]

    def show(self, text: str, name: str = "SPEAK") -> Picture:
        """A picture of `text` (RTok: of its normal form): its tokens and how each ends.

        Where a network cuts the text, also the membrane potential and the language model's entropy. A notebook draws
        it, `print` colours a terminal, `save` writes .html, .png, .svg or .txt.
        """
        from speak_neuro.pictures.picture import Picture  # Jinja2: tokenizing does without

        if isinstance(self.boundaries, NetworkBoundaries):
            return self.boundaries.speak.show(text, name)
        prepared, _ = self.boundaries.prepare(text)
        spans, endings = self.boundaries.spans(prepared, "character"), None
        if isinstance(self.boundaries, TableBoundaries):
            fired, hard = (set(self.boundaries.advance(None, prepared, hard_only)[0]) for hard_only in (False, True))
            ends: list[int] = spans[:, 1].tolist()
            kinds: list[Ending] = ["hard" if end in hard else "soft" if end in fired else "open" for end in ends]
            endings = tuple(kinds)
        return Picture([View(name, prepared, spans, known_endings=endings)])

    # Ids

    def encode(self, text: str, allowed_special: Allowed = ()) -> IdArray:
        """The ids (n,) of `text`. Names of special tokens in it are text unless allowed: "all", or some of them."""
        if not allowed_special:
            return self._encode_plain(text)
        names, found = self.special_ids, []
        for start, end, special in parts(text, allowed_names(allowed_special, names)):
            piece = text[start:end]
            found.append(np.array([names[piece]], dtype=np.int32) if special else self._encode_plain(piece))
        return np.concatenate(found)

    def _encode_plain(self, text: str) -> IdArray:
        vocabulary = self._known()
        if isinstance(self.boundaries, TableBoundaries):
            return self.boundaries.table.encode(text)
        prepared, _ = self.boundaries.prepare(text)
        raw = prepared.encode("utf-8", "surrogatepass")
        spans = self.boundaries.spans(prepared, "byte", vocabulary.hard_only).tolist()
        return vocabulary.encode(raw[start:end] for start, end in spans)

    def encode_batch(self, texts: Sequence[str], allowed_special: Allowed = (), threads: int = 1) -> list[IdArray]:
        """`encode` of each text. Threads do not change the result."""
        self._known()
        if threads < 1:
            raise ValueError(f"threads is {threads}; allowed: at least 1")
        if isinstance(self.boundaries, TableBoundaries) and not allowed_special:
            return self.boundaries.table.encode_batch(texts, threads)
        return [self.encode(text, allowed_special) for text in texts]

    def encode_with_offsets(self, text: str, allowed_special: Allowed = (), unit: str = "character") -> Encoding:
        """The ids of `text` and the span of the text that each comes from, in characters or UTF-8 bytes."""
        if unit not in ("character", "byte"):
            raise ValueError(f"unit is {unit!r}; allowed: character, byte")
        names, ids, offsets = self.special_ids, [], []
        for start, end, special in parts(text, allowed_names(allowed_special, names)):
            if special:
                ids.append(np.array([names[text[start:end]]], dtype=np.int32))
                offsets.append(np.array([[start, end]], dtype=np.int64))
                continue
            found = self._encode_plain(text[start:end])
            ids.append(found)
            offsets.append(start + self._offsets(text[start:end], found))
        spans = np.concatenate(offsets)
        return Encoding(np.concatenate(ids), spans if unit == "character" else segments.byte_spans(text, spans))

    def _offsets(self, text: str, ids: IdArray) -> Int64Array:
        """(n, 2) spans in characters of the ids of a text without special tokens."""
        prepared, sources = self.boundaries.prepare(text)
        sizes = self._known().lengths[ids]
        ends = np.cumsum(sizes)
        spans = np.stack([ends - sizes, ends], axis=1)
        if not prepared.isascii():  # the characters that the first and the last byte belong to
            raw = np.frombuffer(prepared.encode("utf-8", "surrogatepass"), dtype=np.uint8)
            character = np.cumsum(raw & 0xC0 != 0x80) - 1
            spans = character[spans - (0, 1)] + (0, 1)
        if sources is not None:  # RTok's space stands for white space, which is no part of the word behind it
            space = np.array([sign == " " for sign in prepared], dtype=np.bool_)
            spans[:, 0] += space[spans[:, 0]] & (spans[:, 1] - spans[:, 0] > 1)
        return spans if sources is None else _of_sources(spans, sources)

    def decode_bytes(self, ids: npt.ArrayLike) -> bytes:
        """The UTF-8 bytes of ids (n,), special tokens as their names."""
        vocabulary, array = self._known(), np.asarray(ids)
        size = len(vocabulary)
        if not self.special_tokens or not array.size or array.ndim != 1 or not (array >= size).any():
            return vocabulary.decode_bytes(array)
        if array.max() >= self.vocab_size or array.min() < 0:
            raise ValueError(f"ids run from {array.min()} to {array.max()}; allowed: 0 to {self.vocab_size - 1}")
        every = (*vocabulary.all, *(name.encode("utf-8", "surrogatepass") for name in self.special_tokens))
        return b"".join([every[index] for index in array.tolist()])

    def decode(self, ids: npt.ArrayLike, skip_special_tokens: bool = False, errors: str = "replace") -> str:
        """The text of ids (n,): the inverse of `encode`, whatever the text (RTok: of its normal form).

        Ids that are no text, such as a part of a character at the end of a cut list, become U+FFFD; with `errors`
        "strict" they are a ValueError.
        """
        array = np.asarray(ids)
        if skip_special_tokens and array.ndim == 1:
            array = array[array < len(self._known())]
        raw = self.decode_bytes(array)
        try:
            text = raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            text = raw.decode("utf-8", errors)
        return self.boundaries.restore(text)

    def decode_batch(self, batch: Iterable[npt.ArrayLike], skip_special_tokens: bool = False) -> list[str]:
        """`decode` of each."""
        return [self.decode(ids, skip_special_tokens) for ids in batch]

    # Streams

    def stream(self) -> IdStream:
        """Ids of a text that arrives in pieces: the same as of the whole, each given out when nothing can change it."""
        return IdStream(self.boundaries, self._known())

    def token_stream(self) -> TokenStream:
        """SPEAK's tokens of a text that arrives in pieces, each with the character that closes it."""
        cut = self.boundaries
        return TokenStream(cut.start, lambda state, piece: cut.advance(state, piece, False))


def _of_sources(spans: Int64Array, sources: Int64Array) -> Int64Array:
    """Spans of a prepared text as spans of the text that its characters come from."""
    if not len(spans):
        return spans
    return np.stack([sources[spans[:, 0], 0], sources[np.maximum(spans[:, 1] - 1, spans[:, 0]), 1]], axis=1)
