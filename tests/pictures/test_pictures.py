"""Pictures of tokens: nothing of a text is lost, nothing of it becomes markup, every script has its letters."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_fixtures import HOSTILE, view_of, words
from PIL import Image

from speak_neuro.errors import SpeakError
from speak_neuro.pictures import html
from speak_neuro.pictures.picture import Picture
from speak_neuro.pictures.terminal import terminal
from speak_neuro.pictures.view import NeuronRun, View, clusters, is_right_to_left, visible


class Page(HTMLParser):
    """What a reader of the page sees: elements, and the text of tokens."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tokens: list[str] = []
        self._in_token = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_token = tag == "span" and (dict(attrs).get("class") or "").startswith("token")
        if self._in_token:
            self.tokens.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_token = False

    def handle_data(self, data: str) -> None:
        if self._in_token:
            self.tokens[-1] += data


@given(st.text(min_size=1, max_size=60), st.integers(0, 5))
@settings(max_examples=60)
def test_any_text_stays_text(text: str, seed: int) -> None:
    view = view_of(text, seed)
    page = Page(html.page([view, words(text)], text))
    shown = [html._shown(token) for token in [*view.tokens, *words(text).tokens]]
    assert page.tokens == [token.replace("\r\n", "\n") for token in shown]
    allowed = {"html", "head", "meta", "title", "style", "body", "div", "section", "h2", "bdi", "small", "p", "span"}
    svg = {"svg", "line", "rect", "polyline", "circle", "text", "ul", "li"}
    assert {tag for tag, _ in page.elements} <= allowed | svg
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_hostile_names_titles_and_texts_are_escaped() -> None:
    view = View(HOSTILE, HOSTILE, np.array([[0, len(HOSTILE)]]))
    for page in (html.page([view], HOSTILE), html.fragment([view])):
        assert "<script" not in page
        assert "<img" not in page
        assert "{{ 7*7 }}" in page  # the template language does not run in what it is given
    assert "default-src 'none'" in html.page([view], "x")


def test_a_spike_is_drawn_where_it_is_in_both_directions() -> None:
    latin, hebrew = "abcdefghij", "אבגדהוזחטי"
    for text, rtl in ((latin, False), (hebrew, True)):
        spikes = np.zeros(10, bool)
        spikes[[2, 8]] = True
        run = NeuronRun(np.where(spikes, 1.5, 0.2), spikes, np.arange(10) == 8, 1.0)
        view = View("x", text, np.array([[0, 3], [3, 9], [9, 10]]), run)
        assert view.endings == ["soft", "hard", "open"]
        pieces = html._pieces(view)
        assert is_right_to_left(text) == rtl
        assert [spike["kind"] for piece in pieces for spike in piece["spikes"]] == ["soft", "hard"]
        first = pieces[0]
        place = first["spikes"][0]["x"] / html.CELL
        assert place == (first["width"] / html.CELL - 2.5 if rtl else 2.5)
        order = [glyph["x"] for glyph in first["glyphs"]]
        assert order == sorted(order, reverse=rtl)
        page = html.page([view], "x")
        assert page.count(f'dir="{"rtl" if rtl else "ltr"}"') == 2
        assert ("from right to left" in page) == rtl


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", ["a", "b", "c"]),
        ("e\u0301a", ["e\u0301", "a"]),
        ("हिन्दी", ["हि", "न्दी"]),
        ("👩\u200d👧x", ["👩\u200d👧", "x"]),
        ("", []),
    ],
)
def test_clusters(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in clusters(text)] == expected


@given(st.text(max_size=40))
def test_clusters_and_stand_ins_keep_every_character(text: str) -> None:
    assert "".join(text[a:b] for a, b in clusters(text)) == text
    assert all(len(visible(character)) == 1 for character in text)


def test_spans_that_lose_text_are_refused() -> None:
    for spans in ([[0, 1]], [[0, 1], [2, 3]], [[0, 2], [1, 3]], [], [[1, 3]]):
        with pytest.raises(ValueError, match="do not partition"):
            View("x", "abc", np.array(spans, dtype=np.int64).reshape(-1, 2))
    with pytest.raises(ValueError, match="different texts"):
        Picture([words("abc"), words("abd")])


def test_the_terminal_shows_every_character_and_steers_nothing() -> None:
    view = view_of("a line\nand \x1b[2Janother", 3)
    plain = terminal([view], colour=False)
    body = plain.split("\n", 1)[1].rsplit("\n\n", 1)[0]
    assert re.sub("[┃┊│]", "", body) == "a line\nand \ufffd[2Janother"
    coloured = terminal([view], colour=True)
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured).count("\x1b") == 0
    for row in coloured.split("\n"):  # no colour runs on into the next line
        assert row.count("\x1b[48") == row.count("\x1b[0m")


def test_a_notebook_gets_the_fragment() -> None:
    fragment = Picture([view_of("some text")])._repr_html_()
    assert "<html" not in fragment
    assert ".speak-tokens" in fragment


class TestFigures:
    """PNG and SVG."""

    SCRIPTS = (
        ("latin", "The neuron closes a token."),
        ("hebrew", "הנוירון סוגר אסימון"),
        ("arabic", "كل نبضة تغلق رمزا"),
        ("devanagari", "न्यूरॉन ही टोकनाइज़र है"),
        ("thai", "เซลล์ประสาทคือตัวตัดคำ"),
        ("chinese", "神经元结束一个词元"),
    )

    @pytest.mark.parametrize(("script", "text"), SCRIPTS, ids=lambda value: value if value.isascii() else "")
    def test_letters_are_outlines_or_named_as_missing(self, script: str, text: str) -> None:
        glyphs = pytest.importorskip("speak_neuro.pictures.glyphs")
        if glyphs.uharfbuzz is None:
            pytest.skip("uharfbuzz is not installed: pip install 'speak-neuro[viz]'")
        found = glyphs.letters(text)
        spans = sorted((glyph.start, glyph.end) for glyph in found.glyphs)
        assert [0, *(end for _, end in spans)] == [*(start for start, _ in spans), len(text)]
        edges = {start for start, _ in clusters(text)}
        assert {start for start, _ in spans} <= edges  # no letter is cut
        assert len(spans) >= len(edges) - 2
        if found.missing:
            note = found.complaint()
            assert "install one" in note
            assert "fonts-noto" in note
        else:
            assert found.complaint() == ""
            drawn = [g for g in found.glyphs if text[g.start : g.end].strip()]
            assert all(g.outline is not None and len(g.outline.vertices) > 3 for g in drawn)
            if script == "arabic":  # joined: the letter inside a word differs from the letter alone
                alone = glyphs.letters("ب").glyphs[0].outline.vertices
                inside = next(g for g in glyphs.letters("ببب").glyphs if g.start == 1).outline.vertices
                assert alone.shape != inside.shape or not np.allclose(alone, inside)

    @pytest.mark.parametrize("kind", ["png", "svg"])
    def test_the_same_picture_is_the_same_file(self, kind: str, tmp_path: object) -> None:
        picture = Picture([view_of("The neuron closes a token. " * 4), words("The neuron closes a token. " * 4)])
        files = []
        for name in ("a", "b"):
            path = f"{tmp_path}/{name}.{kind}"
            picture.save(path)
            with open(path, "rb") as stream:
                files.append(stream.read())
        assert files[0] == files[1]
        if kind == "svg":
            root = ET.fromstring(files[0])
            assert root.tag.endswith("svg")
            assert b"<text" not in files[0]  # letters are outlines: no font is needed to read it
        else:
            image = np.asarray(Image.open(io.BytesIO(files[0])).convert("RGB")).reshape(-1, 3)
            colours = {tuple(colour) for colour in np.unique(image, axis=0).tolist()}
            assert {(0xB3, 0x40, 0x1F), (0x1F, 0x64, 0xA8), (0xEC, 0xEE, 0xED)} <= colours

    def test_forms_and_lengths(self, tmp_path: object) -> None:
        with pytest.raises(SpeakError, match=r"allowed: a name that ends in \.html"):
            Picture([words("a")]).save(f"{tmp_path}/x.pdf")
        with pytest.raises(SpeakError, match="allowed in a picture: 1 to 3,000"):
            Picture([words("a " * 2000)]).save(f"{tmp_path}/x.png")
