"""ZeTT's monolingual tokenizers: a Unigram model of one language's text, used at byte level.

    pieces(language) = Unigram of 50,000 pieces of at most 16 characters, learned from that language's normalised text

As in ZeTT, text is cut into pre-tokens first, so punctuation is apart, and characters that the text lacked are bytes. A
small text has fewer pieces. The same texts give the same pieces (`speak_neuro.text.unigram`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.byte_unigram import ByteUnigram
from speak_neuro.rtok.pretrained.pieces import SPECIALS, WORD, PieceModel, check_encodable
from speak_neuro.rtok.tokenizers.dytok import Batch, OriginalSegmenter
from speak_neuro.text.unigram import train_unigram

PIECES = 50_000
LONGEST_PIECE = 16
LONGEST_WORD = 1000
"""Characters of a word that the library learns from at once; a longer one is cut."""


class SentencePieceSegmenter:
    """A model for each language; a language without one is refused."""

    name = "zett-sentencepiece"

    def __init__(self, pieces: Mapping[str, PieceModel]) -> None:
        self.pieces = dict(pieces)
        self._segmenters = {code: OriginalSegmenter(ByteUnigram(model)) for code, model in self.pieces.items()}

    @classmethod
    def train(cls, texts: Mapping[str, Iterable[str]], size: int = PIECES) -> SentencePieceSegmenter:
        """Learn a model for each language from its normalised texts."""
        return cls({code: train_pieces(some, size) for code, some in texts.items()})

    def segment(self, batch: Batch, language: str) -> list[list[list[str]]]:
        """Tokens of each unit by the language's model."""
        if language not in self._segmenters:
            known = " ".join(self._segmenters) or "none"
            raise SpeakError(f"language is {language!r}; {self.name} has models of: {known}; train one on text of it")
        return self._segmenters[language].segment(batch, language)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `LANGUAGE.safetensors` for each language."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        for code, model in self.pieces.items():
            model.save(Path(folder) / f"{code}.safetensors")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> SentencePieceSegmenter:
        """Read what `save` wrote."""
        files = sorted(Path(folder).glob("*.safetensors"))
        if not files:
            raise SpeakError(f"{folder}: holds no model of any language; name a folder that {cls.name} was saved to")
        return cls({file.stem: PieceModel.load(file) for file in files})


def train_pieces(texts: Iterable[str], size: int = PIECES) -> PieceModel:
    """Learn `size` pieces from normalised texts; every character of the texts is one, however many they are."""
    if size < 1:
        raise ValueError(f"size is {size}; allowed: at least 1")
    characters: set[str] = set()
    kept: list[str] = []
    for text in texts:
        check_encodable(text)
        characters.update(text)
        kept.append(text)
    if not characters - {WORD}:
        raise SpeakError("the text for the Unigram model is empty; give text of the language")
    specials = SPECIALS[:4]
    learnt = train_unigram(Counter(_cut(kept)), size - len(specials), LONGEST_PIECE)
    # A text may hold the very letters of a special piece.
    found = [*((special, 0.0) for special in specials), *(entry for entry in learnt if entry[0] not in specials)]
    pieces, scores = zip(*found, strict=True)
    return PieceModel(pieces, scores, pieces.index("<unk>"))


def _cut(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for word in text.replace(WORD, " " + WORD).split(" "):
            for start in range(0, len(word), LONGEST_WORD):
                yield word[start : start + LONGEST_WORD]
