"""XNLI: does a premise entail a hypothesis, in fifteen languages, one label per pair (paper Table 2).

Rows have the columns premise, hypothesis and label, in a configuration per language with splits train, validation and
test, from a hub id or from local files (speak_neuro.rtok.tasks.rows).
"""

from __future__ import annotations

from pathlib import Path

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.tasks.examples import Example, check_words
from speak_neuro.rtok.tasks.rows import label_index, read_rows
from speak_neuro.rtok.text.normalise import normalise

LABELS = ("entailment", "neutral", "contradiction")
LANGUAGES = tuple("ar bg de el en es fr hi ru sw th tr ur vi zh".split())
HUB = "facebook/xnli"
COLUMNS = ("premise", "hypothesis", "label")


def load(source: str | Path, language: str, split: str, limit: int | None = None) -> list[Example]:
    """The examples of a language's split, its first `limit`; premise and hypothesis normalised, one unit each."""
    if language not in LANGUAGES:
        raise SpeakError(f"language is {language!r}, unknown to XNLI; allowed: {', '.join(LANGUAGES)}")
    rows = read_rows(source, language, split, COLUMNS, "label")
    examples = []
    for number, row in enumerate(rows.values[:limit]):
        where = rows.at(number)
        texts = []
        for column in ("premise", "hypothesis"):
            text = row[column]
            if not isinstance(text, str):
                raise SpeakError(f"{where}: {column} is {type(text).__name__}; allowed: a string")
            normalised = normalise(text)
            # A sentence of XNLI is one unit: its words are what U+2581 opens.
            check_words([word for word in normalised.split("▁") if word], f"{where}: {column}")
            texts.append((normalised,))
        label = label_index(row["label"], LABELS, rows.label_names, where)
        examples.append(Example(number, tuple(texts), (label,)))
    if not examples:
        raise SpeakError(f"{rows.where}: holds no pair; give a file with rows")
    return examples
