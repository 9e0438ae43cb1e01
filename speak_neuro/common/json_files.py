"""JSON from files: parsed strictly, then checked against a schema by pydantic.

A schema is a pydantic model, or any type that pydantic checks, in strict mode: `"3.9"` and `true` are no numbers. Every
departure is one SpeakError line that names file, field, what was found and what is allowed.

pydantic, since it is the most widely used checker of typed data, checks plain Python types too and says where and what
in a form that makes one line. jsonschema checks documents alone and knows no Python type; msgspec is faster, but stops
at the first bytes that are no JSON of its own, and its errors name no value.
"""

from __future__ import annotations

import functools
import os
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from speak_neuro.common.json_text import parse_json, shown
from speak_neuro.common.regular import read_whole
from speak_neuro.errors import SpeakError

T = TypeVar("T")


class Strict(BaseModel):
    """A JSON object whose fields have exactly these types; others may stand beside them."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)


def check_json(value: Any, schema: type[T], where: str, remedy: str) -> T:
    """`value` as the schema has it."""
    try:
        return cast(T, _adapter(cast(Any, schema)).validate_python(value, strict=True))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        at = f"{where}: {field}" if field else where
        if first["type"] == "missing":
            raise SpeakError(f"{at} is missing; {remedy}") from None
        allowed = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise SpeakError(f"{at}: found {shown(repr(first['input']))}; allowed: {allowed}; {remedy}") from None
    except RecursionError:
        raise SpeakError(f"{where}: nested too deeply; {remedy}") from None


def read_json(path: str | os.PathLike[str], schema: type[T], remedy: str) -> T:
    """The JSON file `path`, checked. A file that is not there is a FileNotFoundError."""
    where = os.fspath(path)
    return check_json(parse_json(read_whole(path, remedy), where, remedy), schema, where, remedy)


class Measurement(Strict):
    """What every command writes to its --json."""

    metrics: dict[str, Any]


def read_measurement(path: str | os.PathLike[str], remedy: str, *fields: str) -> dict[str, Any]:
    """The metrics of a results file that a command goes on from, which have at least these fields."""
    metrics = read_json(path, Measurement, remedy).metrics
    for field in fields:
        if field not in metrics:
            raise SpeakError(f"{os.fspath(path)}: metrics.{field} is missing; {remedy}")
    return metrics


@functools.cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)
