"""Many runs in one small file: what tables.py and plot.py read, and what can be committed.

    python experiments/compare/collect.py runs/comparison --json experiments/results/comparison.json
    python experiments/compare/collect.py runs/a runs/b results.json --json all.json

Takes run folders, folders of run folders, and JSON files of gtok.py, evaluate.py or of this script. Each run is kept
with its system, data, seed, the settings that differ from the first run's, test scores, parameters, training time, and
the validation curve thinned to at most 40 points. Runs without results.json are named and left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from records import Record, load

from speak_neuro.common.command import run_command
from speak_neuro.common.files import atomic_write
from speak_neuro.common.provenance import result_record
from speak_neuro.errors import SpeakError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="collect.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folders, folders of them, JSON files")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="the file to write")
    return run_command(parser, collect, argv)


def collect(arguments: argparse.Namespace) -> int:
    """Read every run, write the file, say what it holds."""
    records, unfinished = load(arguments.runs)
    for line in unfinished:
        print(f"left out: {line}", file=sys.stderr)
    if not records:
        raise SpeakError(f"{', '.join(map(str, arguments.runs))}: no finished run; let one end first")
    devices = sorted({record.device for record in records if record.device})
    metrics = {**to_collected(records), "unfinished": unfinished}
    write_compact(arguments.json, result_record(arguments.command_line, metrics, "; ".join(devices) or None))
    for record in records:
        bpc, sf = ("–" if value is None else f"{value:.4f}" for value in (record.bpc, record.sf))
        print(f"{record.name}: {record.system}, {record.dataset}, seed {record.seed}, bpc {bpc}, sf {sf}")
    print(f"{len(records)} runs in {arguments.json}")
    return 0


def to_collected(records: Sequence[Record]) -> dict[str, Any]:
    """The form of `collect.py`: one configuration, and for each run the knobs that differ from it."""
    base = records[0].config if records else {}
    runs = []
    for record in records:
        keys = [*base, *(key for key in record.config if key not in base)]
        knobs = {key: record.config.get(key) for key in keys if record.config.get(key) != base.get(key)}
        values = {
            item.name: getattr(record, item.name)
            for item in dataclasses.fields(Record)
            if item.name != "config" and getattr(record, item.name) not in (None, {})
        }
        runs.append({**values, "knobs": knobs})
    return {"config": base, "runs": runs}


def write_compact(path: Path, result: dict[str, Any]) -> None:
    """A result record with a line for each run, so that a file of a hundred runs can be read and compared."""
    runs = result["metrics"]["runs"]
    head = {**result, "metrics": {**result["metrics"], "runs": []}}
    text = json.dumps(head, indent=2, ensure_ascii=False, allow_nan=False)
    lines = ",\n".join("      " + json.dumps(run, ensure_ascii=False, allow_nan=False) for run in runs)
    if runs:
        before, after = text.rsplit('"runs": []', 1)
        text = f'{before}"runs": [\n{lines}\n    ]{after}'
    with atomic_write(path, "w") as stream:
        stream.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
