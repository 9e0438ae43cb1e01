"""norse reading our graphs: `net = from_nir(graph)`, then `out, state = net(x, state)` step by step.

`norse.torch.from_nir` maps a node that it does not know to nothing, and nothing is left out in silence: the neuron is
gone and raw currents come out; it takes r for 1 and v_reset for 0, and its executor (nirtorch.load) mistakes the
order of graphs with a skip. Here every neuron comes from this package, exactly, and everything else from norse; a
node that neither knows is an error.
"""

from __future__ import annotations

import functools
from typing import Any

import nir
from torch import nn

from speak_neuro.errors import MissingExtra, SpeakError
from speak_neuro.export.graphs.network import DT, network_of
from speak_neuro.export.modules.from_nir import GraphSteps, torch_module

OURS = (
    "GatedResetLIF",
    "LIF",
    "IF",
    "CubaLIF",
    "LI",
    "I",
    "CubaLI",
    "Threshold",
    "Scale",
    "Delay",
    "AvgPool2d",
    "SumPool2d",
    "Linear",
    "Flatten",
)
"""Neurons; what norse lacks (Threshold, Scale, Delay, AvgPool2d); what it gets wrong (Linear's shape, Flatten's
axes)."""


def norse_module(node: Any, dt: float = DT) -> nn.Module:
    """The module of one node: ours for `OURS`, norse's for the rest."""
    from norse.torch.utils.import_nir import _import_norse_module

    if type(node).__name__ in OURS:
        return torch_module(node, dt)
    found: nn.Module | None = _import_norse_module(node, dt=dt)
    if found is None:
        raise SpeakError(f"norse has no module for a {type(node).__name__} and would leave it out")
    return found


def from_nir(graph: nir.NIRGraph, dt: float = DT) -> nn.Module:
    """The norse module of `graph`, stepped with `dt` seconds."""
    try:
        import norse.torch  # noqa: F401
    except ImportError as error:
        raise MissingExtra("norse is not installed: pip install --no-deps norse==1.1.0") from error
    return GraphSteps(network_of(graph, dt), functools.partial(norse_module, dt=dt))
