"""speak-tokenize: text to tokens with a trained run, one output line per text line, nothing lost."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from speak_neuro.command import atomic_write, result_record, run_command, write_json
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
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts (lines, characters, tokens) as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(build_parser(), tokenize, argv)


def tokenize(arguments: argparse.Namespace) -> int:
    """Tokenize line by line, so that memory holds one line at a time."""
    if arguments.text is not None and not arguments.text.is_file():
        what = "is a folder" if arguments.text.is_dir() else "no such file"
        raise SpeakError(f"{arguments.text}: {what}; give one UTF-8 text file, or text on standard input")
    from speak_neuro.text import Speak

    speak = Speak.load(arguments.run, arguments.device)
    name = str(arguments.text) if arguments.text is not None else "standard input"
    counts = {"lines": 0, "characters": 0, "tokens": 0}

    def write(lines: Iterator[str], stream: IO[bytes]) -> None:
        for line in lines:
            spans = speak.spans(line, "byte" if arguments.format == "bytes" else "character")
            counts["lines"] += 1
            counts["characters"] += len(line)
            counts["tokens"] += len(spans)
            stream.write((render(line, spans.tolist(), arguments.format) + "\n").encode("utf-8"))

    source = arguments.text.open("rb") if arguments.text is not None else sys.stdin.buffer
    with source:
        if arguments.out is not None:
            with atomic_write(arguments.out) as stream:
                write(read_lines(source, name), stream)
        else:
            try:
                write(read_lines(source, name), sys.stdout.buffer)
                sys.stdout.buffer.flush()
            except BrokenPipeError:
                # The reader of a pipe has enough; Python would complain again when it closes standard output.
                sys.stdout = None
                return 0
    if arguments.json:
        write_json(arguments.json, result_record("speak-tokenize " + " ".join(sys.argv[1:]), counts))
    return 0


def read_lines(source: IO[bytes], name: str) -> Iterator[str]:
    """Lines without their line feed; a carriage return stays in the line."""
    offset = 0
    for raw in source:
        line = raw[:-1] if raw.endswith(b"\n") else raw
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise SpeakError(
                f"{name}: invalid UTF-8 at byte {offset + error.start} (0x{line[error.start]:02x}); convert it to UTF-8"
            ) from None
        offset += len(raw)


def render(line: str, spans: list[list[int]], style: str) -> str:
    """One output line."""
    if style in ("spans", "bytes"):
        return json.dumps(spans)
    tokens = [line[start:end] for start, end in spans]
    return "|".join(tokens) if style == "marked" else json.dumps(tokens, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
