"""A NIR graph as a torch module that runs step by step: `out, state = net(x, state)`.

Neurons become one module each, `StepNeurons`, whose spikes and potentials are those of `export.graphs.network_run` on
the same currents, bit for bit: NIR's LIF and IF reset to v_reset at every spike and fire where u > v_threshold, so they
are the gated neuron with its gate open and the threshold at the next float. The order of the nodes and the edges that
close a cycle are `export.graphs.network`'s. `node_map` makes the map of nirtorch's own `nir_to_torch`, which runs
chains and simple loops, but not graphs with many nodes in one cycle, and does not add what leads to an Output.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from speak_neuro.export.files.nir_node import GatedResetLIF
from speak_neuro.export.graphs.layers import LANES, OPEN, Neurons, Relay
from speak_neuro.export.graphs.network import DT, Network, network_of

NEURON_NODES = (nir.Threshold, nir.I, nir.LI, nir.IF, nir.LIF, nir.CubaLI, nir.CubaLIF, GatedResetLIF)
State = tuple[Tensor, Tensor]


class StepNeurons(nn.Module):
    """One step of a layer of neurons of any NIR kind on (B, ...) inputs; `state` (v, i) is None at the start."""

    decay: Tensor
    gain: Tensor
    bias: Tensor
    threshold: Tensor
    reset_potential: Tensor
    soft_reset: Tensor
    gate_threshold: Tensor
    initial: Tensor
    syn_decay: Tensor
    syn_gain: Tensor

    def __init__(self, layer: Neurons, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.shape = layer, shape
        for name in _CONSTANTS:
            self.register_buffer(name, torch.from_numpy(np.array(getattr(layer, name))))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Spikes, or potentials where the node does not spike, and the state after them."""
        flat, n = x.reshape(len(x), -1), self.layer.size
        current = flat[:, :n]
        opened: Any = flat[:, n:] > self.gate_threshold if self.layer.gate == LANES else self.layer.gate == OPEN
        v, i = (self.initial.expand(len(x), -1), torch.zeros_like(current)) if state is None else state
        if self.syn_decay.numel():
            i = self.syn_decay * i + self.syn_gain * current
            current = i
        drive = self.gain * current
        if self.layer.bias.any():
            drive = drive + self.bias
        u = self.decay * v + drive
        if not self.layer.spiking:
            return u.reshape(len(x), *self.shape), (u, i)
        spikes = u >= self.threshold
        softly = u - self.soft_reset
        hard = self.reset_potential.expand_as(u)
        after = torch.where(opened, hard, softly) if isinstance(opened, Tensor) else (hard if opened else softly)
        return spikes.to(x.dtype).reshape(len(x), *self.shape), (torch.where(spikes, after, u), i)


_CONSTANTS = (
    "decay",
    "gain",
    "bias",
    "threshold",
    "reset_potential",
    "soft_reset",
    "gate_threshold",
    "initial",
    "syn_decay",
    "syn_gain",
)


class SequenceNeurons(StepNeurons):
    """The same for (B * T, ...) inputs, sequence after sequence: the form that sinabs' Squeeze layers have."""

    def __init__(self, layer: Neurons, shape: tuple[int, ...], *, batch: int | None, steps: int | None) -> None:
        super().__init__(layer, shape)
        self._batch, self._steps = batch, steps

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Spikes of every position, from no state."""
        rows = x.reshape(self._batch or -1, self._steps or len(x) // (self._batch or 1), *x.shape[1:])
        state: State | None = None
        found = []
        for t in range(rows.shape[1]):
            out, state = super().forward(rows[:, t], state)
            found.append(out)
        return torch.stack(found, dim=1).reshape(len(x), *self.shape)


class StepDelay(nn.Module):
    """Each element of (B, N) inputs some whole steps later."""

    def __init__(self, steps: Any) -> None:
        super().__init__()
        self.steps = torch.from_numpy(np.asarray(steps).astype(np.int64))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The delayed values and the past, newest first."""
        depth = int(self.steps.max()) + 1
        past = x.new_zeros(depth, *x.shape) if state is None else state
        past = torch.cat((x[None], past[:-1]))
        index = self.steps.expand_as(x)[None]
        return torch.gather(past, 0, index)[0], past


class SequenceDelay(nn.Module):
    """The same for (B * T, N) inputs, sequence after sequence."""

    def __init__(self, steps: Any, *, batch: int | None, steps_each: int | None) -> None:
        super().__init__()
        self.steps, self._batch, self._each = np.asarray(steps).astype(np.int64), batch, steps_each

    def forward(self, x: Tensor) -> Tensor:
        """The delayed values of every position."""
        rows = x.reshape(self._batch or -1, self._each or len(x) // (self._batch or 1), *x.shape[1:])
        found = torch.zeros_like(rows)
        for n, delay in enumerate(self.steps.tolist()):
            found[:, delay:, n] = rows[:, : rows.shape[1] - delay, n]
        return found.reshape(x.shape)


class Times(nn.Module):
    """x * s."""

    scale: Tensor

    def __init__(self, scale: Any) -> None:
        super().__init__()
        self.register_buffer("scale", torch.from_numpy(np.asarray(scale, dtype=np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, N)."""
        return x * self.scale


class GraphSteps(nn.Module):
    """The modules of a network's nodes, run in its order; (B, ...) in and out, `state` None at the start."""

    def __init__(self, network: Network, make: Callable[[Any], nn.Module]) -> None:
        super().__init__()
        self._network = network
        self._modules_of = {}
        for number, (name, layer) in enumerate(network.layers.items()):
            if not isinstance(layer, Relay):
                self._modules_of[name] = make(network.nodes[name])
                self.add_module(f"node_{number}", self._modules_of[name])

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """The output of one step, and the state for the next: of modules, and values that go round a cycle."""
        network = self._network
        values: dict[str, Tensor] = {}
        states, before = ({}, {}) if state is None else state
        after: dict[str, Any] = {}
        for name in network.layers:
            total = x if name == network.input else None
            for source in network.sources[name]:
                value = before.get(source.name) if source.delayed else values[source.name]
                if value is None:  # nothing has gone round yet
                    value = x.new_zeros(len(x), *network.shapes[source.name])
                total = value if total is None else total + value
            assert total is not None
            values[name] = total.reshape(len(x), *network.shapes[name]) if name not in self._modules_of else total
            if name in self._modules_of:
                module = self._modules_of[name]
                if isinstance(module, (StepNeurons, StepDelay)):
                    values[name], after[name] = module(total, states.get(name))
                else:
                    values[name] = module(total)
        kept = {s.name for sources in network.sources.values() for s in sources if s.delayed}
        return values[network.output], (after, {name: values[name] for name in kept})


def from_nir(graph: nir.NIRGraph, dt: float = DT) -> nn.Module:
    """The torch module of `graph`, stepped with `dt` seconds: `out, state = net(x, state)` on (B, ...) inputs.

    Raises a SpeakError with one line for anything that `export.graphs.network` refuses.
    """
    return GraphSteps(network_of(graph, dt), functools.partial(torch_module, dt=dt))


def node_map(dt: float = DT) -> dict[type, Callable[[Any], nn.Module]]:
    """The map of `nirtorch.nir_to_torch` that makes every node's module, exact at `dt` seconds a step."""
    return {kind: functools.partial(torch_module, dt=dt) for kind in (*NEURON_NODES, *_LINEAR)}


def torch_module(node: Any, dt: float = DT) -> nn.Module:
    """The module of one node."""
    if isinstance(node, NEURON_NODES):
        layer, shape = neurons_of(node, dt)
        return StepNeurons(layer, shape)
    return _LINEAR[type(node)](node)


def neurons_of(node: Any, dt: float = DT) -> tuple[Neurons, tuple[int, ...]]:
    """The layer of a node with a potential, and the shape that it gives."""
    nodes = {
        "input": nir.Input(input_type={"input": next(iter(node.input_type.values()))}),
        "node": node,
        "output": nir.Output(output_type={"output": next(iter(node.output_type.values()))}),
    }
    graph = nir.NIRGraph(nodes=nodes, edges=[("input", "node"), ("node", "output")], type_check=False)
    network = network_of(graph, dt)
    layer = network.layers["node"]
    assert isinstance(layer, Neurons)
    return layer, network.shapes["node"]


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float32))


def _linear(node: Any) -> nn.Module:
    layer = nn.Linear(node.weight.shape[1], node.weight.shape[0], bias=hasattr(node, "bias"))
    with torch.no_grad():
        layer.weight.copy_(_tensor(node.weight))
        if layer.bias is not None:
            layer.bias.copy_(_tensor(node.bias))
    return layer


def _whole(value: Any) -> Any:
    if isinstance(value, (str, bytes)):
        return value.decode() if isinstance(value, bytes) else value
    numbers = [int(n) for n in np.asarray(value).reshape(-1)]
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _conv(node: Any) -> nn.Module:
    kind = nn.Conv1d if isinstance(node, nir.Conv1d) else nn.Conv2d
    groups = int(np.asarray(node.groups))
    layer = kind(
        node.weight.shape[1] * groups,
        node.weight.shape[0],
        tuple(node.weight.shape[2:]),
        stride=_whole(node.stride),
        padding=_whole(node.padding),
        dilation=_whole(node.dilation),
        groups=groups,
    )
    with torch.no_grad():
        layer.weight.copy_(_tensor(node.weight))
        assert layer.bias is not None
        layer.bias.copy_(_tensor(node.bias))
    return layer


def _pool(node: Any) -> nn.Module:
    return nn.AvgPool2d(
        _whole(node.kernel_size),
        _whole(node.stride),
        _whole(node.padding),
        divisor_override=1 if isinstance(node, nir.SumPool2d) else None,
    )


def _flatten(node: Any) -> nn.Module:
    start, end = (int(d) + 1 if int(d) >= 0 else int(d) for d in (node.start_dim, node.end_dim))
    return nn.Flatten(start, end)


_LINEAR: dict[type, Callable[[Any], nn.Module]] = {
    nir.Affine: _linear,
    nir.Linear: _linear,
    nir.Conv1d: _conv,
    nir.Conv2d: _conv,
    nir.AvgPool2d: _pool,
    nir.SumPool2d: _pool,
    nir.Flatten: _flatten,
    nir.Scale: lambda node: Times(node.scale),
    nir.Delay: lambda node: StepDelay(node.delay),
}
