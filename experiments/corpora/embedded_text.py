"""Make the texts in speak_neuro/data from a tree of extracted corpora; the result is the same bytes each time.

    python experiments/corpora/embedded_text.py OUT [--to speak_neuro/data]

Of OUT are used (one paragraph per line, a blank line between documents):

    wiki/en/train.txt      whole articles of 3,000 to 40,000 characters, without the paragraphs that are not running
                           prose, in the order of the hash of their first paragraph: neighbours are about unlike things
    udhr/LANG/test.txt     the Universal Declaration of Human Rights, as it is

What the texts are, who wrote them and under which licence: speak_neuro/data/SOURCES.md.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from speak_neuro.common.command import run_command
from speak_neuro.common.files import atomic_write
from speak_neuro.errors import SpeakError

ARTICLE_CHARACTERS = range(3_000, 40_001)
LANGUAGES = ("ar", "fi", "he", "hi", "ja", "ru", "th", "vi", "zh")
# Left over where a template, a formula or a table was removed.
RESIDUE = re.compile(r"[\\{}<>|^_=*#~•→]|\(\s|\s[,;)]|[(,;][,;)]|\"\"|\.\.\.|:\s*$|[\x00-\x1f\u2028\u2029]")
LATIN_PROSE = re.compile(r"[\u0020-\u024f\u2010-\u2026\u2032\u2033\u20ac]*")


def is_prose(paragraph: str) -> bool:
    """Whole sentences of Latin script: no list items, formulas, transcriptions or damaged sentences."""
    ends = paragraph.rstrip('"\u201d)')[-1:] in (".", "!", "?")
    digits = sum(character.isdigit() for character in paragraph)
    return (
        len(paragraph) >= 80
        and ends
        and digits * 12 <= len(paragraph)
        and RESIDUE.search(paragraph) is None
        and LATIN_PROSE.fullmatch(paragraph) is not None
    )


def read(path: Path) -> str:
    if not path.is_file():
        raise SpeakError(f"{path}: no such file; give the tree that holds it")
    return path.read_text(encoding="utf-8").strip("\n") + "\n"


def english(tree: Path) -> str:
    chosen = []
    for document in read(tree / "wiki" / "en" / "train.txt").rstrip("\n").split("\n\n"):
        paragraphs = document.split("\n")
        prose = [paragraph for paragraph in paragraphs if is_prose(paragraph)]
        if len(document) in ARTICLE_CHARACTERS and prose:
            chosen.append((hashlib.sha256(paragraphs[0].encode()).digest(), "\n".join(prose)))
    return "\n\n".join(text for _, text in sorted(chosen)) + "\n"


def write(folder: Path, name: str, text: str) -> None:
    data = text.encode("utf-8")
    packed = lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=9 | lzma.PRESET_EXTREME)
    with atomic_write(folder / f"{name}.txt.xz") as stream:
        stream.write(packed)
    print(
        f"{name}  {len(text):>9,} characters  {len(packed):>9,} bytes packed  sha256 {hashlib.sha256(data).hexdigest()}"
    )


def make(arguments: argparse.Namespace) -> int:
    write(arguments.to, "en", english(arguments.tree))
    for language in LANGUAGES:
        write(arguments.to, language, read(arguments.tree / "udhr" / language / "test.txt"))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make_embedded_text", description=str(__doc__).split("\n")[0])
    parser.add_argument("tree", type=Path, help="tree of extracted corpora, with wiki/en/train.txt and udhr")
    parser.add_argument("--to", type=Path, default=Path("speak_neuro/data"), help="folder to write (%(default)s)")
    return run_command(parser, make, argv)


if __name__ == "__main__":
    sys.exit(main())
