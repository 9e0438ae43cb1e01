"""metrics.jsonl: one JSON object a line, each step and each evaluation of a run."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from speak_neuro.common.files import atomic_write
from speak_neuro.common.json_lines import read_json_lines
from speak_neuro.errors import SpeakError
from speak_neuro.systems.run_folder import METRICS


class MetricsLog:
    """metrics.jsonl, appended line by line; on resume cut back to the checkpoint's step."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / METRICS
        kept = []
        with contextlib.suppress(FileNotFoundError):
            kept = [record for record in read_metrics(folder) if record.get("step", 0) <= step]
        with atomic_write(self.path, "w") as stream:
            stream.writelines(json.dumps(record) + "\n" for record in kept)

    def append(self, record: dict[str, Any]) -> None:
        """Write one record; a value that is not finite is an error, found where it arises."""
        for name, value in record.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise SpeakError(
                    f"step {record.get('step')}: {name} is {value}; lower --learning-rate or --tokenizer-learning-rate"
                )
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        except OSError as error:  # a full disk gives no name
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All records of metrics.jsonl; a last line that was cut short when the run was killed is left out."""
    advice = "restore the file, or train again"
    return [record for _, record in read_json_lines(folder / METRICS, advice, torn_end=True)]
