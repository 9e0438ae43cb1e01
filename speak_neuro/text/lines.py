"""Lines of text files and lines of output: what every way to tokenize a file has in common.

A line ends at a line feed and nowhere else; a carriage return stays in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from speak_neuro.errors import SpeakError

STYLES = ("json", "spans", "bytes", "marked")
FORMATS = (*STYLES, "ids")


def read_lines(source: Iterable[bytes], name: str, offset: int = 0) -> Iterator[str]:
    """Lines without their line feed; `offset` is the source's own in the file `name`."""
    for raw in source:
        try:
            line = raw.removesuffix(b"\n").decode("utf-8")
        except UnicodeDecodeError as error:
            raise invalid_utf8(name, offset + error.start, raw[error.start]) from None
        yield line
        offset += len(raw)


def invalid_utf8(name: str, offset: int, byte: int) -> SpeakError:
    """The error for bytes that are not UTF-8."""
    return SpeakError(f"{name}: invalid UTF-8 at byte {offset} (0x{byte:02x}); convert it to UTF-8")


def render(line: str, spans: list[list[int]], style: str) -> str:
    """One output line in one of the `STYLES`."""
    if style in ("spans", "bytes"):
        return json.dumps(spans)
    tokens = [line[start:end] for start, end in spans]
    return "|".join(tokens) if style == "marked" else json.dumps(tokens, ensure_ascii=False)
