"""Letters as outlines, of any script: a font that has them, shaped as the script is written.

Pictures for print are drawn by matplotlib, which knows one font at a time and joins no letters. Here each stretch of
text gets the font of its script, HarfBuzz places its glyphs (Arabic letters joined, Hindi vowels before their
consonant), and every cluster of characters becomes one outline. What no font on the machine has is drawn as an empty
frame and named in `missing`.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speak_neuro.errors import MissingExtra
from speak_neuro.pictures.view import clusters, visible

try:
    import uharfbuzz
    from fontTools import unicodedata as scripts
    from fontTools.pens.basePen import BasePen
    from fontTools.ttLib import TTFont
    from matplotlib import font_manager
    from matplotlib.path import Path as Outline
except ImportError:  # the caller asks `require` first
    uharfbuzz = None
    BasePen = object

PACKAGES = {"Hani": "fonts-noto-cjk", "Hira": "fonts-noto-cjk", "Kana": "fonts-noto-cjk", "Hang": "fonts-noto-cjk"}
"""Where Debian keeps a script's font; others: fonts-noto-core."""


def require() -> None:
    """Stop with the remedy where what draws letters is not installed."""
    if uharfbuzz is None:
        raise MissingExtra("matplotlib or uharfbuzz is not installed: pip install 'speak-neuro[viz]'")


@dataclass(frozen=True)
class Glyph:
    """The outline of the characters [start, end), its origin at the left of the baseline, in units of the font size."""

    start: int
    end: int
    outline: Any
    width: float


@dataclass
class Letters:
    """Outlines of a text, and what no font has."""

    glyphs: list[Glyph] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Character -> name of its script."""

    def complaint(self) -> str:
        """One line that says what to install, empty where nothing is missing."""
        if not self.missing:
            return ""
        names = sorted(set(self.missing.values()))
        packages = sorted({PACKAGES.get(scripts.script(c), "fonts-noto-core") for c in self.missing})
        return (
            f"no font on this machine has {len(self.missing)} of the characters ({', '.join(names)}); they are empty "
            f"frames; install one (on Debian: {', '.join(packages)}), or write --out FILE.html, which the browser draws"
        )


class _Pen(BasePen):  # type: ignore[misc]
    """Collects an outline as matplotlib's vertices and codes."""

    def __init__(self, glyphs: Any, offset: tuple[float, float], scale: float) -> None:
        super().__init__(glyphs)
        self.vertices: list[tuple[float, float]] = []
        self.codes: list[int] = []
        self._offset, self._scale = offset, scale

    def _add(self, code: Any, *points: tuple[float, float]) -> None:
        for x, y in points:
            self.vertices.append(((x + self._offset[0]) * self._scale, (y + self._offset[1]) * self._scale))
            self.codes.append(int(code))

    def _moveTo(self, pt: tuple[float, float]) -> None:
        self._add(Outline.MOVETO, pt)

    def _lineTo(self, pt: tuple[float, float]) -> None:
        self._add(Outline.LINETO, pt)

    def _curveToOne(self, pt1: tuple[float, float], pt2: tuple[float, float], pt3: tuple[float, float]) -> None:
        self._add(Outline.CURVE4, pt1, pt2, pt3)

    def _qCurveToOne(self, pt1: tuple[float, float], pt2: tuple[float, float]) -> None:
        self._add(Outline.CURVE3, pt1, pt2)

    def _closePath(self) -> None:
        self._add(Outline.CLOSEPOLY, (0.0, 0.0))


class Font:
    """One font file, for outlines and for HarfBuzz."""

    def __init__(self, path: str) -> None:
        data = Path(path).read_bytes()  # lazily read files would stay open as long as the cache
        self.ttf = TTFont(io.BytesIO(data), fontNumber=0, lazy=True)
        self.cmap: dict[int, str] = self.ttf.getBestCmap() or {}
        self.glyphs = self.ttf.getGlyphSet()
        self.names = self.ttf.getGlyphOrder()
        self.scale = 1 / self.ttf["head"].unitsPerEm
        self.shaper = uharfbuzz.Font(uharfbuzz.Face(uharfbuzz.Blob(data), 0))

    def has(self, text: str) -> bool:
        """Whether it has every character."""
        return all(ord(character) in self.cmap for character in text)


@functools.lru_cache(maxsize=1)
def _files() -> dict[str, str]:
    """Font files of this machine by name, those that come with matplotlib included."""
    own = (
        [*Path(font_manager.get_data_path(), "fonts", "ttf").glob("*.ttf")]
        if hasattr(font_manager, "get_data_path")
        else []
    )
    found = [*own, *map(Path, font_manager.findSystemFonts())]
    return {path.stem.lower(): str(path) for path in sorted(found, key=str)}


@functools.lru_cache(maxsize=64)
def _font(path: str) -> Font | None:
    try:
        return Font(path)
    except Exception:  # a broken or unusual font file: fontTools raises many kinds
        return None


@functools.lru_cache(maxsize=4096)
def font_for(character: str) -> Font | None:
    """A font with this character: the usual ones of its script first, then any."""
    files, script = _files(), scripts.script(character)
    name = scripts.script_name(script).lower().replace("_", "")
    likely = [
        "dejavusans",
        "notosans-regular",
        f"notosans{name}-regular",
        f"notonaskh{name}-regular",
        f"notoserif{name}-regular",
    ]
    if script in PACKAGES:
        likely = ["notosanscjk-regular", *likely]
    if script not in ("Latn", "Grek", "Cyrl", "Zyyy", "Zinh", *PACKAGES):
        likely = [*likely[2:], *likely[:2]]
    rest = [stem for stem in files if stem.endswith(("-regular", "regular")) or "-" not in stem]
    for stem in [*likely, *rest]:
        font = _font(files[stem]) if stem in files else None
        if font is not None and font.has(character):
            return font
    return None


def letters(text: str) -> Letters:
    """Outlines of all clusters of `text`; what cannot be seen is drawn as its stand-in."""
    require()
    shown = "".join(map(visible, text))
    groups, found = clusters(shown), Letters()
    for first, last, font in _stretches(shown, groups):
        start, end = groups[first][0], groups[last - 1][1]
        if font is None:
            for character in shown[start:end]:
                found.missing[character] = scripts.script_name(scripts.script(character))
            found.glyphs += [Glyph(a, b, _frame(), 0.6) for a, b in groups[first:last]]
        else:
            found.glyphs += _shape(shown, groups[first:last], font)
    return found


def _stretches(text: str, groups: list[tuple[int, int]]) -> Iterator[tuple[int, int, Font | None]]:
    """Neighbouring clusters of one font and one script: (first, last + 1, font)."""
    first, kind = 0, None
    fonts: list[Font | None] = []
    for index, (start, end) in enumerate(groups):
        font = font_for(text[start])
        if font is not None and not font.has(text[start:end]):
            whole = next(
                (f for c in text[start:end] if (f := font_for(c)) is not None and f.has(text[start:end])), None
            )
            font = whole or font
        fonts.append(font)
        now = (id(font), scripts.script(text[start]))
        if index and now != kind:
            yield first, index, fonts[first]
            first = index
        kind = now
    if groups:
        yield first, len(groups), fonts[first]


def _shape(text: str, groups: list[tuple[int, int]], font: Font) -> list[Glyph]:
    """HarfBuzz over a stretch, its glyphs handed to the clusters that they belong to."""
    start, end = groups[0][0], groups[-1][1]
    buffer = uharfbuzz.Buffer()
    buffer.add_codepoints([ord(character) for character in text], item_offset=start, item_length=end - start)
    buffer.guess_segment_properties()
    uharfbuzz.shape(font.shaper, buffer)
    index_of = {position: index for index, (a, b) in enumerate(groups) for position in range(a, b)}
    vertices: list[list[tuple[float, float]]] = [[] for _ in groups]
    codes: list[list[int]] = [[] for _ in groups]
    widths = [0.0] * len(groups)
    for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
        index = index_of[info.cluster]
        offset = widths[index] / font.scale + position.x_offset, position.y_offset
        pen = _Pen(font.glyphs, offset, font.scale)
        font.glyphs[font.names[info.codepoint]].draw(pen)
        vertices[index] += pen.vertices
        codes[index] += pen.codes
        widths[index] += position.x_advance * font.scale
    glyphs: list[Glyph] = []
    for (a, b), points, kinds, width in zip(groups, vertices, codes, widths, strict=True):
        if not kinds and width == 0 and glyphs:  # HarfBuzz drew it with the one before: a ligature, a Thai vowel
            glyphs[-1] = dataclasses.replace(glyphs[-1], end=b)
        else:
            glyphs.append(Glyph(a, b, Outline(points, kinds) if kinds else None, width))
    return glyphs


def _frame() -> Any:
    """An upright empty box."""
    corners = [(0.05, 0), (0.55, 0), (0.55, 0.72), (0.05, 0.72), (0.05, 0)]
    inner = [(0.1, 0.05), (0.1, 0.67), (0.5, 0.67), (0.5, 0.05), (0.1, 0.05)]
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY]
    return Outline([*corners, *inner], [*codes, *codes])
