"""The two tasks as one shape: which labels, which splits, how a batch of logits is scored.

uner    a label per word, span F1              xnli    a label per pair, accuracy
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.tasks import uner, xnli
from speak_neuro.rtok.tasks.examples import Example
from speak_neuro.rtok.tasks.span_f1 import score

Load = Callable[[str | Path, str, str, "int | None"], list[Example]]


@dataclass(frozen=True)
class Split:
    """One split of one set."""

    name: str
    """UNER: the set, `en_ewt`. XNLI: the language."""
    split: str

    def __str__(self) -> str:
        return f"{self.name}:{self.split}"

    @classmethod
    def parse(cls, text: str) -> Split:
        """`NAME:SPLIT`."""
        name, colon, split = text.partition(":")
        if not (name and colon and split):
            raise SpeakError(f"split is {text!r}; allowed: NAME:SPLIT, such as en_ewt:dev or de:validation")
        return cls(name, split)


@dataclass(frozen=True)
class Task:
    """What the training loop and the scores need to know of a task."""

    name: str
    labels: tuple[str, ...]
    per_word: bool
    score: str
    """Name of the score that selects the checkpoint."""
    hub: str
    train: Split
    select: Split
    """The split that selects the checkpoint."""
    evaluate: tuple[Split, ...]
    load: Load
    language: Callable[[str], str]
    """Language code of a set's name."""

    def scores(self, gold: Sequence[Sequence[int]], predicted: Sequence[Sequence[int]]) -> dict[str, float]:
        """Scores of label indices, per example: one per word, or one."""
        if self.per_word:
            found = score(
                [[self.labels[label] for label in row] for row in gold],
                [[self.labels[label] for label in row] for row in predicted],
            )
            return {"f1": found.f1, "precision": found.precision, "recall": found.recall}
        right = sum(truth[0] == guess[0] for truth, guess in zip(gold, predicted, strict=True))
        return {"accuracy": right / max(len(gold), 1)}


def _xnli_language(name: str) -> str:
    if name not in xnli.LANGUAGES:
        raise SpeakError(f"language is {name!r}, unknown to XNLI; allowed: {', '.join(xnli.LANGUAGES)}")
    return name


TABLE_2 = tuple("ar bg de el en es fr hi ru sw tr ur vi".split())
"""The thirteen languages of the paper's Table 2: those of XNLI that ZeTT's hypernetwork knows."""
TABLE_6 = ("en_ewt:dev", "de_pud:test", "pt_bosque:dev", "pt_pud:test", "ru_pud:test")
"""The five sets of the paper's Table 6, with the splits that DyTok evaluates."""

TASKS = {
    "uner": Task(
        "uner",
        uner.LABELS,
        True,
        "f1",
        uner.HUB,
        Split("en_ewt", "train"),
        Split("en_ewt", "dev"),
        (*map(Split.parse, TABLE_6), Split("en_ewt", "test")),
        uner.load,
        uner.language,
    ),
    "xnli": Task(
        "xnli",
        xnli.LABELS,
        False,
        "accuracy",
        xnli.HUB,
        Split("en", "train"),
        Split("en", "validation"),
        tuple(Split(name, "validation") for name in TABLE_2),
        xnli.load,
        _xnli_language,
    ),
}
