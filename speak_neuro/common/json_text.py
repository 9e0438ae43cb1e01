"""JSON texts parsed strictly: what the standard's own parser lets pass in silence is refused in one line.

No duplicate keys, no NaN and no number beyond a double, no nesting that a parser would fall over.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from speak_neuro.errors import SpeakError

SHOWN = 60
"""Characters of a wrong value that an error shows."""


def parse_json(text: str | bytes, where: str, remedy: str) -> Any:
    """The value of a JSON text; `where` names it in errors."""
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite, parse_int=_integer
        )
    except RecursionError:
        raise SpeakError(f"{where}: not valid JSON (nested too deeply); {remedy}") from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise SpeakError(f"{where}: not valid JSON ({shown(' '.join(str(error).split()), 200)}); {remedy}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {shown(repr(twice))} occurs twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is beyond the largest number")
    return value


def _integer(text: str) -> int:
    if len(text) > 64:
        raise ValueError(f"{shown(text)} is beyond the largest number")
    return int(text)


def shown(text: str, most: int = SHOWN) -> str:
    return text if len(text) <= most else text[:most] + "..."
