"""metrics.jsonl: one JSON object a line, each step and each evaluation of a run."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from speak_neuro.common.files import atomic_write
from speak_neuro.common.json_files import Strict, check_json
from speak_neuro.common.json_lines import read_json_lines
from speak_neuro.errors import SpeakError
from speak_neuro.systems.run_folder import METRICS


class MetricsLine(Strict):
    """A line: the step that it is of, and numbers by name."""

    step: Annotated[int, Field(ge=0)]


class MetricsLog:
    """metrics.jsonl, appended line by line; on resume cut back to the checkpoint's step."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / METRICS
        kept = []
        with contextlib.suppress(FileNotFoundError):
            kept = [record for record in read_metrics(folder) if record["step"] <= step]
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
    path, advice = folder / METRICS, "restore the file, or train again"
    return [
        check_json(record, MetricsLine, f"{path}: line {number}", advice).model_dump()
        for number, record in read_json_lines(path, advice, torn_end=True)
    ]
