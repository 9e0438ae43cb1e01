"""Text reduced to a language's alphabet, as Dynamic Token Pooling (DTP) trains on it: text8's rules, per language.

    markers of wiki40b -> newline;  look-alike letters -> Latin;  lower case;  digit -> " its name ";
    any other character outside the alphabet -> space;  spaces collapsed;  newlines kept, one at a time

Cleaning articles one by one and joining them with newlines gives what cleaning the joined text gives, so a corpus can
be streamed.

Look-alikes. Encyclopaedic text has Greek, Cyrillic, full-width and mathematical letters that stand for Latin ones. Here
a character becomes what Unicode's compatibility form (NFKC) says when that is one character, and the Greek and Cyrillic
letters below become the Latin letter they look like. Text is composed first (NFC), so that a letter and its accent are
one character. DTP's own table is Unicode's list of confusables, which also maps digits of other scripts to letters.

Hebrew. No look-alikes (some Hebrew letters are in that list). The names of digits are written with points (niqqud), and
text may have points too. Points are removed. DTP leaves them to the alphabet, which has none, so each point becomes a
space and 1948 a row of single letters; `points_to_spaces` does the same, for parity with published numbers.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator

from speak_neuro.errors import SpeakError

LATIN = "abcdefghijklmnopqrstuvwxyz"
_VIETNAMESE_VOWELS = "aăâeêioôơuưy"
_TONES = "\u0300\u0301\u0303\u0309\u0323"  # grave, acute, tilde, hook above, dot below

ALPHABETS = {
    "en": LATIN,
    "fi": LATIN + "åäö",
    "he": "אבגדהוזחטיךכלםמןנסעףפץצקרשת" + "־׳״",
    "tr": "abcçdefgğhıijklmnoöprsştuüvyz",
    "vi": "".join(c for c in LATIN if c not in "fjwz")
    + "ăâđêôơư"
    + "".join(unicodedata.normalize("NFC", vowel + tone) for vowel in _VIETNAMESE_VOWELS for tone in _TONES),
}
"""Letters of each language; space and newline belong to all."""

DIGITS = {
    "en": "zero one two three four five six seven eight nine",
    "fi": "nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän",
    "he": "אֶפֶס אֶחָד שְׁנַיִם שְׁלֹשָׁה אַרְבָּעָה חֲמִשָּׁה שִׁשָּׁה שִׁבְעָה שְׁמוֹנָה תִּשְׁעָה",
    "tr": "sıfır bir iki üç dört beş altı yedi sekiz dokuz",
    "vi": "không một hai ba bốn năm sáu bảy tám chín",
}
"""Names of 0 to 9."""

MARKERS = ("_START_ARTICLE_", "_START_SECTION_", "_START_PARAGRAPH_", "_NEWLINE_")
"""The structure of a wiki40b article, wherever they stand: on lines of their own, or not."""

LOOK_ALIKES = str.maketrans(
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο" + "АВЕКМНОРСТХЅІЈаеорсухѕіј" + "ɑɡ" + "\u2028\u2029",
    "ABEZHIKMNOPTYXo" + "ABEKMHOPCTXSIJaeopcyxsij" + "ag" + "  ",
)
# What two markers have in common is read twice: the last "_" stays, and becomes a space like all that is no letter.
_MARKER = re.compile(f"(?:{'|'.join(marker.removesuffix('_') for marker in MARKERS)})(?=_)")
_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
_SPACES = re.compile(" +")
_NEWLINES = re.compile(" *\n[ \n]*")


def languages() -> list[str]:
    """The languages that can be cleaned."""
    return sorted(ALPHABETS)


class Cleaner:
    """Cleans text of one language; a pure function of the text."""

    def __init__(self, language: str, points_to_spaces: bool = False) -> None:
        if language not in ALPHABETS:
            raise SpeakError(f"language is {language!r}; allowed: {', '.join(languages())}")
        self.language, self._keep_points = language, points_to_spaces
        self._outside = re.compile(f"[^{re.escape(ALPHABETS[language])}\n]+")
        self._digits = {
            ord(str(value)): f" {unicodedata.normalize('NFC', name)} "
            for value, name in enumerate(DIGITS[language].split())
        }

    def __call__(self, text: str) -> str:
        """The cleaned text, without white space at its ends."""
        text = _MARKER.sub("\n", text)
        text = composed(text)
        if self.language != "he":
            text = _compatible(text).translate(LOOK_ALIKES)
        if self.language == "tr":  # whose i keeps its dot; `lower` would make it an i and a combining dot, a space
            text = text.replace("İ", "i").replace("I", "ı")
        text = text.lower().translate(self._digits)
        if not self._keep_points:
            text = _POINTS.sub("", text)
        text = _SPACES.sub(" ", self._outside.sub(" ", text))
        return _NEWLINES.sub("\n", text).strip(" \n")


def clean_articles(articles: Iterable[str], cleaner: Cleaner, limit: int | None = None) -> Iterator[str]:
    """Cleaned articles, a newline before each but the first.

    `limit` cuts the raw text, articles joined by newlines, after so many characters, as DTP does; the beginning of a
    marker at the cut goes. No article is taken from `articles` after the one that is cut.
    """
    left, first = limit, True
    if left == 0:
        return
    for article in articles:
        cleaned = cleaner(article if left is None or left > len(article) else whole_markers(article[:left]))
        if cleaned:
            yield cleaned if first else "\n" + cleaned
            first = False
        if left is not None:
            left -= len(article) + 1
            if left <= 0:
                return


def whole_markers(text: str) -> str:
    """`text` without a marker, or the beginning of one, at its end; the first sign stays, another may end with it."""
    ends = (size for marker in MARKERS for size in range(2, len(marker) + 1) if text.endswith(marker[:size]))
    return text[: len(text) + 1 - max(ends, default=1)]


def composed(text: str) -> str:
    """NFC in time that is linear in the text: the library's grows with the square of the marks on one letter."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _mark_runs().sub(_in_order, text))


@functools.cache
def _mark_runs() -> re.Pattern[str]:
    """Runs of marks longer than any language has."""
    marks = [chr(point) for point in range(0x300, 0x110000) if unicodedata.combining(chr(point))]
    return re.compile(f"[{''.join(marks)}{_STACKED}]{{30,}}")


_STACKED = "\u0f73\u0f75\u0f81"
"""Marks that are two, of which the library says that they are none."""


def _in_order(run: re.Match[str]) -> str:
    """The canonical order of a run of marks, which is that of their classes and else their own."""
    marks = run[0]
    if any(mark in marks for mark in _STACKED):
        marks = "".join(unicodedata.normalize("NFD", mark) for mark in marks)
    return "".join(sorted(marks, key=unicodedata.combining))


def _compatible(text: str) -> str:
    """Each character's compatibility form where that is one character; combining sequences stay as they are."""
    odd = {c for c in set(text) if ord(c) > 127}
    table = {ord(c): form for c in odd if len(form := unicodedata.normalize("NFKC", c)) == 1 and form != c}
    return text.translate(table) if table else text
