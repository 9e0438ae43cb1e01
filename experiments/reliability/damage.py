"""Damage real files and read them: flipped bits, mutated bytes, files that declare more than they hold.

python experiments/reliability/damage.py flips --count 1000 --json experiments/results/reliability/flips.json
python experiments/reliability/damage.py fuzz --count 1000 --json experiments/results/reliability/fuzz.json

Each kind of file (kinds.py, other_kinds.py) is made, most of them from a run: a short one, or that of --run. A flipped
bit has to be refused, or to change nothing that the reader returns (a time stamp in an archive, the case of an
exponent). A mutated file is read or refused in one line: no other exception, no more than LIMIT_SECONDS.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kinds import Kind, run_kinds, table_kinds, text_kinds
from other_kinds import data_kinds, encoder_kinds, network_kinds, rtok_kinds, saved_kinds
from short_run import short_run, write_text

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.systems.run_folder import read_run

LIMIT_SECONDS = 20
"""Of processor time. Waiting, and code that hears no signal, may take AT_MOST: the machine may be busy."""
AT_MOST = 120
WORDS = (b"NaN", b"1e400", b"-1", b"true", b"null", b"[" * 5000, b'{"a":' * 5000, b"99999999999", b"\x00", b"{}")


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
    signal.signal(signal.SIGPROF, _hangs)
    try:
        for changed in inputs:
            kind.file.write_bytes(changed)
            signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
            # A library in a circle of its own hears no signal: this ends the process, and the file stays.
            faulthandler.dump_traceback_later(AT_MOST, exit=True)
            began = time.process_time()
            counts[outcome(kind, whole)] += 1
            longest = max(longest, time.process_time() - began)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        kind.file.write_bytes(data)
    return {**counts, "longest_seconds": round(longest, 3)}


def _hangs(number: int, frame: Any) -> None:
    raise AssertionError(f"not read within {LIMIT_SECONDS} s")


def within(inputs: Iterator[bytes], seconds: float | None) -> Iterator[bytes]:
    """The inputs that come before so many seconds are over."""
    began = time.monotonic()
    for one in inputs:
        if seconds is not None and time.monotonic() - began > seconds:
            return
        yield one


def trained(folder: Path) -> Path:
    """A short run of SPEAK."""
    folder.mkdir()
    write_text(folder)
    return short_run(folder, "run")


def every_kind(run: Path, place: Path) -> dict[str, Kind]:
    """Files of each kind, in a folder of their own."""
    alphabet = read_run(run).alphabet
    return {
        **run_kinds(run, place),
        **table_kinds(alphabet, place),
        **text_kinds(place),
        **saved_kinds(run, alphabet, place),
        **rtok_kinds(place / "rtok"),
        **data_kinds(place),
        **encoder_kinds(place),
        **network_kinds(place),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1: a damaged file was accepted."""
    parser = argparse.ArgumentParser(prog="reliability/damage.py", description="Damage files of each kind, read them.")
    parser.add_argument("how", choices=("flips", "fuzz"), help="one bit flipped, or bytes mutated")
    parser.add_argument("--run", type=Path, help="run folder of SPEAK (default: a run of 60 steps is trained)")
    parser.add_argument("--count", type=int, default=100, help="inputs for each kind of file (default: 100)")
    parser.add_argument("--seconds", type=float, metavar="S", help="no more than so long for each kind of file")
    parser.add_argument("--only", nargs="+", metavar="KIND", help="these kinds of file alone")
    parser.add_argument("--seed", type=int, default=0, help="of the random damage (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the outcomes here")
    return run_command(parser, run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Damage the files and print a line for each kind."""
    outcomes: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        place = Path(folder)
        for name, kind in every_kind(arguments.run or trained(place / "short"), place).items():
            if (arguments.only and name not in arguments.only) or (arguments.how == "flips" and not kind.digest):
                continue
            change = flipped if arguments.how == "flips" else mutated
            source = random.Random(f"{name} {arguments.seed}")
            inputs = within(change(kind.file.read_bytes(), arguments.count, source), arguments.seconds)
            outcomes[name] = damage(kind, inputs)
            print(f"{name}: {json.dumps(outcomes[name])}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    metrics = {"how": arguments.how, "count": arguments.count, "kinds": outcomes, "peak_bytes": peak}
    write_result(arguments, metrics)
    accepted = sum(found.get("accepted", 0) for found in outcomes.values()) if arguments.how == "flips" else 0
    return int(accepted > 0)


if __name__ == "__main__":
    sys.exit(main())
