"""The subword tokenizers that SPEAK is compared with, learned from a text by the library `tokenizers`.

bpe             byte-pair merges of bytes in words of GPT-2's pattern
bpe-lines       the same within lines, over the borders of words, as SuperBPE's second stage
unigram         Unigram on characters in words marked by a leading bar
unigram-bytes   Unigram on bytes in words of GPT-2's pattern, so that no character is lost
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from speak_neuro.errors import SpeakError

SUBWORDS = ("bpe", "bpe-lines", "unigram", "unigram-bytes")


def train_subwords(kind: str, size: int, pieces: Iterable[str], least: int = 0) -> Tokenizer:
    """A tokenizer of `kind` with a vocabulary of at most `size`, learned from `pieces`.

    Byte-pair merges of pairs that occur fewer than `least` times are not learned, and the vocabulary may end sooner.
    """
    if kind not in SUBWORDS:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(SUBWORDS)}")
    if size < 256:
        raise SpeakError(f"--vocabulary-size is {size}; allowed: at least 256")
    alphabet = [] if kind == "unigram" else pre_tokenizers.ByteLevel.alphabet()
    settings: dict[str, Any] = {"vocab_size": size, "initial_alphabet": alphabet, "show_progress": False}
    if kind.startswith("bpe"):
        tokenizer = Tokenizer(models.BPE())
        trainer: Any = trainers.BpeTrainer(**settings, min_frequency=least)
    else:
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(**settings, unk_token="<unk>", special_tokens=["<unk>"])
    if kind == "unigram":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    else:
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=kind != "bpe-lines")
        # A line is one word, in parts of at most 256 characters: merges of longer ones take hours.
        lines = pre_tokenizers.Split(Regex(r"[^\n]{1,256}|\n+"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([lines, words]) if kind == "bpe-lines" else words
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(_encodable(pieces), trainer)
    return tokenizer


def _encodable(pieces: Iterable[str]) -> Iterator[str]:
    for piece in pieces:
        yield from piece.encode("utf-8", "replace").decode("utf-8").splitlines(keepends=True)
