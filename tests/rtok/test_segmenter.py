"""The check that a segmenter loses nothing, and that none changes with use."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from rtok_fixtures import small_pieces
from rtok_text_fixtures import check_joined, lively_tokenizer, word_batch

from speak_neuro.rtok.pretrained.byte_unigram import ByteUnigram
from speak_neuro.rtok.text.segmenter import Segmenter
from speak_neuro.rtok.tokenizers.dytok import DytokSegmenter, OriginalSegmenter, WordSegmenter
from speak_neuro.rtok.tokenizers.sentencepiece import SentencePieceSegmenter
from speak_neuro.rtok.tokenizers.speak import SpeakSegmenter


class Characters:
    name = "characters"

    def segment(self, batch, language):
        return [[list(unit) for unit in units] for units in batch]


def test_protocol_is_structural():
    segmenter = Characters()
    assert isinstance(segmenter, Segmenter)
    batch = [["▁ab", "▁c"], []]
    check_joined(batch, segmenter.segment(batch, "en"), segmenter.name)


@pytest.mark.parametrize("tokens", [["▁a"], ["▁a", "b", ""], ["▁ab", "c"], []])
def test_lost_text_is_an_error(tokens):
    with pytest.raises(AssertionError, match=r"segmenter x: tokens .* do not join to the unit '▁ab'"):
        check_joined([["▁ab"]], [[tokens]], "x")


SEGMENTERS: dict[str, Callable[[], Any]] = {
    "speak": lambda: SpeakSegmenter(lively_tokenizer()),
    "zett-original": lambda: OriginalSegmenter(ByteUnigram(copy.copy(small_pieces()))),
    "zett-sentencepiece": lambda: SentencePieceSegmenter({"en": copy.copy(small_pieces())}),
    "dytok": lambda: DytokSegmenter(ByteUnigram(copy.copy(small_pieces())), 5),
    "dytok-word": lambda: WordSegmenter(ByteUnigram(copy.copy(small_pieces()))),
}


@pytest.mark.parametrize("name", SEGMENTERS)
def test_use_changes_no_byte(name: str) -> None:
    """What is pickled is a cache's key, and what another process gets: nothing that was seen is in it."""
    segmenter = SEGMENTERS[name]()
    before = pickle.dumps(segmenter)
    found = segmenter.segment(word_batch(), "en")
    assert pickle.dumps(segmenter) == before
    assert pickle.loads(before).segment(word_batch(), "en") == found
