"""Runs a NIR graph in plain numpy, one step of the graph per position: a second reading of every file written here.

Nodes: Input, Output, Linear, Affine, Scale, Threshold, Delay (in steps), IF, LIF and GatedResetLIF. What NIR leaves
open is decided here, and no graph of this package depends on the first two:

    fan-in     sources are added in the order of their names
    feedback   going from the input along the edges, an edge that closes a cycle carries the value of the step before,
               and 0 at the first step; every other edge carries this step's value
    time       IF and LIF are stepped by forward Euler with `dt`:
               v <- v + (dt / tau) ((v_leak - v) + r x), or v + dt r x; a spike where v > v_threshold sets v to v_reset
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import nir
import numpy as np

from speak_neuro.common.array_types import Array
from speak_neuro.errors import SpeakError
from speak_neuro.export.files import nir_node
from speak_neuro.neuron.reference import NeuronParameters, gated_lif_step

Step = Callable[[Array], Array]
DT = 1e-4
"""Seconds per step, as snnTorch and others assume it for files that do not say."""


class Interpreter:
    """A graph with one Input and one Output, ready to step through B sequences at once."""

    def __init__(self, graph: nir.NIRGraph, batch: int = 1, dtype: type = np.float32, dt: float = DT) -> None:
        self.graph, self.dtype = graph, dtype
        ends = {}
        for kind in (nir.Input, nir.Output):
            names = [name for name, node in graph.nodes.items() if isinstance(node, kind)]
            if len(names) != 1:
                raise SpeakError(f"the graph has {len(names)} {kind.__name__} nodes; allowed: one")
            ends[kind] = names[0]
        self.input, self.output = ends[nir.Input], ends[nir.Output]
        self.feedback = feedback_edges(graph, self.input)
        self._sources = {name: sorted(s for s, t in graph.edges if t == name) for name in graph.nodes}
        self._order = order(graph, self.feedback)
        self._before: dict[str, Array] = {}
        for source, _ in self.feedback:
            width = int(np.prod(next(iter(graph.nodes[source].output_type.values()))))
            self._before[source] = np.zeros((batch, width), dtype=dtype)
        self._steps = {
            name: _step_of(name, node, batch, dtype, dt)
            for name, node in graph.nodes.items()
            if name not in (self.input, self.output)
        }

    def step(self, inputs: Array) -> dict[str, Array]:
        """One step: inputs (B, D) -> the value (B, width) of every node."""
        values: dict[str, Array] = {self.input: np.asarray(inputs, dtype=self.dtype)}
        for name in self._order:
            if name == self.input:
                continue
            total: Array | None = None
            for source in self._sources[name]:
                value = self._before[source] if (source, name) in self.feedback else values[source]
                total = value if total is None else total + value
            if total is None:
                raise SpeakError(f"node {name} has no input")
            values[name] = self._steps[name](total) if name in self._steps else total
        self._before = {source: values[source] for source in self._before}
        return values

    def run(self, inputs: Array, record: Sequence[str] = ()) -> dict[str, Array]:
        """All positions: inputs (B, L, D) -> the output, and the nodes named in `record`, (B, L, width) by name."""
        names = [self.output, *record]
        seen: dict[str, list[Array]] = {name: [] for name in names}
        for position in range(inputs.shape[1]):
            values = self.step(inputs[:, position])
            for name in names:
                seen[name].append(values[name])
        return {name: np.stack(rows, axis=1) for name, rows in seen.items()}


def feedback_edges(graph: Any, start: str) -> set[tuple[str, str]]:
    """Edges that close a cycle on the way from `start`, successors taken in the order of their names."""
    successors = {name: sorted(t for s, t in graph.edges if s == name) for name in graph.nodes}
    closing: set[tuple[str, str]] = set()
    state: dict[str, int] = {}
    for root in (start, *sorted(graph.nodes)):
        if root in state:
            continue
        path, state[root] = [(root, iter(successors[root]))], 1
        while path:
            name, following = path[-1]
            target = next(following, None)
            if target is None:
                state[name] = 2
                path.pop()
            elif state.get(target) == 1:
                closing.add((name, target))
            elif target not in state:
                state[target] = 1
                path.append((target, iter(successors[target])))
    return closing


def order(graph: Any, feedback: set[tuple[str, str]]) -> list[str]:
    """Every node after the sources whose value of this step it takes."""
    waiting = dict.fromkeys(graph.nodes, 0)
    edges = [edge for edge in graph.edges if tuple(edge) not in feedback]
    for _, target in edges:
        waiting[target] += 1
    ready = sorted((name for name, count in waiting.items() if count == 0), reverse=True)
    order = []
    while ready:
        name = ready.pop()
        order.append(name)
        for source, target in edges:
            if source == name:
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
    return order


def _step_of(name: str, node: Any, batch: int, dtype: type, dt: float) -> Step:
    def cast(value: Any) -> Array:
        return np.asarray(value, dtype=dtype)

    if isinstance(node, nir.Affine):
        weight, bias = cast(node.weight).T, cast(node.bias)
        return lambda x: x @ weight + bias
    if isinstance(node, nir.Linear):
        weight = cast(node.weight).T
        return lambda x: x @ weight
    if isinstance(node, nir.Scale):
        scale = cast(node.scale)
        return lambda x: x * scale
    if isinstance(node, nir.Threshold):
        threshold = cast(node.threshold)
        return lambda x: (x > threshold).astype(dtype)
    if isinstance(node, nir.Delay):
        return _delay(np.asarray(node.delay), batch, dtype)
    if isinstance(node, nir.LIF):
        share = cast(dt / np.asarray(node.tau, dtype=np.float64))
        leak, resistance = cast(node.v_leak), cast(node.r)
        return _stock_neuron(node, batch, dtype, lambda v, x: v + share * ((leak - v) + resistance * x))
    if isinstance(node, nir.IF):
        gain = cast(dt * np.asarray(node.r, dtype=np.float64))
        return _stock_neuron(node, batch, dtype, lambda v, x: v + gain * x)
    if isinstance(node, nir_node.GatedResetLIF):
        if dtype is not np.float32:
            raise SpeakError(f"node {name}: a GatedResetLIF computes in float32; allowed: dtype float32")
        return _gated_neuron(node, batch)
    raise SpeakError(f"node {name} is a {type(node).__name__}, which this interpreter does not know")


def _delay(delay: Array, batch: int, dtype: type) -> Step:
    steps = np.round(delay).astype(np.int64)
    if (steps != delay).any() or (steps < 0).any():
        raise SpeakError(f"a Delay of {delay.min()} to {delay.max()}; allowed: whole steps")
    past: Array = np.zeros((int(steps.max(initial=0)) + 1, batch, steps.size), dtype=dtype)
    columns = np.arange(steps.size)

    def step(x: Array) -> Array:
        past[1:] = past[:-1].copy()
        past[0] = x
        return np.asarray(past[steps, :, columns].T)

    return step


def _stock_neuron(node: Any, batch: int, dtype: type, integrate: Callable[[Array, Array], Array]) -> Step:
    threshold: Array = np.asarray(node.v_threshold, dtype=dtype)
    reset: Array = np.asarray(node.v_reset, dtype=dtype)
    v: Array = np.zeros((batch, threshold.size), dtype=dtype)
    if hasattr(node, "v_leak"):
        v += np.asarray(node.v_leak, dtype=dtype)

    def step(x: Array) -> Array:
        nonlocal v
        u = integrate(v, x)
        fired = u > threshold
        v = np.where(fired, reset, u)
        return fired.astype(dtype)

    return step


def _gated_neuron(node: nir_node.GatedResetLIF, batch: int) -> Step:
    parameters = NeuronParameters(
        decay=node.decay,
        gain=node.gain,
        threshold=node.v_threshold,
        reset_potential=node.v_reset,
        reset_scale=node.reset_scale,
    )
    if node.spec_version > 1:
        raise SpeakError("a GatedResetLIF with a constant gate or the shape of a picture: see `graphs.network`")
    state = np.repeat(node.v_reset[None], batch, axis=0)

    def step(lanes: Array) -> Array:
        nonlocal state
        current, logit = np.split(lanes, 2, axis=1)
        gate = np.where(logit > node.gate_threshold, 1, -1).astype(np.float32)
        fired, _, state = gated_lif_step(current, gate, state, parameters)
        return fired.astype(np.float32)

    return step
