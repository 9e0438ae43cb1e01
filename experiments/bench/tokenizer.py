"""Speed of the table tokenizer against Hugging Face `tokenizers`, its memory, and how soon it begins.

    python experiments/bench/tokenizer.py --json tokenizer.json
    python experiments/bench/tokenizer.py --run runs/mine --text corpus.txt

First the results are compared: on the embedded texts of every script the table's boundaries, by plain numpy and by
compiled code, must be those of the torch path, and ids must decode to the text. When anything differs, nothing is timed
and the exit code is 1.

Then, on one core and one thread, in turns, medians: documents (paragraphs) and the whole text as one string, to spans
and to ids; a byte-level BPE and a Unigram trained on the same text with as many ids encode the same documents. The text
is repeated until it is long enough to time, which helps those that cache words. Without --run the network is untrained,
its currents spread so that a token has about five characters; also a `convolution` network over eight characters.

Memory is the largest resident size of `speak-tokenize` on files of three sizes, and on one line of the largest size.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.provenance import device_name, write_result
from speak_neuro.common.timing import in_turns
from speak_neuro.config import ModelConfig, RunConfig, TokenizerConfig
from speak_neuro.errors import ParityError, SpeakError

if TYPE_CHECKING:
    from speak_neuro.inference.speak import Speak
    from speak_neuro.table.tokenizer import TableTokenizer

COMMAND = (sys.executable, "-m", "speak_neuro.cli")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench_tokenizer", description="speed, memory and start of the table tokenizer"
    )
    parser.add_argument("--run", type=Path, help="run folder with the linear encoder (default: an untrained network)")
    parser.add_argument("--text", type=Path, help="UTF-8 text (default: the embedded English text)")
    parser.add_argument("--characters", type=int, default=4_000_000, help="repeat the text up to (default: 4,000,000)")
    parser.add_argument("--vocabulary-size", type=int, default=8192, help="ids of all three (default: 8192)")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each (default: 7)")
    parser.add_argument("--file-sizes", type=int, nargs="*", default=[10, 100, 400], help="megabytes, for memory")
    parser.add_argument("--no-peers", action="store_true", help="leave out Hugging Face tokenizers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return run_command(parser, bench, argv)


def bench(arguments: argparse.Namespace) -> int:
    at_least(arguments, 1, "characters", "repeats")
    one_core()
    from speak_neuro.corpus.reader import embedded_text, read_text

    text = read_text(arguments.text) if arguments.text is not None else embedded_text("en")
    speak, table = tokenizers_of(arguments, text)
    compared = check_parity(speak, table)
    print(f"parity: equal on {compared:,} characters of every script    one core of {device_name()}")

    metrics: dict[str, Any] = {"parity": "equal", "vocabulary": len(table.vocabulary or ())}
    speeds = measure_speed(arguments, text, table)
    metrics["million_characters_per_second"] = speeds
    metrics["ratios"] = ratios(speeds)
    report("million characters/s", speeds)
    report("times as fast as", metrics["ratios"])
    metrics["convolution_million_characters_per_second"] = convolution(text, arguments)
    report("convolution, million characters/s", metrics["convolution_million_characters_per_second"])
    metrics["scripts_million_characters_per_second"] = by_script(table, arguments.repeats)
    report("spans by script, million characters/s", metrics["scripts_million_characters_per_second"])
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "table"
        table.table.save(saved)
        metrics["start_seconds"] = start_up(saved, arguments.repeats)
        report("seconds to start", metrics["start_seconds"])
        metrics["peak_megabytes"] = memory(Path(folder), saved, text, arguments.file_sizes)
        report("peak memory, megabytes", metrics["peak_megabytes"])
    write_result(arguments, metrics)
    return 0


def one_core() -> None:
    """Keep this process and its libraries on one core; child processes too."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def tokenizers_of(arguments: argparse.Namespace, text: str) -> tuple[Speak, TableTokenizer]:
    """The torch path and the table, which has a vocabulary of the text."""
    import torch

    from speak_neuro.inference.compile_table import compile_table
    from speak_neuro.inference.engine import BoundaryEngine
    from speak_neuro.inference.speak import Speak
    from speak_neuro.systems.run_folder import load_system, read_run
    from speak_neuro.systems.system import System
    from speak_neuro.table.tokenizer import TableTokenizer
    from speak_neuro.table.vocabulary import BYTES, Vocabulary

    if arguments.run is not None:
        run = read_run(arguments.run)
        system, config, alphabet = load_system(run), run.config, run.alphabet
    else:
        from speak_neuro.corpus.reader import embedded_names, embedded_text
        from speak_neuro.text.alphabet import Alphabet

        torch.manual_seed(0)
        config = RunConfig(tokenizer=TokenizerConfig(encoder="linear"), model=ModelConfig(width=32, heads=2, inner=64))
        alphabet = Alphabet.learn([text, *map(embedded_text, embedded_names())])
        system = System(config, len(alphabet))
        with torch.no_grad():
            readout = system.tokenizer.current_readout
            readout.weight.normal_(0, 0.05)
            made = compile_table(system, config, alphabet)
            readout.bias += 0.2 - float(made.current[0][alphabet.encode(text)].mean())
    table = compile_table(system, config, alphabet)
    plain = TableTokenizer(table)
    counts: dict[bytes, int] = {}
    for document in documents_of(text):
        for token in plain.tokens(document):
            raw = token.encode("utf-8", "surrogatepass")
            counts[raw] = counts.get(raw, 0) + 1
    if arguments.vocabulary_size < BYTES:
        raise SpeakError(f"--vocabulary-size is {arguments.vocabulary_size}; allowed: at least {BYTES}")
    vocabulary = Vocabulary.build(counts, arguments.vocabulary_size)
    return Speak(BoundaryEngine(system, config), alphabet), TableTokenizer(table, vocabulary, backend="numba")


def documents_of(text: str) -> list[str]:
    """Paragraphs, each with the blank line behind it; joined they are the text."""
    parts = text.split("\n\n")
    return [part + "\n\n" for part in parts[:-1]] + [parts[-1]] * bool(parts[-1])


def check_parity(speak: Speak, table: TableTokenizer) -> int:
    """Raise ParityError unless table and network agree on every embedded text; -> characters compared."""
    import numpy as np

    from speak_neuro.corpus.reader import embedded_names, embedded_text
    from speak_neuro.table.tokenizer import TableTokenizer

    plain = TableTokenizer(table.table, table.vocabulary, backend="numpy")
    compared = 0
    for name in embedded_names():
        text = embedded_text(name)
        documents = documents_of(text)
        for unit in ("character", "byte"):
            expected = speak.spans(text, unit)
            batch = [speak.spans(document, unit) for document in documents]
            same = {
                "numpy": np.array_equal(plain.spans(text, unit), expected),
                "numba": np.array_equal(table.spans(text, unit), expected),
                "documents": all(map(np.array_equal, table.spans_batch(documents, unit), batch)),
            }
            for backend, equal in same.items():
                if not equal:
                    raise ParityError(f"{name}: {backend} and torch cut differently, in {unit}s; nothing was timed")
        ids = table.encode(text)
        if not np.array_equal(ids, plain.encode(text)) or table.decode(ids) != text:
            raise ParityError(f"{name}: ids differ or do not give the text back; nothing was timed")
        compared += len(text)
    return compared


def measure_speed(arguments: argparse.Namespace, text: str, table: TableTokenizer) -> dict[str, float]:
    documents = documents_of(text)
    copies = max(1, arguments.characters // len(text))
    many, whole = documents * copies, text * copies
    runs: dict[str, Callable[[], Any]] = {
        "spans, one text": lambda: table.spans(whole),
        "spans, documents": lambda: table.spans_batch(many),
        "ids, one text": lambda: table.encode(whole),
        "ids, documents": lambda: table.encode_batch(many),
    }
    if not arguments.no_peers:
        for name, peer in peers(documents, arguments.vocabulary_size).items():
            runs[name] = lambda peer=peer: peer.encode_batch_fast(many, add_special_tokens=False)
    return {name: len(whole) / spent.wall / 1e6 for name, spent in in_turns(runs, arguments.repeats).items()}


def peers(documents: list[str], size: int) -> dict[str, Any]:
    """Byte-level BPE and Unigram of the `tokenizers` library, trained on the documents."""
    from speak_neuro.inference.subwords import train_subwords

    kinds = {"BPE": "bpe", "Unigram": "unigram-bytes"}
    return {f"Hugging Face {name}": train_subwords(kind, size, documents) for name, kind in kinds.items()}


def ratios(speeds: dict[str, float]) -> dict[str, float]:
    """How many times as fast as each peer, on the same documents."""
    own = ("spans, documents", "ids, documents")
    return {f"{name} / {peer}": speeds[name] / speeds[peer] for peer in speeds if "Face" in peer for name in own}


def by_script(table: TableTokenizer, repeats: int) -> dict[str, float]:
    from speak_neuro.corpus.reader import embedded_names, embedded_text

    texts = {name: embedded_text(name) for name in embedded_names()}
    texts = {name: text * max(1, 2_000_000 // len(text)) for name, text in texts.items()}
    times = in_turns({name: lambda text=text: table.spans(text) for name, text in texts.items()}, repeats)
    return {name: len(texts[name]) / spent.wall / 1e6 for name, spent in times.items()}


def convolution(text: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Spans by an untrained convolution over the last characters, by their number."""
    import numpy as np

    from speak_neuro.table.table import CompiledTable
    from speak_neuro.table.tokenizer import TableTokenizer
    from speak_neuro.text.alphabet import Alphabet

    whole = text * max(1, arguments.characters // len(text))
    alphabet, random, runs = Alphabet.learn(text), np.random.default_rng(0), {}
    for taps in (1, 2, 4, 8):
        current, gate = random.normal(0.2 / taps, 0.05, (2, taps, len(alphabet))).astype(np.float32)
        table = TableTokenizer(CompiledTable(alphabet, current, gate - current.mean()), backend="numba")
        runs[f"{taps} characters"] = lambda table=table: table.spans(whole)
    return {name: len(whole) / spent.wall / 1e6 for name, spent in in_turns(runs, arguments.repeats).items()}


def start_up(table: Path, repeats: int) -> dict[str, float]:
    """Whole processes, interpreter start included."""

    def run(*flags: str) -> None:
        subprocess.run([*COMMAND, *flags], input=b"a line of text\n", capture_output=True, check=True)

    runs = {"--help": lambda: run("--help"), "one line": lambda: run("--table", str(table))}
    return {name: spent.wall for name, spent in in_turns(runs, repeats).items()}


def memory(folder: Path, table: Path, text: str, sizes: list[int]) -> dict[str, float]:
    """Largest resident size of speak-tokenize by the size of its input."""
    found = {}
    if sizes:
        plain = text.encode()
        for size, raw, name in [(s, plain, f"{s} MB") for s in sizes] + [
            (max(sizes), plain.replace(b"\n", b" "), f"{max(sizes)} MB in one line")
        ]:
            path = folder / "text"
            with path.open("wb") as stream:
                for _ in range(-(-size * 1_000_000 // len(raw))):
                    stream.write(raw)
            found[name] = peak([*COMMAND, str(path), "--table", str(table), "--format", "spans", "--out", os.devnull])
            path.unlink()
    return found


def peak(command: list[str]) -> float:
    """Megabytes of a command that must succeed. Started by a small process: a fork of a large one counts as large."""
    code = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run(sys.argv[1:]).returncode\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(code)"
    )
    child = subprocess.run([sys.executable, "-c", code, *command, "--quiet"], capture_output=True, text=True)
    if child.returncode != 0:
        raise SpeakError(f"{' '.join(command)}: {child.stderr.strip()}")
    return int(child.stdout) / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def report(title: str, values: dict[str, float]) -> None:
    print(title)
    for name, value in values.items():
        print(f"  {name:42}{value:12.2f}")


if __name__ == "__main__":
    sys.exit(main())
