"""speak-tokenize: text to tokens with a trained run, one output line per text line, nothing lost."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from speak_neuro.command import atomic_write, check_writable, result_record, run_command, write_json
from speak_neuro.errors import SpeakError

FORMATS = ("json", "spans", "bytes", "marked")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="speak-tokenize",
        description="Split text into tokens with a trained SPEAK tokenizer. Lines end at a line feed and nowhere else; "
        "each begins at the reset potential.",
        epilog="Formats: json, an array of strings that joined give the line; spans, [start, end) in characters; "
        "bytes, [start, end) in UTF-8 bytes; marked, the line with a bar between tokens (for eyes: bars in the text "
        "look the same).",
    )
    parser.add_argument("text", nargs="?", type=Path, help="UTF-8 text file (default: standard input)")
    parser.add_argument("--run", type=Path, required=True, help="run folder of experiments/gtok.py")
    parser.add_argument("--format", choices=FORMATS, default="json", help="what a line of output holds (default: json)")
    parser.add_argument("--out", type=Path, help="output file (default: standard output)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts (lines, characters, tokens) as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(build_parser(), tokenize, argv)


def tokenize(arguments: argparse.Namespace) -> int:
    """Tokenize line by line, so that memory holds one line at a time."""
    if arguments.text is not None and (arguments.text.is_dir() or not arguments.text.exists()):
        what = "is a folder" if arguments.text.is_dir() else "no such file"
        raise SpeakError(f"{arguments.text}: {what}; give one UTF-8 text file, or text on standard input")
    for path in (arguments.out, arguments.json):
        if path is not None:
            check_writable(path)
    from tqdm import tqdm

    from speak_neuro.text import Speak

    speak = Speak.load(arguments.run, arguments.device)
    name = str(arguments.text) if arguments.text is not None else "standard input"
    size = arguments.text.stat().st_size if arguments.text is not None else None
    counts = {"lines": 0, "characters": 0, "tokens": 0}
    source = arguments.text.open("rb") if arguments.text is not None else sys.stdin.buffer
    # Output that goes to the terminal would run through the bar.
    silent = arguments.quiet or (arguments.out is None and sys.stdout.isatty())
    with (
        source,
        atomic_write(arguments.out)
        if arguments.out is not None
        else contextlib.nullcontext(sys.stdout.buffer) as stream,
        tqdm(total=size, unit="B", unit_scale=True, desc="tokenize", delay=2, disable=silent, leave=False) as bar,
    ):
        for line in read_lines(source, name):
            spans = speak.spans(line, "byte" if arguments.format == "bytes" else "character")
            counts["lines"] += 1
            counts["characters"] += len(line)
            counts["tokens"] += len(spans)
            stream.write((render(line, spans.tolist(), arguments.format) + "\n").encode("utf-8"))
            bar.update(len(line) + 1 if size is None else source.tell() - bar.n)
    if arguments.json:
        write_json(arguments.json, result_record(arguments.command_line, counts))
    return 0


def read_lines(source: IO[bytes], name: str) -> Iterator[str]:
    """Lines without their line feed; a carriage return stays in the line."""
    offset = 0
    for raw in source:
        try:
            line = raw.removesuffix(b"\n").decode("utf-8")
        except UnicodeDecodeError as error:
            raise SpeakError(
                f"{name}: invalid UTF-8 at byte {offset + error.start} (0x{raw[error.start]:02x}); convert it to UTF-8"
            ) from None
        yield line
        offset += len(raw)


def render(line: str, spans: list[list[int]], style: str) -> str:
    """One output line."""
    if style in ("spans", "bytes"):
        return json.dumps(spans)
    tokens = [line[start:end] for start, end in spans]
    return "|".join(tokens) if style == "marked" else json.dumps(tokens, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
