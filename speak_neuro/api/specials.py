"""Special tokens: names that stand for one id, wherever the caller allows them in a text, as in tiktoken."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

Allowed = Collection[str] | Literal["all"]


def check_specials(names: Collection[str]) -> tuple[str, ...]:
    """The names, if each is one: not empty, once."""
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"a special token is {name!r}; allowed: a string of at least one character")
    if len(set(names)) < len(names):
        raise ValueError(f"special tokens are {list(names)}; allowed: each name once")
    return tuple(names)


def allowed_names(allowed: Allowed, known: Mapping[str, int]) -> list[str]:
    """The names that `allowed` permits."""
    if isinstance(allowed, str):
        if allowed != "all":
            raise ValueError(f"allowed_special is {allowed!r}; allowed: 'all', or a collection of names")
        return list(known)
    for name in allowed:
        if name not in known:
            raise ValueError(f"allowed_special holds {name!r}; the tokenizer's special tokens: {list(known)}")
    return list(allowed)


def parts(text: str, names: Collection[str]) -> Iterator[tuple[int, int, bool]]:
    """The spans [start, end) of `text`, and whether each is one of `names`; where two fit, the longer one."""
    start = 0
    if names:
        pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        for found in re.finditer(pattern, text):
            if found.start() > start:
                yield start, found.start(), False
            yield found.start(), found.end(), True
            start = found.end()
    if start < len(text) or not text:
        yield start, len(text), False
