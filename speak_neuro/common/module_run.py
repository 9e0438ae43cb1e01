"""`python -m speak_neuro.some.module`: most modules are no commands, and Python would run them in silence."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence

COMMANDS = (
    "speak-train, speak-tokenize, speak-export, speak-sim, speak-plot, speak-generate; and docs/index.md has the others"
)


def refuse_library(command_line: Sequence[str]) -> None:
    """End with a line on stderr when the module after -m does nothing by itself. It is not imported for that."""
    name = next((word for word in command_line if word.startswith("speak_neuro.")), None)
    spec = None if name is None else importlib.util.find_spec(name)
    source = getattr(spec.loader, "get_source", None) if spec is not None and spec.origin is not None else None
    if spec is None or source is None or spec.submodule_search_locations is not None:
        return  # Python has a line of its own for what does not exist, and for packages
    if not re.search('^if __name__ == "__main__":', source(name) or "", re.MULTILINE):
        print(f"{name}: a module to import, no command; the commands are {COMMANDS}", file=sys.stderr)
        raise SystemExit(2)
