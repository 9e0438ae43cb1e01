"""speak-plot: a text with its tokens, the membrane potential and the resets, beside other tokenizers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from speak_neuro.common.command import run_command
from speak_neuro.common.files import check_distinct, check_writable
from speak_neuro.corpus.reader import embedded_names, embedded_text, iterate_text
from speak_neuro.errors import SpeakError
from speak_neuro.pictures.picture import Picture, check_form
from speak_neuro.pictures.terminal import wants_colour
from speak_neuro.pictures.view import View

LONGEST = 20_000
"""Characters of a text that are drawn."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="speak-plot",
        description="Show how a trained tokenizer cuts a text: tokens, membrane potential, threshold, hard and soft "
        "resets, and the language model's entropy; beside BPE, Unigram or another run.",
        epilog="example: speak-plot --run runs/demo --against bpe --text 'German germanium' --out tokens.html",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--text", help="the text itself")
    source.add_argument("--file", type=Path, help="UTF-8 file with the text (default: standard input)")
    parser.add_argument(
        "--run", type=Path, action="append", required=True, help="run folder; several are shown together"
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="WHAT",
        help="also bpe or unigram, learned from the run's own text (or --corpus), or the path of a tokenizer.json",
    )
    parser.add_argument("--corpus", type=Path, help="text from which bpe and unigram learn (default: the run's own)")
    parser.add_argument(
        "--vocabulary-size", type=int, default=8000, help="of bpe and unigram (default: 8000)", metavar="N"
    )
    parser.add_argument("--no-entropy", action="store_true", help="leave the language model's entropy away")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="FILE.html, .png, .svg or .txt (default: coloured text on the terminal)",
    )
    parser.add_argument("--colour", choices=("auto", "always", "never"), default="auto", help="of the terminal's text")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: cpu)")
    return run_command(parser, plot, argv)


def plot(arguments: argparse.Namespace) -> int:
    """Read, tokenize, draw."""
    if arguments.out is not None:
        check_form(arguments.out)
        check_writable(arguments.out)
        check_distinct([path for path in (arguments.file, arguments.corpus) if path], [arguments.out])
    text = read(arguments)
    picture = Picture(views(arguments, text), f"Tokens of {', '.join(run.name for run in arguments.run)}")
    if arguments.out is None:
        colour = {"auto": wants_colour(sys.stdout), "always": True, "never": False}[arguments.colour]
        print(picture.terminal(colour), end="")
        return 0
    note = picture.save(arguments.out)
    if note:
        print(f"speak-plot: note: {note}", file=sys.stderr)
    print(arguments.out)
    return 0


def read(arguments: argparse.Namespace) -> str:
    """The text to be shown."""
    if arguments.text is not None:
        text = arguments.text
    elif arguments.file is not None:
        text = "".join(iterate_text(arguments.file))
    else:
        text = sys.stdin.buffer.read().decode("utf-8")
    text = text.removesuffix("\n")
    if not 0 < len(text) <= LONGEST:
        raise SpeakError(f"the text has {len(text):,} characters; allowed: 1 to {LONGEST:,}")
    return str(text)


def views(arguments: argparse.Namespace, text: str) -> list[View]:
    """One for each run and each tokenizer beside them."""
    from speak_neuro.inference.speak import Speak
    from speak_neuro.inference.subwords import SUBWORDS, train_subwords
    from speak_neuro.inference.views import library_view, load_library_tokenizer

    names = [run.name or str(run) for run in arguments.run]
    names = names if len(set(names)) == len(names) else [str(run) for run in arguments.run]
    found = []
    for run, name in zip(arguments.run, names, strict=True):
        speak = Speak.load(run, arguments.device)
        found += speak.show(text, f"SPEAK, {name}", entropy=not arguments.no_entropy).views
    for what in arguments.against:
        if what in SUBWORDS:
            tokenizer = train_subwords(what, arguments.vocabulary_size, corpus(arguments))
            label = f"{'BPE' if what.startswith('bpe') else 'Unigram'} {tokenizer.get_vocab_size():,}"
            found.append(library_view(tokenizer, text, label))
        else:
            path = Path(what)
            if not path.is_file():
                known = ", ".join(SUBWORDS)
                raise SpeakError(f"--against is {what!r}; allowed: {known}, or the path of a tokenizer.json")
            found.append(library_view(load_library_tokenizer(path), text, path.stem))
    return found


def corpus(arguments: argparse.Namespace) -> Iterator[str]:
    """The text that subword tokenizers learn from."""
    from speak_neuro.systems.run_folder import read_run

    if arguments.corpus is not None:
        return iterate_text(arguments.corpus)
    source = str(read_run(arguments.run[0]).record.get("data", {}).get("source", ""))
    kind, _, name = source.partition(" ")
    if kind == "embedded" and name in embedded_names():
        return iter([embedded_text(name)])
    if source and Path(source).exists():
        return iterate_text(source)
    raise SpeakError(f"{arguments.run[0]}: its text, {source or 'unknown'!r}, is not here; give one with --corpus FILE")


if __name__ == "__main__":
    sys.exit(main())
