"""Monolingual Unigram models: what they learn, that nothing is lost, files, and what is refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rtok_fixtures import words

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.tokenizers.sentencepiece import LONGEST_PIECE, SentencePieceSegmenter, train_pieces

SEGMENTER = SentencePieceSegmenter.train({code: words(code, characters=40_000) for code in ("en", "ru")}, 2000)
any_text = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)


def test_it_learns_the_words_of_its_language() -> None:
    pieces = SEGMENTER.pieces
    assert pieces["en"].special == {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    assert 1000 < len(pieces["en"]) <= 2000
    assert max(map(len, pieces["en"].pieces)) <= LONGEST_PIECE
    units = ["▁the", "▁and", "▁который"]
    english, russian = (SEGMENTER.segment([units], code)[0] for code in ("en", "ru"))
    assert english[:2] == [["▁the"], ["▁and"]]
    assert len(english[2]) > len(russian[2])
    # Every character of the text is a piece.
    assert set("".join(words("en", characters=40_000))) <= set(pieces["en"].pieces)


@given(st.lists(st.lists(any_text, max_size=3), max_size=3))
def test_tokens_join_to_the_units(batch: list[list[str]]) -> None:
    tokens = SEGMENTER.segment(batch, "en")
    assert [["".join(unit) for unit in sentence] for sentence in tokens] == [
        [unit.replace(" ", "▁") for unit in sentence] for sentence in batch
    ]


def test_punctuation_is_apart_and_tokens_stay_in_words() -> None:
    ((unit,),) = SEGMENTER.segment([["▁the▁end,▁and"]], "en")
    assert "," in unit
    assert all("▁" not in token[1:] for token in unit)


def test_more_pieces_make_fewer_tokens() -> None:
    text = words("en", characters=20_000)
    counts = [
        sum(map(len, SentencePieceSegmenter({"en": train_pieces(text, size)}).segment([text], "en")[0]))
        for size in (50, 300, 50_000)
    ]
    assert counts[0] > counts[1] > counts[2] >= len(text)


def test_files(tmp_path: Path) -> None:
    SEGMENTER.save(tmp_path / "models")
    again = SentencePieceSegmenter.load(tmp_path / "models")
    assert list(again.pieces) == ["en", "ru"]
    batch = [words("en", characters=2000)]
    assert again.segment(batch, "en") == SEGMENTER.segment(batch, "en")
    with pytest.raises(SpeakError, match="holds no model of any language"):
        SentencePieceSegmenter.load(tmp_path)


def test_long_words_and_rare_characters() -> None:
    letters = "".join(random.Random(0).choices("abcdefg", k=20_000))
    model = train_pieces(["▁" + letters, "▁𐍈"], 100)
    tokens = SentencePieceSegmenter({"en": model}).segment([["▁" + letters, "▁𐍈"]], "en")[0]
    assert "".join(tokens[0]) == "▁" + letters
    assert "".join(tokens[1]) == "▁𐍈"


def test_bad_input_is_one_line() -> None:
    with pytest.raises(SpeakError, match="language is 'de'; zett-sentencepiece has models of: en ru; train one"):
        SEGMENTER.segment([["▁a"]], "de")
    for empty in ([], [""], ["▁", "▁▁"]):
        with pytest.raises(SpeakError, match="the text for the Unigram model is empty"):
            train_pieces(empty)
    with pytest.raises(SpeakError, match=r"U\+D800"):
        train_pieces(["\ud800"])
    with pytest.raises(ValueError, match="size is 0"):
        train_pieces(["▁a"], 0)
