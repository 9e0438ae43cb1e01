"""The file of many runs: one configuration, and for each run a line with the knobs that differ from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from records import Record

from speak_neuro.command import atomic_write


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
