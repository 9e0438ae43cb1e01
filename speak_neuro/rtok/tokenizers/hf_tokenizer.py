"""A trained tokenizer as an object of transformers: text to ids and back, `AutoTokenizer` included.

    tokenizer = write_tokenizer(CharacterTokenizer.load("runs/rtok"), "tokenizer/", texts)
    tokenizer("Hello world", "a pair", return_offsets_mapping=True)
    AutoTokenizer.from_pretrained("tokenizer/", trust_remote_code=True)

SPEAK can cut any string out of a text; the vocabulary of `texts` is learned once and then fixed
(inference.frozen_tokenizer). A token is the fewest pieces of that vocabulary that join to its UTF-8, single bytes among
them, so every text has ids, and decoding gives the normalised text. Ids are places in the vocabulary, not rows of the
encoder.

Files: speak_table.safetensors (alphabet, currents, gates, the neuron) and speak_vocabulary.safetensors.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from speak_neuro.errors import SpeakError
from speak_neuro.inference.frozen_tokenizer import SPECIALS, FrozenTokenizer, Span
from speak_neuro.rtok.text.limits import Limits
from speak_neuro.rtok.text.normalise import WORD
from speak_neuro.rtok.tokenizers.cutter import VOCABULARY_SIZE, Cutter, learn_vocabulary, table_of, token_bytes
from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer
from speak_neuro.table.load_vocabulary import load_vocabulary
from speak_neuro.table.table import CompiledTable
from speak_neuro.table.vocabulary import BYTES
from speak_neuro.text.byte_alphabet import signs

_RESERVED = {name.encode() for name in SPECIALS}
FILES = {"table_file": "speak_table.safetensors", "vocabulary_file": "speak_vocabulary.safetensors"}


def write_tokenizer(
    tokenizer: CharacterTokenizer,
    folder: str | os.PathLike[str],
    texts: Iterable[str],
    size: int = VOCABULARY_SIZE,
    whole: bool = False,
) -> RTokTokenizer:
    """Learn a vocabulary of `size` ids, the 256 bytes included, from `texts`, write everything, return the object.

    A token is the fewest pieces; with `whole` one of the most frequent tokens, or its bytes.
    """
    table = table_of(tokenizer)
    vocabulary = learn_vocabulary(Cutter(table), texts, size, whole)
    kept = [token not in _RESERVED for token in vocabulary.tokens]
    if not any(kept) and size > BYTES:
        raise SpeakError("the texts for the vocabulary have no token twice; give texts as the tokenizer will get")
    tokens = tuple(token for token, keep in zip(vocabulary.tokens, kept, strict=True) if keep)
    vocabulary = dataclasses.replace(vocabulary, tokens=tokens, counts=vocabulary.counts[np.array(kept, dtype=bool)])
    path = Path(folder)
    files = {name: str(path / file) for name, file in FILES.items()}
    table.save(files["table_file"])
    vocabulary.save(files["vocabulary_file"])
    made = RTokTokenizer(files["table_file"], files["vocabulary_file"])
    made.save_pretrained(path)
    return made


class RTokTokenizer(FrozenTokenizer):
    """See the top of this module."""

    vocab_files_names = FILES

    def __init__(self, table_file: str, vocabulary_file: str, longest_token: int = 32, **kwargs: Any) -> None:
        for name, file in zip(FILES.values(), (table_file, vocabulary_file), strict=True):
            if file is None:
                raise SpeakError(
                    f"{kwargs.get('name_or_path')}: holds no {name}; write the folder with write_tokenizer"
                )
        self._table = CompiledTable.read(table_file)
        self._cutter = Cutter(self._table, Limits(characters=longest_token))
        self._vocabulary = load_vocabulary(vocabulary_file)
        self._places = {token: BYTES + place for place, token in enumerate(self._vocabulary.tokens)}
        self._sizes = [len(raw) for raw in self._vocabulary.all]
        names = [signs(raw) for raw in self._vocabulary.all]
        super().__init__(names, longest_token=longest_token, **kwargs)

    def tokens(self, text: str) -> list[str]:
        """SPEAK's own tokens of `text`, whether the vocabulary has them or not; joined, the normalised text."""
        return self._cutter.tokens(text)

    def pieces_of(self, text: str) -> tuple[list[int], list[Span]]:
        """The ids of each token's bytes, and the characters that have a byte in each."""
        places: list[int] = []
        spans: list[Span] = []
        for token, sources in zip(*self._cutter.tokens_and_spans(text), strict=True):
            raw = token_bytes(token)
            known = self._places.get(raw)
            found = self._vocabulary.encode([raw]).tolist() if known is None else [known]
            places += found
            owner = [place for place, sign in enumerate(token) for _ in token_bytes(sign)]
            at = 0
            for number in found:
                end = at + self._sizes[number]
                # The word sign stands for white space, which is no part of the word.
                first = at + int(at == 0 and end > 1 and token.startswith(WORD))
                spans.append((sources[owner[first]][0], sources[owner[end - 1]][1]))
                at = end
        return places, spans

    def text_of(self, raw: bytes) -> str:
        """Normalised text, words with one space between them."""
        return super().text_of(raw).removeprefix(" ")

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the two files."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        table, vocabulary = (Path(save_directory) / (prefix + file) for file in FILES.values())
        self._table.save(table)
        self._vocabulary.save(vocabulary)
        return str(table), str(vocabulary)


RTokTokenizer.register_for_auto_class("AutoTokenizer")
