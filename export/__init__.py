"""Checkpoint to NIR graph and trace; training modules to NIR and back. Importing this package loads neither torch nor
nir.

to_nir(module, sample)         a NIRGraph of a torch and snnTorch module, exact or refused
reference_of(module, sample)   its run, the reference for `speak_neuro.sim.verify`
from_nir(graph)                a torch module of a graph, step by step
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speak_neuro.export.modules.from_nir import from_nir
    from speak_neuro.export.modules.to_nir import reference_of, to_nir

__all__ = ["from_nir", "reference_of", "to_nir"]
_HOMES = {
    "from_nir": "speak_neuro.export.modules.from_nir",
    "reference_of": "speak_neuro.export.modules.to_nir",
    "to_nir": "speak_neuro.export.modules.to_nir",
}


def __getattr__(name: str) -> Any:
    """Loads torch and nirtorch when a name that needs them is asked for."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
