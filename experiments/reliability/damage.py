"""Damage real files and read them: flipped bits, mutated bytes, files that declare more than they hold.

python experiments/reliability/damage.py flips --run runs/demo --count 1000 --json flips.json
python experiments/reliability/damage.py fuzz --run runs/demo --count 1000 --json fuzz.json

Each kind of file is made from the run. A flipped bit has to be refused, or to change nothing that the reader returns (a
time stamp in an archive, the case of an exponent). A mutated file is read or refused in one line: no other exception,
no more than LIMIT_SECONDS.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.common.settings import to_dict
from speak_neuro.errors import SpeakError
from speak_neuro.export.cli import main as export

LIMIT_SECONDS = 20
WORDS = (b"NaN", b"1e400", b"-1", b"true", b"null", b"[" * 5000, b'{"a":' * 5000, b"99999999999", b"\x00", b"{}")


class Kind(NamedTuple):
    """A kind of file: one of it, and a reader whose result is equal for equal content."""

    file: Path
    read: Callable[[], Any]
    digest: bool = True
    """Whether the file holds, or its neighbours know, the SHA-256 of its content."""


def kinds(run: Path, place: Path) -> dict[str, Kind]:
    """A file of each kind, copied or made from a run into `place`."""
    import numpy as np

    from speak_neuro.common.digests import digest_of
    from speak_neuro.corpus.character_store import CharacterStore
    from speak_neuro.export.files.folded_file import read_alphabet, write_alphabet
    from speak_neuro.export.files.neuron_file import graph_digest, read_graph, read_neuron
    from speak_neuro.export.files.trace_file import read_trace
    from speak_neuro.supervision.exemplar import UnigramExemplar
    from speak_neuro.systems.run_folder import load_system, read_run
    from speak_neuro.table.table import CompiledTable
    from speak_neuro.table.vocabulary import Vocabulary
    from speak_neuro.training.checkpoints import load_state
    from speak_neuro.training.metrics_log import read_metrics

    folder = Path(shutil.copytree(run, place / "run"))
    record, exemplar = read_run(folder), folder / "exemplar.json"
    if export(["--run", str(folder), "--out", str(place), "--rows", "20", "--quiet"]):
        raise SpeakError(f"{run}: cannot be exported; give a run of SPEAK")
    write_alphabet(place / "a.alphabet.json", record.alphabet)
    points = len(record.alphabet)
    CompiledTable(
        record.alphabet, np.linspace(-1, 1, points, dtype=np.float32)[None], np.ones((1, points), dtype=np.float32)
    ).save(place / "table.safetensors")
    words = [f"token{index}".encode() for index in range(300)]
    Vocabulary(tuple(words), np.arange(300)).save(place / "vocabulary.safetensors")
    (place / "text.txt").write_text("some text for a store " * 100, encoding="utf-8")
    CharacterStore.from_path(place / "text.txt", cache=place / "store")

    def tensors(found: dict[str, Any]) -> str:
        return digest_of({}, {name: np.asarray(value.float().numpy()) for name, value in found.items()})

    def config() -> Any:
        found = read_run(folder)
        return to_dict(found.config), found.alphabet.characters, found.record

    def trace() -> Any:
        found = read_trace(place / "trace.npz")
        return digest_of(found.meta, found.arrays())

    def graph() -> Any:
        read_neuron(place / "boundary.nir")
        return graph_digest(read_graph(place / "boundary.nir"))

    def table() -> Any:
        found = CompiledTable.read(place / "table.safetensors")
        return found.current.tobytes(), found.gate.tobytes(), found.alphabet.characters, repr(found.neuron)

    def vocabulary() -> Any:
        found = Vocabulary.load(place / "vocabulary.safetensors")
        return found.tokens, found.counts.tobytes()

    def store() -> Any:
        found = CharacterStore.open(place / "store")
        return found.ids.tobytes(), found.alphabet.characters

    def state() -> Any:
        found, metadata, _, _ = load_state(folder, any_good=False)
        return tensors(found), metadata

    return {
        "config.json": Kind(folder / "config.json", config),
        "model.safetensors": Kind(
            folder / "model.safetensors", lambda: tensors(dict(load_system(read_run(folder)).state_dict()))
        ),
        "state.safetensors": Kind(folder / "state.safetensors", state),
        "exemplar.json": Kind(
            exemplar, lambda: UnigramExemplar.load(exemplar, record.record["exemplar_sha256"]).to_text()
        ),
        "metrics.jsonl": Kind(folder / "metrics.jsonl", lambda: read_metrics(folder), digest=False),
        "boundary.nir": Kind(place / "boundary.nir", graph),
        "trace.npz": Kind(place / "trace.npz", trace),
        "alphabet.json": Kind(
            place / "a.alphabet.json", lambda: read_alphabet(place / "a.alphabet.json", points).characters
        ),
        "table.safetensors": Kind(place / "table.safetensors", table),
        "vocabulary.safetensors": Kind(place / "vocabulary.safetensors", vocabulary),
        "store.json": Kind(place / "store" / "store.json", store),
        "ids.bin": Kind(place / "store" / "ids.bin", store),
    }


def outcome(kind: Kind, whole: Any) -> str:
    """What a reader makes of its file: refused, read the same, or read as something else."""
    try:
        found = kind.read()
    except (SpeakError, OSError) as error:
        if "\n" in str(error):
            raise AssertionError(f"{kind.file.name}: an error of several lines: {error!r}") from error
        return "refused"
    return "same" if found == whole else "accepted"


def flipped(data: bytes, count: int, source: random.Random) -> Iterator[bytes]:
    """`data` with one bit flipped, at `count` random places."""
    for _ in range(count):
        bit = source.randrange(8 * len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def mutated(data: bytes, count: int, source: random.Random) -> Iterator[bytes]:
    """`data` changed in one to four ways."""
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(source.randint(1, 4)):
            # Headers and small fields are where readers go wrong.
            end = len(changed) if source.random() < 0.5 else min(len(changed), 4096)
            at = source.randrange(end + 1)
            length = min(source.choice((1, 2, 8, 64, 1024)), len(changed) - at)
            part = bytes(changed[at : at + length])
            changed[at : at + length] = source.choice(
                (b"", part + part, source.randbytes(length), bytes(length), b"\xff" * length, source.choice(WORDS))
            )
        yield bytes(changed[: source.randrange(len(changed) + 1)] if source.random() < 0.1 else changed)


def damage(kind: Kind, inputs: Iterator[bytes]) -> dict[str, Any]:
    """Outcomes by their kind, and the longest time."""
    data, whole, counts, longest = kind.file.read_bytes(), kind.read(), Counter[str](), 0.0
    signal.signal(signal.SIGALRM, _hangs)
    try:
        for changed in inputs:
            kind.file.write_bytes(changed)
            signal.alarm(LIMIT_SECONDS)
            began = time.process_time()
            counts[outcome(kind, whole)] += 1
            longest = max(longest, time.process_time() - began)
            signal.alarm(0)
    finally:
        signal.alarm(0)
        kind.file.write_bytes(data)
    return {**counts, "longest_seconds": round(longest, 3)}


def _hangs(number: int, frame: Any) -> None:
    raise AssertionError(f"not read within {LIMIT_SECONDS} s")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="reliability/damage.py", description="Damage files of each kind, read them.")
    parser.add_argument("how", choices=("flips", "fuzz"), help="one bit flipped, or bytes mutated")
    parser.add_argument("--run", type=Path, required=True, help="run folder of SPEAK")
    parser.add_argument("--count", type=int, default=100, help="inputs for each kind of file (default: 100)")
    parser.add_argument("--only", nargs="+", metavar="KIND", help="these kinds of file alone")
    parser.add_argument("--seed", type=int, default=0, help="of the random damage (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the outcomes here")
    return run_command(parser, run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Damage the files and print a line for each kind."""
    outcomes: dict[str, Any] = {}
    with TemporaryDirectory() as place:
        for name, kind in kinds(arguments.run, Path(place)).items():
            if (arguments.only and name not in arguments.only) or (arguments.how == "flips" and not kind.digest):
                continue
            change = flipped if arguments.how == "flips" else mutated
            source = random.Random(f"{name} {arguments.seed}")
            outcomes[name] = damage(kind, change(kind.file.read_bytes(), arguments.count, source))
            print(f"{name}: {json.dumps(outcomes[name])}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    metrics = {"how": arguments.how, "count": arguments.count, "kinds": outcomes, "peak_bytes": peak}
    write_result(arguments, metrics)
    accepted = sum(found.get("accepted", 0) for found in outcomes.values()) if arguments.how == "flips" else 0
    return int(accepted > 0)


if __name__ == "__main__":
    sys.exit(main())
