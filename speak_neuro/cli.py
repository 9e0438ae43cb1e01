"""speak-tokenize: text to tokens with a trained run or its table, one output line per text line, nothing lost."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.files import atomic_write, check_distinct, check_writable
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.table.learn_pieces import learn_pieces
from speak_neuro.table.load_vocabulary import load_vocabulary
from speak_neuro.table.long_lines import LineWriter, rest_of_line, write_tokens
from speak_neuro.table.slots import UNITS
from speak_neuro.table.token_counter import TokenCounter
from speak_neuro.table.tokenizer import TableTokenizer, load
from speak_neuro.table.vocabulary import Vocabulary
from speak_neuro.text import segments
from speak_neuro.text.lines import FORMATS, read_lines, render

if TYPE_CHECKING:
    from speak_neuro.inference.speak import Speak

SHORT = 1 << 18
"""Bytes of input up to which a table is read in plain numpy, which begins at once."""
LONG = 1 << 19
"""Bytes of a line from which it is done in pieces."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="speak-tokenize",
        description="Split text into tokens with a trained SPEAK tokenizer. Lines end at a line feed and nowhere else; "
        "each begins at the reset potential.",
        epilog="Formats: json, an array of strings that joined give the line; spans, [start, end) in characters; "
        "bytes, [start, end) in UTF-8 bytes; marked, the line with a bar between tokens (for eyes: bars in the text "
        "look the same); ids, an array of token ids (needs --vocabulary).",
    )
    parser.add_argument(
        "text", nargs="*", type=Path, help="UTF-8 text files, one after the other (default: standard input)"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="run folder of speak-train")
    source.add_argument("--table", type=Path, help="table of speak-export --to table: the same tokens, much faster")
    parser.add_argument("--format", choices=FORMATS, default="json", help="what a line of output holds (default: json)")
    parser.add_argument("--vocabulary", type=Path, metavar="FILE", help="vocabulary for --format ids")
    parser.add_argument(
        "--build-vocabulary",
        type=Path,
        metavar="FILE",
        help="learn a vocabulary from the text and write it there",
    )
    parser.add_argument(
        "--vocabulary-unit",
        choices=(*UNITS, "whole"),
        default="ranges",
        help="of a new vocabulary: pieces that cross no hard reset (ranges), pieces that cross no token (tokens), or "
        "the most frequent tokens as they are, others as bytes (whole) (default: ranges)",
    )
    parser.add_argument(
        "--vocabulary-size", type=int, default=32768, help="ids of a new vocabulary, 256 of them bytes (default: 32768)"
    )
    parser.add_argument("--out", type=Path, help="output file (default: standard output)")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads with --table; the output is the same (default: 1)"
    )
    parser.add_argument("--device", default="cpu", help="with --run: auto, cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts (lines, characters, tokens) as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return run_command(parser, tokenize, argv)


def tokenize(arguments: argparse.Namespace) -> int:
    """Tokenize file by file, in memory that grows neither with the text nor with its lines."""
    check(arguments)
    if arguments.build_vocabulary is not None:
        return build_vocabulary(arguments)
    vocabulary = None
    if arguments.vocabulary is not None:
        vocabulary = load_vocabulary(arguments.vocabulary)
    if arguments.table is not None:
        work = table_worker(load(arguments.table, vocabulary), arguments.format, arguments.threads)
    else:
        from speak_neuro.inference.speak import Speak

        work = line_worker(Speak.load(arguments.run, arguments.device), arguments.format, vocabulary)
    counts = {"lines": 0, "characters": 0, "tokens": 0}
    # Output that goes to the terminal would run through the bar.
    silent = arguments.quiet or (arguments.out is None and sys.stdout.isatty())
    with (
        atomic_write(arguments.out)
        if arguments.out is not None
        else contextlib.nullcontext(sys.stdout.buffer) as stream,
        contextlib.closing(sources(arguments.text, silent)) as opened,
    ):
        for name, source in opened:
            for key, value in zip(counts, work(source, name, stream), strict=True):
                counts[key] += value
    write_result(arguments, counts)
    return 0


Worker = Callable[["Watched", str, IO[bytes]], tuple[int, int, int]]
"""Tokenizes a source of the given name into a stream -> lines, characters, tokens."""


def line_worker(speak: Speak | TableTokenizer, style: str, vocabulary: Vocabulary | None) -> Worker:
    """Line by line in Python; a long line in pieces."""

    def work(source: Watched, name: str, stream: IO[bytes]) -> tuple[int, int, int]:
        lines = characters = tokens = offset = 0
        hard_only = vocabulary is not None and style == "ids" and vocabulary.hard_only
        while raw := source.readline(LONG):
            if len(raw) == LONG and not raw.endswith(b"\n"):
                read = source.taken
                rest, writer = rest_of_line(raw, source, name, offset), LineWriter(stream, style, vocabulary)
                found = long_line(speak, rest, writer, hard_only)
                lines, characters, tokens = lines + 1, characters + found[0], tokens + found[1]
                offset += len(raw) + source.taken - read
                continue
            (line,) = read_lines([raw], name, offset)
            offset += len(raw)
            spans = speak.spans(line, "byte" if style == "bytes" else "character", hard_only).tolist()
            count = len(spans)
            if vocabulary is not None and style == "ids":
                ids = vocabulary.encode(line[start:end] for start, end in spans).tolist()
                rendered, count = str(ids), count if vocabulary.fitted == "whole" else len(ids)
            else:
                rendered = render(line, spans, style)
            stream.write((rendered + "\n").encode("utf-8"))
            lines, characters, tokens = lines + 1, characters + len(line), tokens + count
        return lines, characters, tokens

    return work


def long_line(
    speak: Speak | TableTokenizer, pieces: Iterator[str], writer: LineWriter, hard_only: bool
) -> tuple[int, int]:
    """A line in pieces -> its characters and tokens."""
    spikes = speak.running(hard_only)
    for piece in pieces:
        write_tokens(writer, piece, spikes(piece))
    writer.end()
    return writer.characters, writer.tokens


def table_worker(tokenizer: TableTokenizer, style: str, threads: int) -> Worker:
    """In blocks by compiled code; short inputs line by line, as long as compiled code isn't loaded."""

    def work(source: Watched, name: str, stream: IO[bytes]) -> tuple[int, int, int]:
        head = source.read(SHORT)
        following = source.read(1)
        if not following and not tokenizer.compiled(len(head)):
            return line_worker(tokenizer, style, tokenizer.vocabulary)(Watched(io.BytesIO(head)), name, stream)
        source.put_back(head + following)
        from speak_neuro.table.files import LineTokenizer

        lines = LineTokenizer(tokenizer.table, style, tokenizer.vocabulary)
        return lines.run(source, name, stream.write, threads)

    return work


class Watched:
    """A source that reports the bytes read from it, and of which the beginning can be read twice."""

    def __init__(self, source: IO[bytes], report: Callable[[int], Any] | None = None) -> None:
        self._source, self._report = source, report
        self._again = b""
        self.taken = 0
        """Bytes read so far."""

    def read(self, size: int, /) -> bytes:
        """As of a file; fewer bytes where those end that were put back."""
        if self._again:
            read, self._again = self._again[:size], self._again[size:]
            return read
        return self._reported(self._source.read(size))

    def put_back(self, read: bytes) -> None:
        """Read these bytes once more."""
        self._again = read + self._again

    def readline(self, size: int, /) -> bytes:
        """The next line with its line feed, or `size` bytes of it; nothing may have been put back."""
        return self._reported(self._source.readline(size))

    def _reported(self, read: bytes) -> bytes:
        self.taken += len(read)
        if self._report is not None:
            self._report(len(read))
        return read


def build_vocabulary(arguments: argparse.Namespace) -> int:
    """Learn a vocabulary from all texts, line by line, and write it."""
    tokenizer, unit, size = segmenter(arguments), arguments.vocabulary_unit, arguments.vocabulary_size
    counts: Counter[bytes] = Counter()

    def units() -> Iterator[list[bytes]]:
        with contextlib.closing(sources(arguments.text, arguments.quiet)) as opened:
            for name, source in opened:
                for line in read_lines(iter(lambda: source.readline(-1), b""), name):  # noqa: B023
                    raw = line.encode("utf-8", "surrogatepass")
                    tokens = tokenizer.spans(line, "byte")
                    ranges = tokenizer.spans(line, "byte", hard_only=True) if unit == "ranges" else tokens
                    yield from segments.grouped(raw, tokens, ranges)

    if unit == "whole" and arguments.table is not None:
        vocabulary, seen = count_whole(arguments)
    elif unit == "whole":
        counts.update(token for (token,) in units())
        vocabulary, seen = Vocabulary.build(counts, size), len(counts)
    else:
        vocabulary, seen = learn_pieces(units(), size, unit), 0
    vocabulary.save(arguments.build_vocabulary)
    told = f", from {seen:,} different tokens" if unit == "whole" else f", pieces of {unit}"
    print(f"wrote {arguments.build_vocabulary}: {len(vocabulary):,} ids, 256 of them bytes{told}")
    metrics = {"ids": len(vocabulary), "unit": unit} | ({"different_tokens": seen} if unit == "whole" else {})
    write_result(arguments, metrics)
    return 0


def segmenter(arguments: argparse.Namespace) -> Speak | TableTokenizer:
    """What cuts the text."""
    if arguments.table is not None:
        return load(arguments.table)
    from speak_neuro.inference.speak import Speak

    return Speak.load(arguments.run, arguments.device)


def count_whole(arguments: argparse.Namespace) -> tuple[Vocabulary, int]:
    """The most frequent tokens by compiled code, of texts of any size, and the number of different ones."""
    from speak_neuro.table.files import count_tokens

    table, counter = load(arguments.table).table, TokenCounter()
    with contextlib.closing(sources(arguments.text, arguments.quiet)) as opened:
        for name, source in opened:
            count_tokens(table, source, name, counter, arguments.threads)
    return counter.vocabulary(arguments.vocabulary_size), len(counter)


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be done before anything is loaded or written."""
    for path in arguments.text:
        if path.is_dir() or not path.exists():
            what = "is a folder" if path.is_dir() else "no such file"
            raise SpeakError(f"{path}: {what}; give UTF-8 text files, or text on standard input")
    check_writable(arguments.out, arguments.build_vocabulary)
    check_distinct(arguments.text, [arguments.out, arguments.json, arguments.build_vocabulary])
    at_least(arguments, 1, "threads")
    if arguments.format == "ids" and arguments.vocabulary is None and arguments.build_vocabulary is None:
        raise SpeakError("--format ids needs --vocabulary FILE; make one with --build-vocabulary FILE")
    if arguments.build_vocabulary is not None:
        if arguments.out is not None:
            raise SpeakError("--build-vocabulary writes a vocabulary and no tokens; leave --out away")
        if arguments.vocabulary_size < 256:
            raise SpeakError(f"--vocabulary-size is {arguments.vocabulary_size}; allowed: at least 256")


def sources(paths: Sequence[Path], silent: bool) -> Generator[tuple[str, Watched], None, None]:
    """The named inputs, one after the other, behind a progress bar."""
    from tqdm import tqdm

    size = sum(path.stat().st_size for path in paths) if paths else None
    with tqdm(total=size, unit="B", unit_scale=True, desc="tokenize", delay=2, disable=silent, leave=False) as bar:
        for path in paths:
            with path.open("rb") as source:
                yield str(path), Watched(source, bar.update)
        if not paths:
            yield "standard input", Watched(sys.stdin.buffer, bar.update)


if __name__ == "__main__":
    sys.exit(main())
