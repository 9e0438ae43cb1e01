"""Paragraphs of prose from wikitext, from dictd's dictionary format, and from messages of programs."""

from __future__ import annotations

import html
import re
import struct
from collections.abc import Iterator

_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffc\ufffd]")
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_EMPTY_REFERENCE = re.compile(r"<ref\b[^<>]*/>")
_NO_PROSE = "ref math chem gallery timeline pre code syntaxhighlight source table div score imagemap nowiki"
_NO_PROSE_TAGS = re.compile(rf"<({'|'.join(_NO_PROSE.split())})\b[^<>]*>.*?</\1\s*>", re.S | re.I)
_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")
_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_NOT_AN_ARTICLE = re.compile(
    r"\s*:?(?:file|image|media|category|template|portal|help|user|special|wp|wikt|wiktionary|commons|simple"
    r"|[a-z]{2,3}(?:-[a-z]+)*)\s*:",
    re.I,
)
_OUTSIDE_LINK = re.compile(r"\[(?:https?:|ftp:)?//\S*\s*([^\[\]]*)\]")
_MARKUP_LEFT = re.compile(r"[{}|\[\]<>]|https?:")


def squeezed(text: str) -> str:
    """Invisible characters dropped, white space as single spaces."""
    return " ".join(_INVISIBLE.sub("", text).split())


def wikitext(source: str, shortest: int = 80) -> list[str]:
    """The paragraphs of an article: no tables, templates, lists, headings, references, pictures."""
    text = html.unescape(html.unescape(source))
    text = _EMPTY_REFERENCE.sub("", _COMMENT.sub("", text))
    text = _NO_PROSE_TAGS.sub("", text)
    text = without(text, "{|", "|}") if "{|" in text else text
    text = without(text, "{{", "}}")
    before = ""
    while before != text:  # from the inside out: a picture's caption holds links
        before, text = text, _LINK.sub(_label, text)
    text = _TAG.sub(" ", _OUTSIDE_LINK.sub(r"\1", text)).replace("'''", "").replace("''", "")
    found = []
    for line in text.split("\n"):
        if line and line[0] not in "*#|!=:;{}":
            line = re.sub(r"\(\s*[,;:\s]*", "(", squeezed(line))
            line = re.sub(r"\s+([,.;:)])", r"\1", re.sub(r"\s*\(\)", "", line))
            if len(line) >= shortest and not _MARKUP_LEFT.search(line):
                found.append(line)
    return found


def _label(link: re.Match[str]) -> str:
    target, _, label = link.group(1).partition("|")
    return "" if _NOT_AN_ARTICLE.match(target) else label.rpartition("|")[2] or target


def without(text: str, opening: str, closing: str) -> str:
    """The text outside brackets that nest; from an opening one that is never closed, nothing."""
    kept, depth, at = [], 0, 0
    for match in re.finditer(f"{re.escape(opening)}|{re.escape(closing)}", text):
        if depth == 0:
            kept.append(text[at : match.start()])
        depth = depth + 1 if match.group() == opening else max(depth - 1, 0)
        at = match.end()
    return "".join([*kept, text[at:] if depth == 0 else ""])


def dictionary(text: str, shortest: int = 60) -> Iterator[tuple[str, list[str]]]:
    """Headword and paragraphs of each entry: a headword begins its line, what belongs to it is indented."""
    for entry in re.split(r"\n(?=\S)", text):
        head, _, body = entry.partition("\n")
        if head.startswith("00-database"):
            continue
        found = []
        for paragraph in re.split(r"\n\s*\n", re.sub(r"[{}]", "", body)):
            line = re.sub(r"^(?:\d+\.\s+)?<[^<>]*>\s*(?:\([^()]*\)\s*)?", "", squeezed(paragraph))
            line = re.sub(r"\s*\(\d{4}-\d\d-\d\d\)$", "", line)
            if len(line) >= shortest and not re.search(r"https?:|ftp[:.]|[<>|\[\]]|\(\d{4}-\d\d", line):
                found.append(line)
        if found:
            yield head.strip(), found


_PLACEHOLDER = re.compile(
    r"%(?:\d+\$)?[-+ 0#']*\d*(?:\.\d+)?l{0,2}[diouxXeEfgGscpm@]|%\(\w+\)[sdif]|%\w+%|\$\{?\w+\}?|\{\{?[-$\w.: ]*\}?\}"
)
_BREAK = re.compile(r"<br\s*/?>|</p>|</li>|\\n\\n|\n\s*\n", re.I)
_CHOICE = re.compile(r"\{\{(?:plural|gender|grammar|formal):[^|{}]*\|([^|{}]*)(?:\|[^{}]*)?\}\}", re.I)
_NO_SENTENCE = re.compile(r"[{}\[\]|<>\\^~`]|/\*|#\d|%\d|https?:|www\.|://|->|==|\w\(\)|\w\.\w+\.\w|__|--\w")


def message(text: str, accelerator: str = "") -> list[str]:
    """The paragraphs of a program's message; placeholders become 1, the mark of a menu's key is dropped."""
    text = _TAG.sub("", _BREAK.sub("\u2029", html.unescape(text))).replace("\\n", " ")
    if accelerator:
        text = re.sub(r"\s*\([_&][A-Za-z0-9]\)", "", text)
        text = re.sub(f"{re.escape(accelerator)}(?=\\w)", "", text)
    lines = (squeezed(part).lstrip("*#-•– ") for part in _PLACEHOLDER.sub("1", text).split("\u2029"))
    return [line for line in lines if line and not _NO_SENTENCE.search(line)]


def mediawiki_message(text: str) -> list[str]:
    """The same for MediaWiki's messages, which hold wikitext."""
    text = re.sub(r"<(ref|pre|code|tt|nowiki|syntaxhighlight)\b[^<>]*>.*?</\1>", " ", text, flags=re.S)
    before = ""
    while before != text:  # the first form of each choice
        before = text
        text = re.sub(r"\{\{[^|{}]*\}\}", "1", _CHOICE.sub(r"\1", text))
    text = re.sub(r"\[\[(?:[^|\[\]]*\|)?([^|\[\]]*)\]\]", r"\1", text)
    text = re.sub(r"\[(?:https?:|//|\$)\S*\s+([^\[\]]*)\]", r"\1", text).replace("'''", "").replace("''", "")
    lines = (re.sub(r"\$\d", "1", line.strip("*#:;= ")) for line in text.split("\n"))
    return [part for line in lines for part in message(line)]


def catalogue(content: bytes) -> dict[str, str]:
    """GNU gettext's .mo: translation of each message, without contexts and plural forms."""
    order = "<" if content[:4] == b"\xde\x12\x04\x95" else ">"
    count, originals, translations = struct.unpack(f"{order}3I", content[8:20])
    found = {}
    for number in range(count):
        pair = []
        for table in (originals, translations):
            size, start = struct.unpack_from(f"{order}2I", content, table + 8 * number)
            pair.append(content[start : start + size].decode("utf-8", "replace").split("\0")[0])
        if pair[0]:
            found[pair[0].rpartition("\x04")[2]] = pair[1]
    return found


def fluent(text: str) -> dict[str, str]:
    """Messages of a Fluent file (.ftl) without choices and terms; what is inserted becomes 1, a brand its name."""
    found: dict[str, str] = {}
    name = key = ""
    for line in text.split("\n"):
        if match := re.match(r"([A-Za-z][\w-]*)\s*=\s*(.*)", line):
            name = key = match.group(1)
        elif match := re.match(r"\s+(\.[\w-]+)\s*=\s*(.*)", line):
            key = name + match.group(1)
        elif not line.startswith((" ", "\t")):
            name = key = ""
        if key:
            found[key] = match.group(2) if match else f"{found[key]} {line.strip()}"
    return {
        key: re.sub(r"\{[^{}]*\}", "1", re.sub(r"\{\s*-brand-[\w-]*(?:\([^()]*\))?\s*\}", "Firefox", message))
        for key, message in found.items()
        if "->" not in message
    }


def properties(text: str) -> dict[str, str]:
    """Messages of a Java-style .properties file."""
    pairs = (line.partition("=") for line in text.split("\n") if "=" in line and not line.startswith("#"))
    escape = re.compile(r"\\u([0-9a-fA-F]{4})")
    return {key.strip(): escape.sub(lambda m: chr(int(m.group(1), 16)), value.strip()) for key, _, value in pairs}
