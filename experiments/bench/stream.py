"""Memory and time of training on a text larger than memory should hold.

    python experiments/bench/stream.py --text corpus.txt --bytes 1e10 --work runs/stream --json stream_10gb.json

Builds a text of --bytes bytes out of --text (default: the embedded English): it is repeated, and in two of three
repetitions the letters a to z are shifted along the alphabet, so that the number of distinct words grows as well. Then
experiments/gtok.py trains on it in a process of its own, stops, and resumes in another; meanwhile

    peak resident memory     what the system reports as the most the process ever held, pages of mapped files included
    peak anonymous memory    without the pages of mapped files, which the system can take back; sampled

are read from /proc, so this runs on Linux alone. --work is deleted afterwards unless --keep.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import string
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.corpus.reader import embedded_text, read_text
from speak_neuro.errors import SpeakError

FIELDS = {"VmHWM": "peak_resident_bytes", "RssAnon": "peak_anonymous_bytes", "RssFile": "peak_mapped_bytes"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_stream.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--text", type=Path, help="text, or folder of .txt, to build from (default: the embedded text)")
    parser.add_argument("--bytes", type=float, default=1e9, help="size of the built text (default: 1e9)")
    parser.add_argument("--work", type=Path, default=Path("runs/stream"), help="folder for text, cache and run")
    parser.add_argument("--preset", default="smoke", help="preset of gtok.py (default: smoke)")
    parser.add_argument("--steps", type=int, default=20, help="steps before and after the resume (default: 20)")
    parser.add_argument("--keep", action="store_true", help="leave --work as it is at the end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return run_command(parser, bench, argv)


def bench(arguments: argparse.Namespace) -> int:
    """Build, train, resume, report."""
    if not Path("/proc/self/status").exists():
        raise SpeakError("memory is read from /proc, which this system has not; run it on Linux")
    at_least(arguments, 1, "steps")
    at_least(arguments, 1e6, "bytes")
    if arguments.work.exists():
        raise SpeakError(f"{arguments.work}: exists; name a new folder as --work")
    text, run = arguments.work / "text.txt", arguments.work / "run"
    arguments.work.mkdir(parents=True)
    metrics: dict[str, Any] = {"preset": arguments.preset, "seconds_to_build": build(text, arguments)}
    metrics["bytes"] = text.stat().st_size
    print(f"built {metrics['bytes']:,} bytes in {metrics['seconds_to_build']:.0f} s", file=sys.stderr)
    flags = ["--preset", arguments.preset, "--stream", "--data", str(text), "--out", str(run), "--steps", "1000000"]
    stops = {"first": arguments.steps, "resumed": 2 * arguments.steps}
    for name, stop in stops.items():
        extra = ["--stop-after", str(stop), *(["--resume"] if name == "resumed" else [])]
        metrics[name] = watched([*flags, *extra], run / "metrics.jsonl")
        print(name, metrics[name], file=sys.stderr)
    metrics["cache_bytes"] = size_of(arguments.work / "cache")
    metrics["run_bytes"] = size_of(run)
    write_result(arguments, metrics)
    if not arguments.keep:
        shutil.rmtree(arguments.work)
    peak = max(metrics[name]["peak_resident_bytes"] for name in stops)
    print(
        f"peak resident memory {peak / 1e9:.2f} GB; first step after {metrics['first']['seconds_to_first_step']:.0f} s"
    )
    return 0


def build(target: Path, arguments: argparse.Namespace) -> float:
    """Write the text; seconds that it took."""
    began = time.perf_counter()
    source = (read_text(arguments.text) if arguments.text else embedded_text()).encode() + b"\n"
    letters, left, turn = string.ascii_lowercase.encode(), int(arguments.bytes), 0
    with target.open("wb") as stream:
        while left > 0:
            shift = turn // 3 % 25 + 1 if turn % 3 else 0
            block = source.translate(bytes.maketrans(letters, letters[shift:] + letters[:shift]))
            if len(block) > left:  # the last one, up to a line's end
                block = block[: block.rfind(b"\n", 0, left) + 1]
                left = len(block)
            left, turn = left - len(block), turn + 1
            stream.write(block)
    return round(time.perf_counter() - began, 1)


def watched(flags: list[str], metrics: Path) -> dict[str, Any]:
    """Run gtok.py with `flags`; its memory and times."""
    found: dict[str, Any] = dict.fromkeys(FIELDS.values(), 0)
    script = Path(__file__).resolve().parents[1] / "gtok.py"
    began, before, processor = time.perf_counter(), lines(metrics), processor_seconds()
    process = subprocess.Popen([sys.executable, str(script), *flags])
    try:
        while process.poll() is None:
            for name, value in memory(process.pid).items():
                found[FIELDS[name]] = max(found[FIELDS[name]], value)
            if "seconds_to_first_step" not in found and lines(metrics) > before:
                found["seconds_to_first_step"] = round(time.perf_counter() - began, 1)
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait()
    if process.returncode != 0:
        raise SpeakError(f"gtok.py ended with exit code {process.returncode}; its message is above")
    found["seconds"] = round(time.perf_counter() - began, 1)
    found["processor_seconds"] = round(processor_seconds() - processor, 1)
    return found


def processor_seconds() -> float:
    """Processor time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory(pid: int) -> dict[str, int]:
    """The fields of /proc/PID/status, in bytes; none when the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    pairs = (line.split(":", 1) for line in status.splitlines())
    return {name: int(value.split()[0]) * 1024 for name, value in pairs if name in FIELDS}


def lines(file: Path) -> int:
    """How many lines a file has; 0 where there is none."""
    try:
        return file.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def size_of(folder: Path) -> int:
    """Bytes that a folder's files take on disk."""
    files = (Path(base) / name for base, _, names in os.walk(folder) for name in names)
    return sum(file.stat().st_blocks * 512 for file in files)


if __name__ == "__main__":
    sys.exit(main())
