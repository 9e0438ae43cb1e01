"""UNER: named entities in many languages, one label per word (paper Table 6).

A set is named as on the hub, LANGUAGE_TREEBANK (`pt_bosque`), and has splits train, dev (or validation) and test. It is
read from a hub id, from local Parquet or JSON-lines files with columns `tokens` and `ner_tags` (rtok.tasks.rows),
or from the project's own iob2 files `SET-ud-SPLIT.iob2`: comment lines, then a row per word

    index TAB word TAB tag TAB ...

and an empty line between sentences. As in CoNLL-U a line that begins with "#" is a comment, and ranges (2-3) and empty
nodes (1.1) are no words. Words count from 1. A line that is none of these is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from speak_neuro.common.regular import read_whole
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.tasks.examples import Example, check_words
from speak_neuro.rtok.tasks.rows import label_index, read_rows, split_names
from speak_neuro.rtok.text.normalise import normalise_words

LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
SETS = tuple(
    "ceb_gja da_ddt de_pud en_ewt en_pud hr_set pt_bosque pt_pud ru_pud sk_snk sr_set sv_pud sv_talbanken tl_trg "
    "tl_ugnayan zh_gsd zh_gsdsimp zh_pud".split()
)
_RANGE = re.compile(r"([1-9][0-9]*)-([1-9][0-9]*)")
_EMPTY_NODE = re.compile(r"([0-9]+)\.([1-9][0-9]*)")
HUB = "BramVanroy/universal_ner"
"""A Parquet copy: `universalner/universal_ner` itself is a script, which `datasets` from version 4 on refuses."""


class Tagged(NamedTuple):
    """One sentence as the source has it."""

    words: tuple[str, ...]
    labels: tuple[int, ...]
    where: str


def load(source: str | Path, name: str, split: str, limit: int | None = None) -> list[Example]:
    """The examples of set `name`, its first `limit`; words normalised."""
    examples = []
    for number, sentence in enumerate(read(source, name, split)[:limit]):
        try:
            units = normalise_words(sentence.words)
        except (ValueError, SpeakError) as error:
            raise SpeakError(f"{sentence.where}: {error}") from None
        examples.append(Example(number, (tuple(units),), sentence.labels))
    return examples


def language(name: str) -> str:
    """The set's language code: `pt` of `pt_bosque`."""
    if name not in SETS:
        raise SpeakError(f"set is {name!r}, unknown to UNER; allowed: {', '.join(SETS)}")
    return name.split("_")[0]


def read(source: str | Path, name: str, split: str) -> list[Tagged]:
    """The sentences of a set's split, checked, words as they are."""
    language(name)
    files = [Path(source) / f"{name}-ud-{alias}.iob2" for alias in split_names(split)]
    found_files = [file for file in files if file.is_file()]
    if len(found_files) > 1:
        raise SpeakError(f"{found_files[1]}: is the same split as {found_files[0].name}; leave one of them there")
    if found_files:
        return read_iob2(found_files[0])
    rows = read_rows(source, name, split, ("tokens", "ner_tags"), "ner_tags")
    found = []
    for index, row in enumerate(rows.values):
        where = rows.at(index)
        words, tags = row["tokens"], row["ner_tags"]
        if not isinstance(words, list) or not isinstance(tags, list) or not all(isinstance(w, str) for w in words):
            raise SpeakError(f"{where}: tokens and ner_tags are not lists; allowed: a list of words, a list of labels")
        if len(words) != len(tags):
            raise SpeakError(f"{where}: {len(words)} tokens and {len(tags)} ner_tags; allowed: one label per token")
        found.append(_checked(words, [label_index(t, LABELS, rows.label_names, where) for t in tags], where))
    if not found:
        raise SpeakError(f"{rows.where}: holds no sentence; give a file with rows")
    return found


def read_iob2(file: Path) -> list[Tagged]:
    """The sentences of an iob2 file."""
    try:
        text = read_whole(file, "give an iob2 file").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpeakError(f"{file}: byte {error.start} is not UTF-8; convert the file") from None
    sentences: list[Tagged] = []
    words: list[str] = []
    labels: list[int] = []
    began = 0
    # A sentence is a run of lines. One that has comments and no words is an empty sentence.
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        line = line.removesuffix("\r")
        if not line:
            if began:
                sentences.append(_checked(words, labels, f"{file}: the sentence at line {began}"))
            words, labels, began = [], [], 0
            continue
        began = began or number
        row = _word(line, len(words) + 1, f"{file}: line {number}")
        if row is not None:
            words.append(row[0])
            labels.append(row[1])
    if not sentences:
        raise SpeakError(f"{file}: holds no sentence; give rows index TAB word TAB tag")
    return sentences


def _word(line: str, expected: int, where: str) -> tuple[str, int] | None:
    """Word and label of a line, None for a comment, a range or an empty node; `expected` is the next word's index."""
    if line.startswith("#"):
        return None
    columns = line.split("\t")
    if len(columns) < 3:
        raise SpeakError(f"{where} has {len(columns)} columns; needed: index, word, tag")
    if columns[0] == str(expected):
        return columns[1], label_index(columns[2], LABELS, None, where)
    span, node = _RANGE.fullmatch(columns[0]), _EMPTY_NODE.fullmatch(columns[0])
    if span and int(span[1]) == expected < int(span[2]):
        return None
    if node and int(node[1]) == expected - 1:
        return None
    raise SpeakError(
        f"{where} has index {columns[0]!r}; allowed here: {expected}, a range from {expected} on, an empty node "
        f"{expected - 1}.1, or a comment that begins with #"
    )


def _checked(words: Sequence[str], labels: Sequence[int], where: str) -> Tagged:
    check_words(words, where)
    return Tagged(tuple(words), tuple(labels), where)
