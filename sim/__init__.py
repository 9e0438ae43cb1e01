"""NIR graphs in Lava: parity reports for tokenizers, verification of networks. Importing this package loads neither
torch nor Lava.

verify(graph, inputs, reference=None)   every layer of neurons compared with Lava's
simulate(graph, inputs)                 a run in Lava alone
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speak_neuro.sim.networks.verify import simulate, verify

__all__ = ["simulate", "verify"]


def __getattr__(name: str) -> Any:
    """Loads nir when a name that needs it is asked for."""
    if name in __all__:
        return getattr(importlib.import_module("speak_neuro.sim.networks.verify"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
