"""A Unigram model's pieces from word counts: the same words give the same pieces, bit for bit, in every process.

    L = sum over words w of count(w) * ln(sum over segmentations of w of the product of p(piece))

`sentencepiece` maximises it by EM, on one thread, from the words in a fixed order. The trainer of `tokenizers` sums in
the order of a hash map that is seeded anew in each process: two trainings differ in the scores' last digits, then in
pieces, and in all that is learnt from them.

Some characters mean something to `sentencepiece`: its own space sign, what stands for unknown ones, control characters,
white space. They are exchanged for private ones while it learns.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from speak_neuro.errors import SpeakError

UNKNOWN = "<unk>"
LONGEST_PIECE = 16
LONGEST_WORD = 1 << 16
"""Bytes of a word, above which the library would pass it over."""

_SPECIAL = " \u2581\u2585"
_PRIVATE = range(0xF0000, 0x110000)


def train_unigram(words: Mapping[str, int], size: int, longest_piece: int = LONGEST_PIECE) -> list[tuple[str, float]]:
    """Pieces and their ln p, at most `size`, from words and their counts; every character of the words is one.

    More than `size` where the words have more characters. A few words have fewer pieces.
    """
    if not words:
        raise SpeakError("there is no word to learn pieces from; give more text")
    there, back = _exchange(set().union(*words))
    characters = len(there)
    lines = (f"{word.translate(there)}\t{count}" for word, count in sorted(words.items()))
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=lines,
            input_format="tsv",
            model_writer=model,
            model_type="unigram",
            vocab_size=max(size, characters) + 1,  # and the unknown piece
            hard_vocab_limit=False,
            max_sentencepiece_length=longest_piece,
            max_sentence_length=LONGEST_WORD,
            character_coverage=1.0,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_whitespace=False,
            split_by_unicode_script=False,
            split_by_number=False,
            shuffle_input_sentence=False,
            bos_id=-1,
            eos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise SpeakError(f"no pieces can be learnt from {len(words)} words ({error}); give more text") from None
    found = SentencePieceProcessor(model_proto=model.getvalue())
    return [(found.id_to_piece(i).translate(back), found.get_score(i)) for i in range(1, len(found))]


def _exchange(characters: set[str]) -> tuple[dict[int, int], dict[int, int]]:
    """Tables for `str.translate` to the library's characters and back: all of `characters` are keys of the first."""
    there = {ord(character): ord(character) for character in characters}
    # What cannot be printed holds the private characters too: they have to make room.
    unsafe = (point for point in sorted(there) if chr(point) in _SPECIAL or not chr(point).isprintable())
    private = (point for point in _PRIVATE if point & 0xFFFF < 0xFFFE)
    there.update(zip(unsafe, private, strict=False))
    return there, {new: old for old, new in there.items()}
