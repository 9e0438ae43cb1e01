"""sinabs reading our graphs: `net = from_nir(graph, batch_size=B)`, then `out, _ = net(x)` with (B * T, ...) inputs.

`sinabs.nir.from_nir` leaves out a node that it does not know, in silence, and its own LIF decays exponentially and
subtracts. Here every neuron comes from this package, exactly, and everything else from sinabs; a node that neither
knows is an error. sinabs runs layer after layer over the whole sequence, which a graph with a cycle cannot: such a
graph is one module that goes through the sequence step by step (`RecurrentGraph`), as sinabs' own recurrent layers do.
"""

from __future__ import annotations

import functools
from typing import Any

import nir
import nirtorch
import torch
from torch import Tensor, nn

from speak_neuro.errors import MissingExtra, SpeakError
from speak_neuro.export.graphs.network import DT, Network, network_of
from speak_neuro.export.modules.from_nir import (
    NEURON_NODES,
    GraphSteps,
    SequenceDelay,
    SequenceNeurons,
    neurons_of,
    torch_module,
)

OURS = ("Scale", "AvgPool2d", "SumPool2d", "Linear")
"""What sinabs lacks; its own SumPool2d drops the padding."""


def sinabs_module(node: Any, batch_size: int | None, num_timesteps: int | None, dt: float = DT) -> nn.Module:
    """The module of one node: ours for neurons and `OURS`, sinabs' for the rest."""
    from sinabs.nir import _import_sinabs_module

    if isinstance(node, NEURON_NODES):
        layer, shape = neurons_of(node, dt)
        return SequenceNeurons(layer, shape, batch=batch_size, steps=num_timesteps)
    if isinstance(node, nir.Delay):
        return SequenceDelay(node.delay, batch=batch_size, steps_each=num_timesteps)
    if type(node).__name__ in OURS:
        return torch_module(node, dt)
    found: nn.Module | None = _import_sinabs_module(node, batch_size, num_timesteps)
    if found is None:
        raise SpeakError(f"sinabs has no module for a {type(node).__name__} and would leave it out")
    return found


class RecurrentGraph(nn.Module):
    """A network with cycles on (B * T, ...) inputs, sequence after sequence; its weights' modules are sinabs'."""

    def __init__(self, network: Network, batch_size: int | None, num_timesteps: int | None, dt: float) -> None:
        super().__init__()
        self._batch, self._steps = batch_size, num_timesteps

        def make(node: Any) -> nn.Module:
            stateful = isinstance(node, (*NEURON_NODES, nir.Delay))
            return torch_module(node, dt) if stateful else sinabs_module(node, batch_size, num_timesteps, dt)

        self.steps = GraphSteps(network, make)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        """Outputs of every position, from no state, and the state after the last."""
        rows = x.reshape(self._batch or -1, self._steps or len(x) // (self._batch or 1), *x.shape[1:])
        state: Any = None
        found = []
        for t in range(rows.shape[1]):
            out, state = self.steps(rows[:, t], state)
            found.append(out)
        return torch.stack(found, dim=1).flatten(0, 1), state


def from_nir(
    graph: nir.NIRGraph, batch_size: int | None = None, num_timesteps: int | None = None, dt: float = DT
) -> nn.Module:
    """The sinabs module of `graph`, stepped with `dt` seconds; one of `batch_size` and `num_timesteps` must be
    given."""
    try:
        import sinabs.nir  # noqa: F401
    except ImportError as error:
        raise MissingExtra("sinabs is not installed: pip install --no-deps sinabs==3.1.3 pbr") from error
    if batch_size is None and num_timesteps is None:
        raise SpeakError("batch_size and num_timesteps are both None; allowed: at least one, to tell sequences apart")
    network = network_of(graph, dt)
    if any(source.delayed for sources in network.sources.values() for source in sources):
        return RecurrentGraph(network, batch_size, num_timesteps, dt)
    kinds = {type(node) for node in graph.nodes.values()} - {nir.Input, nir.Output}
    make = functools.partial(sinabs_module, batch_size=batch_size, num_timesteps=num_timesteps, dt=dt)
    return nirtorch.nir_to_torch(graph, dict.fromkeys(kinds, make))
