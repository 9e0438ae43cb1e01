"""DTP's cleaning: every rule by example, and article by article the same as at once."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speak_neuro.corpus.cleaning import (
    ALPHABETS,
    DIGITS,
    MARKERS,
    Cleaner,
    clean_articles,
    composed,
    languages,
    whole_markers,
)
from speak_neuro.corpus.reader import embedded_names, embedded_text

ARTICLE = (
    "\n_START_ARTICLE_\nApollo 11\n_START_SECTION_\nCrew\n_START_PARAGRAPH_\nMen._NEWLINE_Two  walked; it was 1969."
)


@pytest.mark.parametrize(("language", "size"), [("en", 28), ("fi", 31), ("vi", 91), ("he", 32)])
def test_alphabets_have_the_sizes_of_dtp(language: str, size: int) -> None:
    assert len(set(ALPHABETS[language])) == len(ALPHABETS[language]) == size - 2  # space and newline


@pytest.mark.parametrize("language", languages())
def test_names_of_digits_are_in_the_alphabet(language: str) -> None:
    names = DIGITS[language].split()
    assert len(set(names)) == 10
    cleaned = Cleaner(language)("0123456789")
    assert len(cleaned.split()) == 10
    assert set(cleaned) <= set(ALPHABETS[language] + " ")


def test_an_article() -> None:
    assert Cleaner("en")(ARTICLE) == ("apollo one one\ncrew\nmen\ntwo walked it was one nine six nine")


@pytest.mark.parametrize(
    ("language", "raw", "cleaned"),
    [
        ("en", "Ａpple № 5, Αθήνα, МОСКВА", "apple five a mockba"),
        ("en", "x = 𝑎 + 𝐵", "x a b"),
        ("en", "naïve café", "na ve caf"),
        ("en", "a \n\n \n b\n", "a\nb"),
        ("fi", "Hän täytti 80", "hän täytti kahdeksan nolla"),
        ("fi", "Ha\u0308n", "hän"),
        ("vi", "Vie\u0323\u0302t Nam, 10", "việt nam một không"),
        ("tr", "ISPARTA 2", "ısparta iki"),
        ("tr", "İstanbul, I\u0307zmir", "istanbul izmir"),
        ("he", "שָׁלוֹם 7 עוֹלָם", "שלום שבעה עולם"),
        ("he", "abc \u05d0", "א"),
    ],
)
def test_rules(language: str, raw: str, cleaned: str) -> None:
    assert Cleaner(language)(raw) == cleaned


def test_hebrew_as_in_dtp() -> None:
    """Points become spaces: a digit's name falls apart into single letters."""
    assert Cleaner("he")("19") == "אחד תשעה"
    assert Cleaner("he", points_to_spaces=True)("19") == "א ח ד ת ש ע ה"


@pytest.mark.parametrize("language", languages())
def test_nothing_outside_the_alphabet_is_left(language: str) -> None:
    for name in embedded_names():
        text = Cleaner(language)(embedded_text(name)[:20000])
        assert set(text) <= set(ALPHABETS[language] + " \n")
        assert not any(pair in text for pair in ("  ", "\n\n", " \n", "\n "))
        assert text == text.strip()
        assert Cleaner(language)(text) == text


pieces = st.lists(
    st.one_of(
        st.text("aB é\n9_.", max_size=12), st.sampled_from([*(f"\n{m}\n" for m in MARKERS), *MARKERS, "\r\n", "", " "])
    ).map(str),
    max_size=5,
)


@given(pieces, st.integers(0, 40) | st.none())
def test_article_by_article_is_the_same_as_at_once(articles: list[str], limit: int | None) -> None:
    cleaner = Cleaner("en")
    joined = "\n".join(articles)
    if limit is not None and limit <= len(joined):
        joined = whole_markers(joined[:limit])
    assert "".join(clean_articles(articles, cleaner, limit)) == cleaner(joined)


SHARING = [first + second[1:] for first in MARKERS for second in MARKERS]
"""Two markers with one sign between them."""


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from([*MARKERS, *SHARING, "\n", "\r\n", " ", "word", "é"]), max_size=12), st.integers(0, 150)
)
def test_no_marker_is_left(parts: list[str], limit: int) -> None:
    """Wherever they stand, however often, with whatever line ends, cut at any place."""
    raw, cleaner = "".join(parts), Cleaner("en")
    cleaned = cleaner(raw)
    assert set("".join(cleaned.split())) <= set("word")
    assert cleaned.count("word") == parts.count("word")
    cut = "".join(clean_articles([raw], cleaner, limit))
    assert set("".join(cut.split())) <= set("word")
    assert cut.count("word") == raw[:limit].count("word")


@pytest.mark.parametrize(
    "raw",
    [
        "\n_START_ARTICLE_\nA\n_START_SECTION_\n_START_SECTION_\nB",
        "\r\n_START_ARTICLE_\r\nA\r\n_START_SECTION_\r\nB",
        "_START_ARTICLE_ A _START_SECTION_ B",
        "_NEWLINE_START_ARTICLE_\nA\n_START_SECTION_START_SECTION_\nB",
    ],
)
def test_markers_side_by_side(raw: str) -> None:
    assert Cleaner("en")(raw) == "a\nb"


@settings(max_examples=300)
@given(
    st.text(st.sampled_from("a\u0301\u0323\u0345\u0344\u0f71\u0f72\u0f73\u0f75\u0f81\u05b0\u3099か")),
    st.integers(1, 40),
)
def test_composition_is_unicode_s(text: str, times: int) -> None:
    raw = "é" + text * times
    assert composed(raw) == unicodedata.normalize("NFC", raw)


def test_composition_takes_linear_time() -> None:
    def seconds(count: int) -> float:
        text = "a" + "\u0301\u0323" * (count // 2)
        began = time.process_time()
        Cleaner("en")(text)
        return time.process_time() - began

    seconds(100)
    assert seconds(320_000) < 80 * max(seconds(20_000), 0.005)
