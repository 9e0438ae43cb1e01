"""JSON lines: one object a line. Only a line feed ends a line; U+2028 and its like stand in strings as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import check_regular
from speak_neuro.errors import SpeakError


def read_json_lines(
    path: str | os.PathLike[str], advice: str, torn_end: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line that is not blank; a line that holds none is refused by its number.

    `torn_end`: a last line without an end and without a whole object was cut short when its writer was killed, and is
    left out.
    """
    check_regular(path, advice)
    *lines, rest = Path(path).read_bytes().split(b"\n")
    for number, line in enumerate([*lines, rest], start=1):
        if not line.strip(b" \t\r"):
            continue
        try:
            value = parse_json(line.decode("utf-8"), f"{path}: line {number}", advice)
        except UnicodeDecodeError as error:
            if torn_end and number > len(lines):
                return
            raise SpeakError(f"{path}: line {number}, byte {error.start} is not UTF-8; convert the file") from None
        except SpeakError:
            if torn_end and number > len(lines):
                return
            raise
        if not isinstance(value, dict):
            raise SpeakError(f"{path}: line {number} holds {type(value).__name__}; allowed: an object")
        yield number, value
