"""Dataclasses of settings as JSON and as command line flags, checked."""

from __future__ import annotations

import argparse
import dataclasses
import math
import typing
from collections.abc import Collection
from dataclasses import field
from typing import Any, TypeVar

from speak_neuro.errors import SpeakError

T = TypeVar("T")


def option(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: Collection[str] | None = None,
    added: bool = False,
    flag: str | None = None,
    before: Any = None,
    systems: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its help text and allowed values (`low` and `high` are themselves allowed).

    A field `added` since the schema's first version may be absent in a file: the run was made with its default, or with
    the value `before` that it stood for until then. `flag` is the command line's name for it where that is not the
    field's own. `systems` are those that read it; empty: all.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "flag": flag}
    metadata |= {"added": added or before is not None, "before": before, "systems": systems}
    return field(default=default, metadata=metadata)


def validate(config: Any) -> None:
    """Raise ValueError naming the field, its value and what is allowed."""
    for item in dataclasses.fields(config):
        if not item.metadata:
            continue
        value = getattr(config, item.name)
        low, high, choices = item.metadata["low"], item.metadata["high"], item.metadata["choices"]
        if choices is not None and value not in choices:
            raise ValueError(f"{item.name} is {value!r}; allowed: {', '.join(choices)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{item.name} is {value}; allowed: finite numbers")
        if (low is not None and value < low) or (high is not None and value > high):
            limits = f"{low} to {high}" if high is not None and low is not None else f"at least {low}"
            raise ValueError(f"{item.name} is {value}; allowed: {limits}")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values."""
    return dataclasses.asdict(config)


def _types(kind: type) -> dict[str, Any]:
    """Each field's type; a choice between strings counts as a string, its values are checked by `validate`."""
    fields = {item.name for item in dataclasses.fields(typing.cast(Any, kind))}
    hints = {name: hint for name, hint in typing.get_type_hints(kind).items() if name in fields}
    return {name: str if typing.get_origin(hint) is typing.Literal else hint for name, hint in hints.items()}


def from_dict(kind: type[T], values: Any, where: str = "config") -> T:
    """The inverse of `to_dict`. An unknown or missing field, or a value of the wrong type, is an error naming it."""
    if not isinstance(values, dict):
        raise SpeakError(f"{where}: found {type(values).__name__}; allowed: an object")
    hints = _types(kind)
    retired = getattr(kind, "RETIRED", {})
    for name, meant in retired.items():
        if meant is not None and values.get(name, meant) != meant:
            raise SpeakError(
                f"{where}.{name}: found {values[name]!r}; this version has {meant!r} alone; use the speak_neuro that "
                "wrote it"
            )
    unknown = sorted(set(values) - set(hints) - set(retired))
    if unknown:
        raise SpeakError(f"{where}: unknown field {unknown[0]!r}; it was written by another version of speak_neuro")
    known = {item.name: item.metadata for item in dataclasses.fields(typing.cast(Any, kind))}
    arguments: dict[str, Any] = {}
    for name, hint in hints.items():
        if name not in values and known[name].get("added", False):
            if (before := known[name]["before"]) is not None:
                arguments[name] = before
            continue
        if name not in values:
            raise SpeakError(f"{where}: field {name!r} is missing; it was written by another version of speak_neuro")
        value = values[name]
        if dataclasses.is_dataclass(hint):
            value = from_dict(typing.cast(type, hint), value, f"{where}.{name}")
        elif hint is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif type(value) is not hint:
            raise SpeakError(f"{where}.{name}: found {value!r}; allowed: {hint.__name__}")
        arguments[name] = value
    try:
        return kind(**arguments)
    except ValueError as error:
        raise SpeakError(f"{where}: {error}") from error


def add_flags(parser: argparse.ArgumentParser, kind: type) -> None:
    """One flag per field, in a group per dataclass. No flag has a default here: presets fill what is not given."""
    for section in dataclasses.fields(kind):
        part = typing.cast(type, typing.get_type_hints(kind)[section.name])
        group = parser.add_argument_group(section.name, (part.__doc__ or "").strip())
        hints = _types(part)
        for item in dataclasses.fields(part):
            meta = item.metadata
            flag = meta["flag"] or "--" + item.name.replace("_", "-")
            text = ": ".join(filter(None, (", ".join(meta["systems"]), meta["help"]))).replace("%", "%%")
            destination = f"{section.name}.{item.name}"
            if hints[item.name] is bool:
                group.add_argument(
                    flag, dest=destination, default=None, action=argparse.BooleanOptionalAction, help=text
                )
            else:
                group.add_argument(
                    flag,
                    dest=destination,
                    default=None,
                    type=hints[item.name],
                    choices=meta["choices"],
                    metavar=None if meta["choices"] else hints[item.name].__name__.upper(),
                    help=text,
                )


def override(config: T, arguments: argparse.Namespace) -> T:
    """`config` with every flag that was given."""
    parts = {}
    for section in dataclasses.fields(typing.cast(Any, config)):
        part = getattr(config, section.name)
        given = {
            item.name: value
            for item in dataclasses.fields(part)
            if (value := getattr(arguments, f"{section.name}.{item.name}", None)) is not None
        }
        parts[section.name] = dataclasses.replace(part, **given)
    changed: T = dataclasses.replace(typing.cast(Any, config), **parts)
    return changed
