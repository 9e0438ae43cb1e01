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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.export.files import nir_node
from speak_neuro.export.graphs.interpreter import DT, feedback_edges, order
from speak_neuro.export.graphs.layers import OPEN, Convolution, Delay, Dense, Layer, Neurons, Relay, Scale

Shape = tuple[int, ...]
NEURONS = ("I", "LI", "IF", "LIF", "CubaLI", "CubaLIF", "GatedResetLIF", "Threshold")


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
            layers[name], shapes[name] = _layer(name, node, incoming, dt)
        except (AttributeError, IndexError, TypeError) as error:
            raise SpeakError(f"node {name}: its fields do not fit a {type(node).__name__} ({error})") from error
    for name in names:  # a source that closes a cycle was not known before
        for source in sources[name]:
            given, taken = shapes[source.name], _taken(layers[name], shapes, sources, name)
            if source.delayed and given != taken:
                raise SpeakError(f"node {name} takes {_text(taken)} values, {source.name} gives {_text(given)}")
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
        nodes[end] = _Through()
    return _Flat(nodes, edges)


class _Through:
    """The Input or Output of a graph within the graph."""


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
        listed = ", ".join(f"{source} gives {_text(shape)}" for source, shape in known.items())
        raise SpeakError(f"node {name}: its sources differ in shape ({listed}); nothing is broadcast")
    return next(iter(known.values()))


def _taken(layer: Layer, shapes: Mapping[str, Shape], sources: Mapping[str, tuple[Source, ...]], name: str) -> Shape:
    known = [shapes[source.name] for source in sources[name] if not source.delayed]
    return known[0] if known else shapes[name]


def _layer(name: str, node: Any, shape: Shape, dt: float) -> tuple[Layer, Shape]:
    """The layer and the shape it gives."""
    kind = type(node)
    if kind in (nir.Input, nir.Output, _Through):
        return Relay(), shape
    if kind is nir.Flatten:
        return Relay(), _flattened(name, node, shape)
    if kind in (nir.Affine, nir.Linear):
        return _dense(name, node, shape)
    if kind is nir.Scale:
        return Scale(_like(name, "scale", node.scale, shape).astype(np.float32)), shape
    if kind in (nir.Conv1d, nir.Conv2d):
        return _convolution(name, node, shape)
    if kind in (nir.SumPool2d, nir.AvgPool2d):
        return _pooling(name, node, shape)
    if kind is nir.Delay:
        steps = _like(name, "delay", node.delay, shape)
        if (steps != np.round(steps)).any() or (steps < 0).any():
            raise SpeakError(f"node {name}: delays of {steps.min():g} to {steps.max():g}; allowed: whole steps")
        return Delay(steps.astype(np.int64)), shape
    if kind.__name__ in NEURONS:
        return _neurons(name, node, shape, dt)
    raise SpeakError(
        f"node {name} is a {kind.__name__}; allowed: Input, Output, Linear, Affine, Scale, Conv1d, Conv2d, SumPool2d, "
        f"AvgPool2d, Flatten, Delay, {', '.join(NEURONS)}"
    )


def _like(name: str, field: str, value: Any, shape: Shape) -> npt.NDArray[Any]:
    array = np.asarray(value)
    if array.shape != shape:
        raise SpeakError(
            f"node {name}: {field} has shape {_text(array.shape)}, its input {_text(shape)}; nothing is broadcast"
        )
    return array.reshape(-1)


def _flattened(name: str, node: Any, shape: Shape) -> Shape:
    size = len(shape)
    start, end = (int(d) % size if -size <= int(d) < size else None for d in (node.start_dim, node.end_dim))
    if start is None or end is None or start > end:
        raise SpeakError(
            f"node {name}: flattens dimensions {node.start_dim} to {node.end_dim} of a shape {_text(shape)} "
            "(no batch in it)"
        )
    return (*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])


def _dense(name: str, node: Any, shape: Shape) -> tuple[Layer, Shape]:
    weight = np.asarray(node.weight, dtype=np.float32)
    if weight.ndim != 2 or shape != (weight.shape[1],):
        raise SpeakError(f"node {name}: weights of shape {_text(weight.shape)} cannot take {_text(shape)} values")
    bias = np.asarray(getattr(node, "bias", np.zeros(len(weight))), dtype=np.float32)
    if bias.shape != (len(weight),):
        raise SpeakError(f"node {name}: bias has shape {_text(bias.shape)}; allowed: ({len(weight)},)")
    return Dense(weight, bias), (len(weight),)


def _pair(value: Any, dimensions: int) -> tuple[int, ...]:
    numbers = np.asarray(value).reshape(-1)
    return tuple(int(n) for n in (np.repeat(numbers, dimensions) if numbers.size == 1 else numbers))


def _convolution(name: str, node: Any, shape: Shape) -> tuple[Layer, Shape]:
    weight = np.asarray(node.weight, dtype=np.float32)
    dimensions, groups = weight.ndim - 2, int(np.asarray(node.groups).reshape(-1)[0])
    if len(shape) != dimensions + 1 or shape[0] != weight.shape[1] * groups:
        raise SpeakError(
            f"node {name}: weights of shape {_text(weight.shape)} in {groups} group(s) cannot take "
            f"{_text(shape)} values"
        )
    kernel = weight.shape[2:]
    stride, dilation = _pair(node.stride, dimensions), _pair(node.dilation, dimensions)
    padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
    before = after = (0,) * dimensions
    if isinstance(padding, str):
        if padding == "same":
            total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            before, after = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    else:
        before = after = _pair(padding, dimensions)
    index, positions = _patches(shape, kernel, stride, dilation, before, after, groups)
    bias = np.broadcast_to(np.asarray(node.bias, dtype=np.float32).reshape(-1), (len(weight),)).copy()
    taps = weight.reshape(groups, len(weight) // groups, -1)
    return Convolution(index, taps, bias, int(np.prod(shape))), (len(weight), *positions)


def _pooling(name: str, node: Any, shape: Shape) -> tuple[Layer, Shape]:
    if len(shape) != 3:
        raise SpeakError(f"node {name}: pools pictures (channels, height, width), its input has shape {_text(shape)}")
    kernel, stride, padding = (_pair(value, 2) for value in (node.kernel_size, node.stride, node.padding))
    index, positions = _patches(shape, kernel, stride, (1, 1), padding, padding, shape[0])
    share = 1.0 if isinstance(node, nir.SumPool2d) else 1.0 / np.prod(kernel)
    weight = np.full((shape[0], 1, int(np.prod(kernel))), share, dtype=np.float32)
    bias = np.zeros(shape[0], dtype=np.float32)
    return Convolution(index, weight, bias, int(np.prod(shape))), (shape[0], *positions)


def _patches(
    shape: Shape,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    before: tuple[int, ...],
    after: tuple[int, ...],
    groups: int,
) -> tuple[npt.NDArray[np.int64], tuple[int, ...]]:
    """The flat input under each tap at each position (groups, positions, taps), and the picture's new size."""
    size = shape[1:]
    count = tuple(
        (n + b + a - d * (k - 1) - 1) // s + 1
        for n, b, a, d, k, s in zip(size, before, after, dilation, kernel, stride, strict=True)
    )
    if min(count) < 1:
        raise SpeakError(f"a kernel of {_text(kernel)} does not fit a picture of {_text(size)}")
    channels = shape[0] // groups
    total = int(np.prod(shape))
    flat = np.zeros((*count, channels, *kernel), dtype=np.int64)
    inside = np.ones(flat.shape, dtype=np.bool_)
    dimensions = len(size)
    for axis in range(dimensions):
        at = np.arange(count[axis])[:, None] * stride[axis] + np.arange(kernel[axis]) * dilation[axis] - before[axis]
        spread = [1] * flat.ndim
        spread[axis], spread[dimensions + 1 + axis] = count[axis], kernel[axis]
        at = at.reshape(spread)
        inside &= (at >= 0) & (at < size[axis])
        flat = flat * size[axis] + at
    area = int(np.prod(size))
    flat = flat + np.arange(channels).reshape((channels,) + (1,) * dimensions) * area
    positions = int(np.prod(count))
    by_group = flat.reshape(1, positions, -1) + np.arange(groups)[:, None, None] * channels * area
    return np.where(inside.reshape(1, positions, -1), by_group, total), count


def _neurons(name: str, node: Any, shape: Shape, dt: float) -> tuple[Layer, Shape]:
    """Any node with a potential, in the form of `layers.Neurons`."""

    def get(field: str) -> npt.NDArray[np.float64]:
        return _like(name, field, getattr(node, field), shape).astype(np.float64)

    if isinstance(node, nir_node.GatedResetLIF):
        return _gated(name, node, shape)
    if isinstance(node, nir.Threshold):
        threshold = get("threshold")
        ones, zeros = np.ones_like(threshold), np.zeros_like(threshold)
        return _stock(zeros, ones, zeros, threshold, zeros, zeros), shape
    spiking = type(node).__name__.endswith("F")
    if isinstance(node, (nir.I, nir.IF)):
        r = get("r")
        decay, gain, leak = np.ones_like(r), dt * r, np.zeros_like(r)
    else:
        cuba = isinstance(node, (nir.CubaLI, nir.CubaLIF))
        tau, r, leak = get("tau_mem" if cuba else "tau"), get("r"), get("v_leak")
        decay, gain = _share(name, "tau", tau, dt), r * dt / tau
    unit = 1 - decay
    threshold = get("v_threshold") if spiking else np.ones_like(decay)
    reset = get("v_reset") if spiking else np.zeros_like(decay)
    synapse: tuple[npt.NDArray[np.float64], ...] = ()
    if isinstance(node, (nir.CubaLI, nir.CubaLIF)):
        tau_syn = get("tau_syn")
        synapse = (_share(name, "tau_syn", tau_syn, dt), get("w_in") * dt / tau_syn)
    if spiking and (threshold <= reset).any():
        raise SpeakError(f"node {name}: v_threshold is not above v_reset everywhere")
    return _stock(decay, gain, leak * unit, threshold, reset, leak, *synapse, spiking=spiking), shape


def _share(name: str, field: str, tau: npt.NDArray[np.float64], dt: float) -> npt.NDArray[np.float64]:
    if (tau < dt).any():
        raise SpeakError(f"node {name}: {field} is {tau.min():g} s, the step {dt:g} s; allowed: at least a step")
    return 1 - dt / tau


def _stock(
    decay: npt.NDArray[np.float64],
    gain: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
    threshold: npt.NDArray[np.float64],
    reset: npt.NDArray[np.float64],
    initial: npt.NDArray[np.float64],
    *synapse: npt.NDArray[np.float64],
    spiking: bool = True,
) -> Neurons:
    """NIR's stock neurons: u > v_threshold is u >= the next float, and every spike resets to v_reset."""
    single: Callable[[Any], npt.NDArray[np.float32]] = lambda value: np.asarray(value, dtype=np.float32)  # noqa: E731
    own = {"syn_decay": single(synapse[0]), "syn_gain": single(synapse[1])} if synapse else {}
    return Neurons(
        decay=single(decay),
        gain=single(gain),
        bias=single(bias),
        threshold=np.nextafter(single(threshold), np.float32(np.inf)),
        reset_potential=single(reset),
        soft_reset=np.zeros_like(single(decay)),
        gate_threshold=np.zeros_like(single(decay)),
        initial=single(initial),
        gate=OPEN,
        spiking=spiking,
        **own,
    )


def _gated(name: str, node: nir_node.GatedResetLIF, shape: Shape) -> tuple[Layer, Shape]:
    taken = tuple(int(n) for n in next(iter(node.input_type.values())))
    if taken != shape:
        raise SpeakError(
            f"node {name} takes {_text(taken)} values (lanes [current | gate logit]), its sources give {_text(shape)}; "
            "nothing is broadcast"
        )
    values = {field: np.asarray(getattr(node, field)).reshape(-1) for field in nir_node.FIELDS}
    layer = Neurons(
        decay=values["decay"],
        gain=values["gain"],
        bias=np.zeros_like(values["decay"]),
        threshold=values["v_threshold"],
        reset_potential=values["v_reset"],
        soft_reset=np.multiply(values["reset_scale"], values["v_threshold"], dtype=np.float32),
        gate_threshold=values["gate_threshold"],
        initial=values["v_reset"],
        gate=int(getattr(node, "gate", 0)),
    )
    return layer, np.asarray(node.decay).shape


def _text(shape: Any) -> str:
    return "(" + ", ".join(str(int(n)) for n in shape) + ("," if len(shape) == 1 else "") + ")"
