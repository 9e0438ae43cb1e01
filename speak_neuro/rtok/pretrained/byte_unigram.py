"""A Unigram model over bytes: any string as pieces of the vocabulary, as ZeTT's hypernetwork takes them.

    b(x)    = alphabet[byte] for each byte of UTF-8(x with U+2581 -> space)          (the printable alphabet of GPT-2)
    form(x) = argmax over b(x) = q_1 q_2 ... of sum_i score(q_i),  q in { b(p) : p a piece } + { single bytes }

Pieces keep their ids and scores. Bytes that are no piece get the ids behind the vocabulary, in the order of their
value, and the score -100000: for XLM-R 161 of them, 250002 to 250162. So every string has a form, and a piece's form is
the piece. The letters of a special's name are letters here too.

Text is cut by a regular expression first (`pre_tokens`), as ZeTT does in place of the original model's rule: letters,
digits and other signs apart, a word's sign before what follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from tokenizers import Encoding, Regex, Tokenizer, models, pre_tokenizers

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.pieces import WORD, PieceModel, check_encodable
from speak_neuro.text.byte_alphabet import ALPHABET, raw_bytes, signs

FALLBACK_SCORE = -100_000.0
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""English endings; letters and marks; digits; other signs; each with one space before it; runs of white space."""


def to_bytes(text: str) -> str:
    """`text` in the alphabet of bytes, the word's sign as a space."""
    return signs(text.replace(WORD, " ").encode("utf-8"))


def join_characters(parts: Sequence[str]) -> list[str]:
    """Byte-level tokens as text; those that end within a character are joined with the next."""
    tokens, held = [], b""
    for part in parts:
        held += raw_bytes(part)
        try:
            tokens.append(held.decode("utf-8").replace(" ", WORD))
        except UnicodeDecodeError:
            continue
        held = b""
    if held:
        raise ValueError(f"the parts end within a character: {held!r}; allowed: whole characters")
    return tokens


class ByteUnigram:
    """The byte-level model of a vocabulary."""

    def __init__(self, pieces: PieceModel) -> None:
        self.pieces = pieces
        self.pad = pieces.special.get("<pad>", 1)
        """Fills the places behind a form."""

    def __getstate__(self) -> dict[str, Any]:
        """Without what use has computed: the same model is the same bytes, whatever it has seen."""
        return {"pieces": self.pieces, "pad": self.pad}

    @cached_property
    def symbols(self) -> list[str]:
        """By id, the byte-level string; specials, which match nothing, have their names behind two word signs."""
        special = self.pieces.special
        symbols = [WORD + WORD + piece if piece in special else to_bytes(piece) for piece in self.pieces.pieces]
        known = set(symbols)
        if len(known) != len(symbols):
            twice = next(
                piece for piece in self.pieces.pieces if " " in piece and piece.replace(" ", WORD) in self.pieces.ids
            )
            raise SpeakError(
                f"piece {twice!r} has the same bytes as another; use a vocabulary with one sign for spaces"
            )
        return symbols + [sign for _, sign in sorted(ALPHABET.items()) if sign not in known]

    @property
    def fallbacks(self) -> int:
        """Bytes that are no piece."""
        return len(self.symbols) - len(self.pieces)

    def forms(self, tokens: Sequence[str]) -> list[list[int]]:
        """The ids of each token's pieces."""
        for token in tokens:
            check_encodable(token)
            if not token:
                raise ValueError("a token is empty; allowed: at least one character")
        return [encoding.ids for encoding in self._encode([to_bytes(token) for token in tokens])]

    def segment(self, units: Sequence[str]) -> list[list[str]]:
        """Byte-level tokens of each unit: the best pieces of each of its pre-tokens."""
        words = [self.pre_tokens(unit) for unit in units]
        found = iter(self._encode([to_bytes(word) for unit in words for word in unit]))
        symbols = self.symbols
        return [[symbols[number] for _ in unit for number in next(found).ids] for unit in words]

    def pre_tokens(self, unit: str) -> list[str]:
        """The parts of `unit` that the pattern finds; joined, they are the unit."""
        check_encodable(unit)
        return [part.replace(" ", WORD) for part, _ in self._splitter.pre_tokenize_str(unit.replace(WORD, " "))]

    @cached_property
    def _splitter(self) -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.Split(Regex(PATTERN), "isolated")

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        scores = self.pieces.scores + [FALLBACK_SCORE] * self.fallbacks
        return Tokenizer(models.Unigram(list(zip(self.symbols, scores, strict=True)), self.pieces.unknown))

    def _encode(self, words: list[str]) -> list[Encoding]:
        return self._tokenizer.encode_batch(words, add_special_tokens=False)
