"""speak-sim tokenize: text in, token spans out, with the whole tokenizer in Lava's simulator.

Lines are tokenized side by side, one lane each, in batches of bounded size; the result is what `speak-tokenize` gives
with the checkpoint that the graph was folded from.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from speak_neuro.common.files import atomic_write, check_distinct, check_writable
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.text.lines import STYLES, read_lines, render

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from speak_neuro.export.files.folded_file import Folded
    from speak_neuro.text.alphabet import Alphabet

BATCH_CHARACTERS = 2**21
BATCH_LINES = 2**15
"""Lines are read until one of these is reached; then they are simulated and written."""


def add_tokenize(commands: Any, seconds: Callable[[str], float]) -> None:
    """The command line of `speak-sim tokenize`."""
    parser = commands.add_parser(
        "tokenize",
        help="text in, tokens out, the whole tokenizer simulated",
        description="Tokenize text in Lava with a folded graph: the lines that speak-tokenize --run RUN writes.",
    )
    parser.add_argument("text", nargs="?", type=Path, help="UTF-8 text file (default: standard input)")
    parser.add_argument("--graph", type=Path, required=True, help="a folded graph of speak-export --fold")
    parser.add_argument("--alphabet", type=Path, help="its alphabet (default: .alphabet.json beside the graph)")
    parser.add_argument("--format", choices=STYLES, default="json", help="what a line of output holds (default: json)")
    parser.add_argument("--out", type=Path, help="output file (default: standard output)")
    parser.add_argument("--timeout", type=seconds, help="seconds per batch of lines (default: by the work to do)")
    parser.add_argument("--python", help="Python that has Lava (default: $SPEAK_SIM_PYTHON, else this one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts and speed as JSON")


def tokenize(arguments: argparse.Namespace) -> int:
    """Tokenize batch by batch; exit code 0."""
    from speak_neuro.export.files.folded_file import alphabet_path, read_alphabet, read_folded

    check_writable(arguments.out)
    if arguments.text is not None and (arguments.text.is_dir() or not arguments.text.exists()):
        what = "is a folder" if arguments.text.is_dir() else "no such file"
        raise SpeakError(f"{arguments.text}: {what}; give one UTF-8 text file, or text on standard input")
    check_distinct([arguments.text] if arguments.text else [], [arguments.out, arguments.json])
    folded = read_folded(arguments.graph)
    if folded.neuron.neurons != 1:
        raise SpeakError(f"{arguments.graph}: {folded.neuron.neurons} neurons; a tokenizer has one")
    if folded.metadata.get("convention") == "opens":
        raise SpeakError(
            f"{arguments.graph}: of an RTok tokenizer, whose text is normalised first and whose spikes open tokens; "
            "compare it with speak-sim parity, or cut text with speak_neuro.rtok"
        )
    alphabet = read_alphabet(arguments.alphabet or alphabet_path(arguments.graph), folded.characters)
    name = str(arguments.text) if arguments.text is not None else "standard input"
    source = arguments.text.open("rb") if arguments.text is not None else sys.stdin.buffer
    counts = {"lines": 0, "characters": 0, "tokens": 0, "steps": 0, "seconds": 0.0}
    with source:
        lines = _rendered(read_lines(source, name), folded, alphabet, arguments, counts)
        if arguments.out is not None:
            with atomic_write(arguments.out) as stream:
                _write(lines, stream)
        else:
            _write(lines, sys.stdout.buffer)
    write_result(arguments, counts)
    return 0


def _write(lines: Iterable[str], stream: IO[bytes]) -> None:
    for line in lines:
        stream.write((line + "\n").encode("utf-8"))


def _rendered(
    lines: Iterator[str], folded: Folded, alphabet: Alphabet, arguments: argparse.Namespace, counts: dict[str, Any]
) -> Iterator[str]:
    from tqdm import tqdm

    from speak_neuro.text import segments

    with tqdm(unit="character", unit_scale=True, delay=2.0, file=sys.stderr, leave=False) as bar:
        for batch in batches(lines):
            started = time.monotonic()
            found, steps = simulate_lines(
                folded, [alphabet.encode(line) for line in batch], timeout=arguments.timeout, python=arguments.python
            )
            counts["seconds"] = round(counts["seconds"] + time.monotonic() - started, 3)
            counts["steps"] += steps
            for line, spikes in zip(batch, found, strict=True):
                spans = segments.spans(spikes)
                counts["lines"] += 1
                counts["characters"] += len(line)
                counts["tokens"] += len(spans)
                if arguments.format == "bytes":
                    spans = segments.byte_spans(line, spans)
                yield render(line, spans.tolist(), arguments.format)
            bar.update(sum(map(len, batch)))


def batches(lines: Iterator[str]) -> Iterator[list[str]]:
    """Lines in groups of bounded size, and never an empty group."""
    for first in lines:
        batch, characters = [first], len(first)
        for line in itertools.islice(lines, BATCH_LINES - 1) if characters < BATCH_CHARACTERS else ():
            batch.append(line)
            characters += len(line)
            if characters >= BATCH_CHARACTERS:
                break
        yield batch


def simulate_lines(
    folded: Folded,
    ids: list[npt.NDArray[np.int32]],
    *,
    timeout: float | None = None,
    python: str | None = None,
    on_step: Callable[[int], None] = lambda step: None,
) -> tuple[list[npt.NDArray[np.uint8]], int]:
    """Spikes of each text in Lava, and the time steps it took. The texts run side by side, the longest first."""
    import numpy as np

    from speak_neuro.sim.job import CONSTANTS, total_steps
    from speak_neuro.sim.runner import run_job

    length = np.array([len(text) for text in ids], dtype=np.int64)
    if not length.any():
        return [np.zeros(0, dtype=np.uint8) for _ in ids], 0
    order = np.argsort(-length, kind="stable")
    steps = total_steps(length[order])
    result = run_job(
        {
            "tables": folded.taps,
            "constants": np.array([getattr(folded.neuron, name)[0] for name in CONSTANTS], dtype=np.float32),
            "ids": np.concatenate([ids[row] for row in order]),
            "length": length[order],
        },
        timeout=timeout if timeout is not None else 120.0 + 0.05 * steps,
        python=python,
        on_step=on_step,
        worker="speak_neuro.sim.child.character_worker",
    )
    pieces = np.split(result.arrays["spikes"], np.cumsum(length[order])[:-1])
    spikes: list[npt.NDArray[np.uint8]] = [np.zeros(0, dtype=np.uint8)] * len(ids)
    for row, piece in zip(order, pieces, strict=True):
        spikes[row] = piece
    return spikes, steps
