"""NIR graphs in Lava: parity of tokenizers, verification of networks. Importing this loads neither torch nor Lava.

verify(graph, inputs, reference=None)   every layer of neurons compared with Lava's
simulate(graph, inputs)                 a run in Lava alone
save_reference(path, reference)         a module's run as a file, for `speak-sim verify --reference`
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speak_neuro.sim.networks.reference_file import save_reference
    from speak_neuro.sim.networks.verify import simulate, verify

__all__ = ["save_reference", "simulate", "verify"]
_HOMES = {
    "save_reference": "speak_neuro.sim.networks.reference_file",
    "simulate": "speak_neuro.sim.networks.verify",
    "verify": "speak_neuro.sim.networks.verify",
}


def __getattr__(name: str) -> Any:
    """Loads nir when a name that needs it is asked for."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
