"""XLM-R's normalisation: any text to the characters that its vocabulary is made of.

    "Hello\\u200bworld ﬁne"  ->  "▁Hello▁world▁fine"

From left to right the longest listed sequence is replaced by what the list gives for it (SentencePiece's rules
nmt_nfkc); then white space is collapsed, and U+2581 stands in front of each word. Control characters go; tabs, line
ends, zero-width and directional marks, U+2581 and U+FFFD become spaces. It is not Unicode's NFKC: marks are not
reordered, and nothing composes across what has been passed (U+01A1 U+0301 stays two characters).

The library `sentencepiece` does it, in linear time, with the rules of XLM-R's own model: the library's table of the
same name changes from version to version (0.2.3 keeps U+200D, where XLM-R has a space). The file of rules is made by
experiments/corpora/make_normaliser.py. A lone surrogate, which no encoder can take, is a space as U+FFFD is.
"""

from __future__ import annotations

import functools
import lzma
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.extras import extra
from speak_neuro.errors import SpeakError

WORD = "\u2581"
"""Stands for the space before a word."""
RULES = "nmt_nfkc.xz"
"""The compiled rules, in speak_neuro.data: a model of SentencePiece that has nothing but them."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def normalise(text: str) -> str:
    """`text` as XLM-R sees it, each word after a U+2581; empty when nothing is left."""
    normalised: str = _normaliser().Normalize(_SURROGATE.sub("\ufffd", text))
    return normalised


def normalise_words(words: Sequence[str]) -> list[str]:
    """Each word by itself, as data sets of words give them. A word that holds white space becomes several words in one
    string; one of which nothing is left is an error.
    """
    found = [normalise(word) for word in words]
    for index, (word, normalised) in enumerate(zip(words, found, strict=True)):
        if not normalised:
            raise SpeakError(
                f"word {index} is {word!r}: nothing is left of it after normalisation; allowed: at least one character "
                "that is no white space, control or zero-width character"
            )
    return found


def normalise_with_spans(text: str) -> tuple[str, npt.NDArray[np.int64]]:
    """`normalise(text)`, and for each of its L characters the span (L, 2) of `text` that it comes from.

    The spans of neighbours may be equal: one character can become several ("½"), and several can become one (a letter
    and its accents). The span of a U+2581 is that of the white space before the word, empty at the text's start.
    """
    normalised, places = _normaliser().Normalize(_SURROGATE.sub("\ufffd", text), with_offsets=True)
    size = len(normalised)
    if not size:
        return "", np.zeros((0, 2), dtype=np.int64)
    offsets = np.array(places, dtype=np.int64)
    starts = offsets[:size]
    ends = offsets[np.minimum(np.searchsorted(offsets, starts, side="right"), size)]
    spaces = np.flatnonzero(np.array(list(normalised)) == WORD)
    ends[spaces] = starts[spaces + 1]
    starts[spaces] = np.where(spaces > 0, ends[spaces - 1], 0)
    return normalised, np.stack([starts, ends], axis=1)


@functools.cache
def _normaliser() -> Any:
    SentencePieceNormalizer = extra("sentencepiece", "speak-neuro[hf]").SentencePieceNormalizer
    rules = lzma.decompress(resources.files("speak_neuro.data").joinpath(RULES).read_bytes())
    return SentencePieceNormalizer(
        model_proto=rules, add_dummy_prefix=True, escape_whitespaces=True, remove_extra_whitespaces=True
    )
