"""metrics.jsonl: one JSON object a line, each step and each evaluation of a run."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from speak_neuro.common.files import atomic_write
from speak_neuro.errors import SpeakError
from speak_neuro.systems.run_folder import METRICS


class MetricsLog:
    """metrics.jsonl, appended line by line; on resume cut back to the checkpoint's step."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / METRICS
        kept = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_text(encoding="utf-8").split("\n"):
                with contextlib.suppress(ValueError):  # a line half-written when the run was killed
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
        with atomic_write(self.path, "w") as stream:
            stream.writelines(kept)

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
    """All records of metrics.jsonl."""
    return [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").split("\n") if line]
