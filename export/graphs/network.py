"""A NIR graph as a network of layers: flattened, checked, every shape known. Needs no torch.

Nodes: Input, Output, Linear, Affine, Scale, Conv1d, Conv2d, SumPool2d, AvgPool2d, Flatten, Delay (in steps),
Threshold, I, LI, IF, LIF, CubaLI, CubaLIF and GatedResetLIF; graphs within the graph with one Input and one Output.
What NIR leaves open:

    time       forward Euler with `dt`, in the form decay * v + gain * x:  decay = 1 - dt / tau,  gain = r dt / tau
               (IF: r dt), taken
               in float64 and rounded to float32 once. So files that hold tau and r in float64 give the trained decay
               back
    current    a CubaLIF's potential takes the current of the same step
    start      v = v_leak (0 without), a GatedResetLIF's v_reset
    fan-in     sources are added in the order of their names
    feedback   going from the input along the edges, an edge that closes a cycle carries the value of the step before,
               0 at the first step

Nothing is broadcast: a node takes the shape that its sources give, or the graph is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np

from speak_neuro.errors import SpeakError
from speak_neuro.export.graphs.layers import Layer, Neurons
from speak_neuro.export.graphs.node_layers import Shape, Through, layer_of, text_of

DT = 1e-4
"""Seconds per step, as snnTorch and others assume it for files that do not say."""


@dataclass(frozen=True)
class Source:
    """Where a layer's input comes from."""

    name: str
    delayed: bool
    """Whether it is the value of the step before: the edge closes a cycle."""


@dataclass(frozen=True)
class Network:
    """Layers by name, each after the layers whose value of the same step it takes."""

    layers: dict[str, Layer]
    sources: dict[str, tuple[Source, ...]]
    """Sorted by name; added in this order."""
    shapes: dict[str, Shape]
    """Of each layer's output, without the batch."""
    kinds: dict[str, str]
    """The NIR type of each layer's node."""
    input: str
    output: str
    nodes: dict[str, Any] = field(default_factory=dict)
    """The NIR nodes, by the same names."""

    def neurons(self) -> list[str]:
        """Names of the layers that spike or integrate."""
        return [name for name, layer in self.layers.items() if isinstance(layer, Neurons)]

    def width(self, name: str) -> int:
        """Numbers that a layer gives."""
        return int(np.prod(self.shapes[name]))


@dataclass(frozen=True)
class _Flat:
    nodes: dict[str, Any]
    edges: list[tuple[str, str]]


def network_of(graph: nir.NIRGraph, dt: float = DT) -> Network:
    """The layers of `graph`, stepped with `dt` seconds; a SpeakError in one line for anything that is not exactly
    known."""
    if not 0 < dt < float("inf"):
        raise SpeakError(f"dt is {dt}; allowed: a positive number of seconds")
    flat = _flatten(graph)
    ends = {kind: [n for n, node in flat.nodes.items() if type(node) is kind] for kind in (nir.Input, nir.Output)}
    for kind, names in ends.items():
        if len(names) != 1:
            raise SpeakError(
                f"the graph has {len(names)} {kind.__name__} nodes ({', '.join(sorted(names))}); allowed: "
                "one, of one graph"
            )
    first, last = ends[nir.Input][0], ends[nir.Output][0]
    _check_edges(flat, first, last)
    feedback = feedback_edges(flat, first)
    sources = {
        name: tuple(Source(s, (s, name) in feedback) for s in sorted(s for s, t in flat.edges if t == name))
        for name in flat.nodes
    }
    names = order(flat, feedback)
    layers: dict[str, Layer] = {}
    shapes: dict[str, Shape] = {}
    for name in names:
        node = flat.nodes[name]
        _check_numbers(name, node)
        incoming = _incoming(name, node, sources[name], shapes)
        try:
            layers[name], shapes[name] = layer_of(name, node, incoming, dt)
        except (AttributeError, IndexError, TypeError) as error:
            raise SpeakError(f"node {name}: its fields do not fit a {type(node).__name__} ({error})") from error
    for name in names:  # a source that closes a cycle was not known before
        for source in sources[name]:
            given, taken = shapes[source.name], _taken(layers[name], shapes, sources, name)
            if source.delayed and given != taken:
                raise SpeakError(f"node {name} takes {text_of(taken)} values, {source.name} gives {text_of(given)}")
    return Network(
        layers={name: layers[name] for name in names},
        sources=sources,
        shapes=shapes,
        kinds={name: type(flat.nodes[name]).__name__ for name in names},
        input=first,
        output=last,
        nodes=flat.nodes,
    )


def _flatten(graph: Any) -> _Flat:
    """Graphs within graphs become nodes with dotted names."""
    if not isinstance(graph, nir.NIRGraph):
        raise SpeakError(f"found a {type(graph).__name__}; allowed: a NIRGraph")
    nodes: dict[str, Any] = {}
    ends: dict[str, tuple[str, str]] = {}
    edges: list[tuple[str, str]] = []
    for name, node in graph.nodes.items():
        if not isinstance(node, nir.NIRGraph):
            nodes[name] = node
            continue
        inner = _flatten(node)
        found = [[n for n, m in inner.nodes.items() if type(m) is kind] for kind in (nir.Input, nir.Output)]
        if any(len(names) != 1 for names in found):
            raise SpeakError(
                f"the graph {name} within the graph has {len(found[0])} inputs and {len(found[1])} outputs; "
                "allowed: one each"
            )
        ends[name] = (f"{name}.{found[0][0]}", f"{name}.{found[1][0]}")
        for n, m in inner.nodes.items():
            nodes[f"{name}.{n}"] = nir.Flatten(input_type=None) if n in (found[0][0], found[1][0]) else m
        edges += [(f"{name}.{s}", f"{name}.{t}") for s, t in inner.edges]
    for s, t in graph.edges:
        edges.append((ends[s][1] if s in ends else s, ends[t][0] if t in ends else t))
    for end in itertools.chain.from_iterable(ends.values()):
        nodes[end] = Through()
    return _Flat(nodes, edges)


def _check_edges(flat: _Flat, first: str, last: str) -> None:
    for s, t in flat.edges:
        for name in (s, t):
            if name not in flat.nodes:
                raise SpeakError(f"the edge {s} -> {t} names a node {name} that the graph lacks")
    if len(set(flat.edges)) != len(flat.edges):
        doubled = next(edge for edge in flat.edges if flat.edges.count(edge) > 1)
        raise SpeakError(f"the edge {doubled[0]} -> {doubled[1]} is there twice; readers count it once or twice")
    for name in flat.nodes:
        if name != first and not any(t == name for _, t in flat.edges):
            raise SpeakError(f"node {name} has no input: two graphs in one file, or an edge is missing")
        if name != last and not any(s == name for s, _ in flat.edges):
            raise SpeakError(f"node {name} leads nowhere: two graphs in one file, or an edge is missing")
    reached, following = set(), [first]
    while following:
        name = following.pop()
        if name not in reached:
            reached.add(name)
            following += [t for s, t in flat.edges if s == name]
    if left := sorted(set(flat.nodes) - reached):
        raise SpeakError(f"nodes {', '.join(left)} are not reached from the input: two graphs in one file?")


def _check_numbers(name: str, node: Any) -> None:
    for name_of, value in vars(node).items():
        array = np.asarray(value) if isinstance(value, (np.ndarray, float, int)) else None
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise SpeakError(f"node {name}: {name_of} holds NaN or infinity; allowed: finite numbers")


def _incoming(name: str, node: Any, sources: tuple[Source, ...], shapes: Mapping[str, Shape]) -> Shape:
    """The shape that all sources of this step agree on; an Input's own."""
    if isinstance(node, nir.Input):
        given = next(iter(node.input_type.values()))
        if given is None:
            raise SpeakError(f"node {name} does not say what shape goes in")
        return tuple(int(n) for n in np.asarray(given).reshape(-1))
    known = {source.name: shapes[source.name] for source in sources if not source.delayed}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{source} gives {text_of(shape)}" for source, shape in known.items())
        raise SpeakError(f"node {name}: its sources differ in shape ({listed}); nothing is broadcast")
    return next(iter(known.values()))


def _taken(layer: Layer, shapes: Mapping[str, Shape], sources: Mapping[str, tuple[Source, ...]], name: str) -> Shape:
    known = [shapes[source.name] for source in sources[name] if not source.delayed]
    return known[0] if known else shapes[name]


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
