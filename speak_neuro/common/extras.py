"""Optional packages, imported where they are needed."""

from __future__ import annotations

import importlib
import shlex
from typing import Any

from speak_neuro.errors import MissingExtra


def extra(module: str, install: str) -> Any:
    """The module; where it is not installed, one line that says what to install: `speak-neuro[hf]`, say."""
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise MissingExtra(f"{name} is not installed: pip install {shlex.quote(install)}") from None
