"""What a training run reads: ids, alphabet, exemplar and its boundaries, and the record that names the text."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speak_neuro.config import RunConfig
from speak_neuro.corpus import Splits
from speak_neuro.errors import SpeakError
from speak_neuro.splits import PARTS, digest, read_splits

if TYPE_CHECKING:  # the command's --help does not wait for torch
    from speak_neuro.alphabet import Alphabet
    from speak_neuro.checkpoint import Run
    from speak_neuro.exemplar import UnigramExemplar
    from speak_neuro.proxy import ProxyStore

Ids = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]

EXEMPLAR_SYSTEMS = ("speak", "dtp-unigram")
"""They start from, or learn, an exemplar tokenizer's boundaries."""
LEAST_WHITE_SPACE = 0.02


@dataclass(frozen=True)
class Data:
    """The three parts of a text as ids (n,), and what was learned from the train part."""

    train: Ids
    valid: Ids
    test: Ids
    alphabet: Alphabet
    exemplar: UnigramExemplar | None
    """For the systems that start from it or learn it; the others need none."""
    train_exemplar: BoolArray | None
    valid_exemplar: BoolArray | None
    test_exemplar: BoolArray | None
    record: dict[str, Any]
    """For config.json and results: source, characters, sha256, and the characters of each part."""

    def proxy(self) -> ProxyStore | None:
        """Proxy spikes at the exemplar's boundaries."""
        from speak_neuro.proxy import ProxyStore

        return None if self.train_exemplar is None else ProxyStore.create(None, self.train_exemplar)


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which text."""
    parser.add_argument(
        "--data",
        type=Path,
        help="UTF-8 text, folder of .txt files (both cut 90/5/5), or folder with train.txt, valid.txt and test.txt "
        "(default: the embedded text)",
    )
    parser.add_argument(
        "--exemplar", type=Path, metavar="FILE", help="exemplar.json of another run, instead of learning one"
    )


def read_data(arguments: argparse.Namespace, config: RunConfig, folder: Path, run: Run | None) -> Data:
    """The text that `arguments` name, checked; `run` is the run of `folder` when it is resumed.

    Writes nothing into the run folder.
    """
    parts = read_splits(arguments.data)
    check_lengths(parts, config)
    check_white_space(parts.train, config)
    parts = parts._replace(test=parts.test[: config.training.test_characters or None])
    record = {
        "source": str(arguments.data) if arguments.data else "embedded en",
        "characters": sum(map(len, parts)),
        "sha256": digest(parts),
        "parts": {name: len(part) for name, part in zip(PARTS, parts, strict=True)},
    }
    if run is not None and not same_text(run.record.get("data", {}), record):
        raise SpeakError(f"{folder}: was trained on {run.record.get('data')}; give the same --data to resume it")

    from speak_neuro.alphabet import Alphabet
    from speak_neuro.checkpoint import EXEMPLAR
    from speak_neuro.exemplar import UnigramExemplar

    alphabet = run.alphabet if run is not None else Alphabet.learn(parts.train)
    exemplar = None
    if run is not None and (folder / EXEMPLAR).exists():
        exemplar = UnigramExemplar.load(folder / EXEMPLAR)
    elif config.tokenizer.kind in EXEMPLAR_SYSTEMS and arguments.exemplar:
        exemplar = UnigramExemplar.load(arguments.exemplar)
    elif config.tokenizer.kind in EXEMPLAR_SYSTEMS:
        if not arguments.quiet:
            print("learning the exemplar's pieces", file=sys.stderr)
        exemplar = UnigramExemplar.train(parts.train, vocabulary=config.training.exemplar_vocabulary)
    ends = [None if exemplar is None else exemplar.boundaries(part) for part in parts]
    return Data(*map(alphabet.encode, parts), alphabet, exemplar, *ends, record)


def same_text(recorded: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether a run was trained on this text, cut in the same places; its path may have changed."""
    return all(recorded.get(name, record[name]) == record[name] for name in ("characters", "sha256", "parts"))


def check_lengths(parts: Splits, config: RunConfig) -> None:
    """Refuse a text too short for the configuration before anything is written."""
    needed = config.training.batch * (config.training.window + 1)
    if len(parts.train) < needed:
        raise SpeakError(
            f"the training part has {len(parts.train)} characters, a batch of {config.training.batch} windows needs "
            f"{needed}; give more text, or a smaller --window or --batch"
        )
    for name in ("valid", "test"):
        if len(getattr(parts, name)) < 2:
            raise SpeakError(f"the {name} part has {len(getattr(parts, name))} characters, it needs 2; give more text")


def check_white_space(text: str, config: RunConfig) -> None:
    """Refuse `whitespace` on a text that hardly has any."""
    start = text[:100_000]
    spaces = sum(map(str.isspace, start))
    if config.tokenizer.kind == "whitespace" and spaces < LEAST_WHITE_SPACE * len(start):
        raise SpeakError(
            f"--tokenizer is whitespace, but only {spaces} of the text's first {len(start)} characters are white "
            "space, as in a script written without it; take another --tokenizer"
        )
