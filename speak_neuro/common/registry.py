"""Names that settings may have, each with the one place that holds what it stands for.

    ENCODERS = Registry("encoder", {"window": "speak_neuro.tokenizer.window:WindowEncoder", ...})
    ENCODERS.load("window")                            the class, imported now
    ENCODERS.register("mine", "my_module:MyEncoder")   from then on --encoder mine trains, in this process

A registry lists names without importing what they stand for, so that a command's `--help` needs no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any


class Registry(Mapping[str, str]):
    """Name -> "module:attribute", in the order of the first entry to the last."""

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries: dict[str, str] = {}
        for name, place in entries.items():
            self.register(name, place)

    def register(self, name: str, place: str) -> None:
        """Enter `name`; a name that is taken, or a place without a colon, is a ValueError."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is {self._entries[name]} already; choose another name")
        if place.count(":") != 1:
            raise ValueError(f"{self.kind} {name!r} is at {place!r}; allowed: module:attribute")
        self._entries[name] = place

    def remove(self, name: str) -> None:
        """Take `name` out again."""
        del self._entries[name]

    def load(self, name: str) -> Any:
        """What `name` stands for."""
        if name not in self._entries:
            raise ValueError(f"{self.kind} is {name!r}; allowed: {', '.join(self._entries)}")
        module, _, attribute = self._entries[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
