"""One line of a gigabyte through a table, of a hundred megabytes through a network: memory that does not grow with it.

python experiments/reliability/long_line.py --json experiments/results/reliability/long_line.json

Two short runs are trained, one of them with tables. Each line is a file that `speak-tokenize` reads in a process of its
own, its tokens going to /dev/null; its counts have to be those of the line. Measured are the process's own largest
resident size, and its seconds of processor time, for a tenth of the size and for the whole.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from short_run import short_run, write_text

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.export.cli import main as export

PHRASE = b"A line of some words, more or less. "
LIMIT = 1.2
"""How much more memory a line of ten times the size may take."""
PROGRAM = """
import sys
from pathlib import Path
from speak_neuro.cli import main
code = main(sys.argv[2:])
Path(sys.argv[1]).write_text(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
sys.exit(code)
"""
"""speak-tokenize, and its own largest resident size in KiB: what wait4 tells of a process begins with its parent's."""


def written(line: Path, size: int) -> Path:
    """One line of about `size` bytes."""
    many, rest = divmod(size // len(PHRASE), 1024)
    with line.open("wb") as stream:
        for _ in range(many):
            stream.write(PHRASE * 1024)
        stream.write(PHRASE * rest)
    return line


def measured(tokenizer: Sequence[str], line: Path, counts: Path) -> dict[str, Any]:
    """One `speak-tokenize`, in a process of its own."""
    peak = counts.with_name("peak")
    words = [sys.executable, "-c", PROGRAM, str(peak), str(line), *tokenizer, "--out", os.devnull]
    words += ["--json", str(counts), "--quiet"]
    process = os.posix_spawn(words[0], words, os.environ)
    _, status, used = os.wait4(process, 0)
    size = line.stat().st_size
    if status:
        raise SpeakError(f"{line}: speak-tokenize ended with {os.waitstatus_to_exitcode(status)}")
    found = json.loads(counts.read_text(encoding="utf-8"))["metrics"]
    if found["characters"] != size:
        raise SpeakError(f"{line}: {found['characters']:,} characters of {size:,} were read")
    mib = round(int(peak.read_text(encoding="utf-8")) / 1024, 1)
    return {"bytes": size, "peak_mib": mib, "processor_seconds": round(used.ru_utime + used.ru_stime, 1), **found}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1: memory grows with the line."""
    parser = argparse.ArgumentParser(prog="reliability/long_line.py", description="Lines of any length, flat memory.")
    parser.add_argument("--run-bytes", type=int, default=10**8, help="of the network's line (default: 100 million)")
    parser.add_argument("--table-bytes", type=int, default=10**9, help="of the table's line (default: 1,000 million)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was measured here")
    return run_command(parser, run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Train, make the lines, read them."""
    at_least(arguments, 10 * len(PHRASE), "run_bytes", "table_bytes")
    if not Path("/proc/self/status").exists():
        raise SpeakError("/proc/self/status: no such file; this measures memory on Linux")
    metrics: dict[str, Any] = {"limit": LIMIT}
    with TemporaryDirectory() as place:
        folder = Path(place)
        write_text(folder)
        window, linear = (short_run(folder, encoder, "--encoder", encoder) for encoder in ("window", "linear"))
        if export(["--to", "table", "--run", str(linear), "--quiet"]):
            raise SpeakError("the table could not be written; the message is above")
        tokenizers = {"run": ["--run", str(window)], "table": ["--table", str(linear / "table.safetensors")]}
        for name, tokenizer in tokenizers.items():
            whole = getattr(arguments, f"{name}_bytes")
            metrics[name] = []
            for size in (whole // 10, whole):
                metrics[name].append(measured(tokenizer, written(folder / "line", size), folder / "counts.json"))
                print(f"--{name}: {json.dumps(metrics[name][-1])}", flush=True)
    write_result(arguments, metrics)
    return int(any(metrics[name][1]["peak_mib"] > LIMIT * metrics[name][0]["peak_mib"] for name in tokenizers))


if __name__ == "__main__":
    sys.exit(main())
