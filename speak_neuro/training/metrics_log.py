"""metrics.jsonl: one JSON object a line, each step and each evaluation of a run.

    check_n = the first DIGITS of SHA-256(check_{n-1}, line n without its check)

So a changed, missing or moved line is found; lines at the end may be missing, as a kill leaves the file.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from speak_neuro.common.digests import digest_of
from speak_neuro.common.files import atomic_write
from speak_neuro.common.json_files import Strict, check_json
from speak_neuro.common.json_lines import read_json_lines
from speak_neuro.errors import SpeakError
from speak_neuro.systems.run_folder import METRICS

CHECK = "check"
"""The field of a line that holds its check."""
DIGITS = 16
ADVICE = "restore the file, or train again"


class MetricsLine(Strict):
    """A line: the step that it is of, and numbers by name."""

    step: Annotated[int, Field(ge=0)]
    check: str | None = None


class MetricsLog:
    """metrics.jsonl, appended line by line; on resume cut back to the checkpoint's step."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / METRICS
        kept = []
        with contextlib.suppress(FileNotFoundError):
            kept = [record for record in read_metrics(folder) if record["step"] <= step]
        self._check = ""
        with atomic_write(self.path, "w") as stream:
            stream.writelines(map(self._line, kept))

    def _line(self, record: dict[str, Any]) -> str:
        """The line of a record, which every later line's check depends on."""
        self._check = check_of(self._check, record)
        return json.dumps({**record, CHECK: self._check}) + "\n"

    def append(self, record: dict[str, Any]) -> None:
        """Write one record; a value that is not finite is an error, found where it arises."""
        for name, value in record.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise SpeakError(
                    f"step {record.get('step')}: {name} is {value}; lower --learning-rate or --tokenizer-learning-rate"
                )
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(self._line(record))
        except OSError as error:  # a full disk gives no name
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def check_of(before: str, record: dict[str, Any]) -> str:
    """The check of a line that follows one with the check `before`."""
    return digest_of({"before": before, "record": record})[:DIGITS]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All records of metrics.jsonl; a last line that was cut short when the run was killed is left out."""
    return list(iterate_metrics(folder / METRICS))


def iterate_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a log; those of runs before there were checks have none in any line."""
    before: str | None = ""
    for number, line in read_json_lines(path, ADVICE, torn_end=True):
        where = f"{path}: line {number}"
        stated = check_json(line, MetricsLine, where, ADVICE).check
        record = {name: value for name, value in line.items() if name != CHECK}
        if before == "" and stated is None:
            before = None
        wanted = None if before is None else check_of(before, record)
        if stated != wanted:
            raise SpeakError(
                f"{where}: {CHECK} is {stated} and {wanted} by what stands here and before: a line was damaged, "
                f"changed or left out since it was written; {ADVICE}"
            )
        before = stated
        yield record
