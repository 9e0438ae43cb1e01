"""Characters per id, and the speed of making ids: SPEAK's pieces against BPE and Unigram of the same size.

python experiments/bench/ids.py texts/ --runs runs/ids --json experiments/results/ids.json

`texts/` has a folder for each language with train.txt and test.txt (experiments/corpora/make.py). A language whose run
is not in `--runs` is trained first. Every vocabulary is learned from the same characters of train.txt, and scored
on test.txt: characters per id, the text in one go. Each has a fallback to bytes, so none loses a character.

Sizes are equal: where too little repeats for the size asked for, BPE ends below it, and all others are learned anew at
the size that BPE has. A language and size that the file of `--json` has with the same settings is not measured again.

    ranges, tokens           SPEAK's: pieces in contextual ranges, in its tokens
    BPE, Unigram             byte level, words apart as in GPT-2 (`tokenizers`)
    BPE without borders      merges across words within a line, as SuperBPE's second stage

Speed: one core, compiled SPEAK against `tokenizers` with one thread, taking turns, the median of --repeats.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from speak_neuro.common.command import run_command
from speak_neuro.common.json_files import Strict, read_json
from speak_neuro.common.provenance import write_result
from speak_neuro.common.timing import in_turns
from speak_neuro.errors import ParityError, SpeakError

GTOK = Path(__file__).resolve().parents[1] / "gtok.py"
UNITS = ("ranges", "tokens")
PEERS = {"BPE": "bpe", "Unigram": "unigram-bytes", "BPE without borders": "bpe-lines"}
FLAGS = (
    "--preset smoke --encoder convolution --width 32 --heads 2 --inner 128 --steps 300 --batch 8 --evaluate-every 300 "
    "--evaluate-characters 5000 --test-characters 10000"
)
"""A minute on one core."""


class Before(Strict):
    """Results of an earlier call."""

    metrics: dict[str, dict[str, Any]]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="ids.py", description=(__doc__ or "").split("\n\n")[0])
    add_texts(parser, "2000,8000,32000")
    parser.add_argument("--repeats", type=int, default=5, help="timed repetitions (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    return parser


def add_texts(parser: argparse.ArgumentParser, sizes: str) -> None:
    """Texts and runs, as `languages_of`, `texts_of` and `train_run` take them, and vocabulary sizes."""
    parser.add_argument("data", type=Path, help="folder with LANGUAGE/train.txt and LANGUAGE/test.txt")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs, one for each language")
    parser.add_argument("--languages", help="comma-separated (default: all that have a text)")
    parser.add_argument("--sizes", default=sizes, help=f"vocabulary sizes (default: {sizes})")
    parser.add_argument("--train-characters", type=int, default=1_000_000, help="characters learned from (1,000,000)")
    parser.add_argument("--test-characters", type=int, default=60_000, help="characters scored (60,000)")
    parser.add_argument("--flags", default=FLAGS, help="flags of gtok.py for a run that is to be made")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(build_parser(), measure, argv)


def measure(arguments: argparse.Namespace) -> int:
    """Every language in turn, a line for each size."""
    known: dict[str, Any] = {}
    if arguments.json and arguments.json.is_file():
        known = read_json(arguments.json, Before, "give another name, or remove the file").metrics
    for language in languages_of(arguments):
        train_run(arguments, language)
        facts = of_language(arguments, language)
        before = known.get(language, {})
        sizes = before.get("sizes", {}) if {**before, "sizes": {}} == {**facts, "sizes": {}} else {}
        known[language] = {**facts, "sizes": sizes}
        for size in arguments.sizes.split(","):
            if size not in sizes:
                sizes[size] = at_size(arguments, language, int(size))
            told = (f"{name} {value['characters_per_id']:.3f}" for name, value in sizes[size].items())
            print(f"{language} {int(size):,} ({sizes[size]['BPE']['ids']:,} ids): {', '.join(told)}", flush=True)
            write_result(arguments, known)  # after each, so that a run that is stopped leaves what it has
    return 0


def languages_of(arguments: argparse.Namespace) -> list[str]:
    """The languages asked for, each with its texts."""
    found = sorted(path.parent.name for path in arguments.data.glob("*/train.txt"))
    wanted = arguments.languages.split(",") if arguments.languages else found
    for language in wanted:
        if language not in found or not (arguments.data / language / "test.txt").is_file():
            raise SpeakError(f"{arguments.data / language}: has no train.txt and test.txt; languages there: {found}")
    if not wanted:
        raise SpeakError(f"{arguments.data}: holds no LANGUAGE/train.txt; make some with experiments/corpora/make.py")
    return wanted


def train_run(arguments: argparse.Namespace, language: str) -> None:
    """The language's run, if it is not there."""
    folder = arguments.runs / language
    if (folder / "results.json").is_file():
        return
    command = [sys.executable, str(GTOK), *arguments.flags.split(), "--data", str(arguments.data / language)]
    if subprocess.run([*command, "--out", str(folder), "--overwrite", "--quiet"]).returncode:
        raise SpeakError(f"{language}: no run; see above")


def read(path: Path, characters: int) -> str:
    """The first characters of a text."""
    with path.open(encoding="utf-8", newline="") as stream:
        return stream.read(characters)


def of_language(arguments: argparse.Namespace, language: str) -> dict[str, Any]:
    """What holds for every size."""
    from speak_neuro.api.tokenizer import Tokenizer
    from speak_neuro.systems.run_folder import read_run

    train, test = texts_of(arguments, language)
    run, speak = read_run(arguments.runs / language), Tokenizer.load(arguments.runs / language)
    ranges, tokens = (len(speak.spans(test, ranges=hard)) for hard in (True, False))
    return {
        "train_characters": len(train),
        "test_characters": len(test),
        "steps": run.config.training.steps,
        "run_commit": run.record.get("commit"),
        "characters_per_token": len(test) / tokens,
        "characters_per_range": len(test) / ranges,
    }


def texts_of(arguments: argparse.Namespace, language: str) -> tuple[str, str]:
    """What is learned from, and what is scored."""
    folder = arguments.data / language
    return read(folder / "train.txt", arguments.train_characters), read(folder / "test.txt", arguments.test_characters)


def at_size(arguments: argparse.Namespace, language: str, size: int) -> dict[str, Any]:
    """Characters per id and million characters per second of every kind of vocabulary, at the size that BPE reaches."""
    from speak_neuro.api.tokenizer import Tokenizer

    train, test = texts_of(arguments, language)
    speak = Tokenizer.load(arguments.runs / language)
    peers: dict[str, Any] = {}
    for name in PEERS:
        peers[name] = peer(name, train, test, size)
        size = peers["BPE"].size
    encoders: dict[str, Any] = {unit: ours(speak, train, test, size, unit) for unit in UNITS} | peers
    counts = {name: encode() for name, encode in encoders.items()}
    spent = in_turns(encoders, arguments.repeats)  # processor time: other programs on the machine don't count
    return {
        name: {
            "ids": encoders[name].size,
            "characters_per_id": len(test) / counts[name],
            "million_characters_per_second": len(test) / max(spent[name].cpu, 1e-9) / 1e6,
        }
        for name in counts
    }


def ours(speak: Any, train: str, test: str, size: int, unit: str) -> Callable[[], int]:
    """Counts SPEAK's ids of the test text, after a round trip."""
    made = speak.learn_vocabulary([train], size, unit)
    if made.decode(made.encode(test)) != test:
        raise ParityError(f"{unit}: ids do not give the text back; nothing was timed")

    def encode() -> int:
        return len(made.encode(test))

    encode.size = made.vocab_size  # type: ignore[attr-defined]
    return encode


def peer(name: str, train: str, test: str, size: int) -> Callable[[], int]:
    """Counts the ids of a tokenizer of the `tokenizers` library."""
    from speak_neuro.inference.subwords import train_subwords

    tokenizer = train_subwords(PEERS[name], size, [train], least=2)
    if tokenizer.decode(tokenizer.encode(test).ids, skip_special_tokens=False) != test:
        raise ParityError(f"{name}: ids do not give the text back; nothing was timed")

    def encode() -> int:
        return len(tokenizer.encode_batch_fast([test], add_special_tokens=False)[0].ids)

    encode.size = tokenizer.get_vocab_size()  # type: ignore[attr-defined]
    return encode


if __name__ == "__main__":
    sys.exit(main())
