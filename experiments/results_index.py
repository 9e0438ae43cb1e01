"""experiments/results/README.md: which command made each results file, on what, and which pages quote it.

python experiments/results_index.py            write it
python experiments/results_index.py --check    exit code 1 when it is not what the files say
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from speak_neuro.common.command import run_command
from speak_neuro.common.files import atomic_write

EXPERIMENTS = Path(__file__).resolve().parent
INDEX = EXPERIMENTS / "results" / "README.md"
HEAD = """# Results

Made by `python experiments/results_index.py`. Commands stand as they were given; scripts have moved since some of them
ran (`bench_scan` is `bench/scan.py`, `compare.py` is `compare/suites.py`, `collect.py` is `compare/collect.py`).
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="results_index", description="the index of experiments/results")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when the index is out of date")
    return run_command(parser, write, argv)


def write(arguments: argparse.Namespace) -> int:
    """Write or check the index."""
    text = index()
    if arguments.check:
        current = INDEX.read_text(encoding="utf-8") if INDEX.exists() else ""
        if text != current:
            print(f"{INDEX}: out of date; run python experiments/results_index.py", file=sys.stderr)
        return int(text != current)
    with atomic_write(INDEX, "w") as stream:
        stream.write(text)
    return 0


def index() -> str:
    """The page."""
    root = EXPERIMENTS.parent
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md")), EXPERIMENTS / "LOG.md"]
    texts = {page.relative_to(root).as_posix(): page.read_text(encoding="utf-8") for page in pages}
    parts = [HEAD]
    for folder in sorted(path for path in INDEX.parent.iterdir() if path.is_dir()):
        parts += [f"## {folder.name}\n", "| file | command | date, device | quoted in |", "|---|---|---|---|"]
        parts += [row(file, texts) for file in sorted(folder.glob("*.json"))]
        parts.append("")
    return "\n".join(parts)


def row(file: Path, texts: dict[str, str]) -> str:
    """A line of the table."""
    record = json.loads(file.read_text(encoding="utf-8"))
    record = record if isinstance(record, dict) else {}
    command = str(record.get("command") or "").replace("|", "\\|")
    made = ", ".join(filter(None, (str(record.get("date") or "")[:10], str(record.get("device") or ""))))
    quoted = ", ".join(page for page, text in texts.items() if file.name in text)
    return f"| `{file.name}` | {f'`{command}`' if command else ''} | {made} | {quoted} |"


if __name__ == "__main__":
    sys.exit(main())
