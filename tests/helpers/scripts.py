"""The scripts of experiments/ as modules: `load("compare/tables")` is experiments/compare/tables.py."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"


def load(name: str) -> ModuleType:
    """The script `name`, a path below experiments/ without .py, with its own folder in front, as when it is run.

    Folders have files of one name: what was loaded from another folder is forgotten first.
    """
    folder, stem = (EXPERIMENTS / name).parent, Path(name).name
    # Scripts are in no package; a look at each of thousands of modules would take as long as a small test.
    for loaded, module in [(name, module) for name, module in sys.modules.items() if "." not in name]:
        file = str(getattr(module, "__file__", None))
        if file.startswith(f"{EXPERIMENTS}{os.sep}") and Path(file).parent != folder:
            del sys.modules[loaded]
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(stem)
    finally:
        sys.path.remove(str(folder))
