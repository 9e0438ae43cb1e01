"""A training module as a NIR graph, exact or refused, and its run as the reference for `speak_neuro.sim.verify`.

    graph = to_nir(net, sample)                    a NIRGraph; `write_graph(path, graph)` writes it
    reference = reference_of(net, sample, graph)   what each layer of neurons took and did, by the graph's names

After tracing, the graph is compared with a run of the module on the sample: what goes into each layer must be the sum
of what its sources give, and every neuron must spike as its node's equation says on the module's own currents.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import nir
import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from speak_neuro.errors import SpeakError
from speak_neuro.export.graphs.layers import LINEAR, Neurons, advance, start
from speak_neuro.export.graphs.network import Network, network_of
from speak_neuro.export.graphs.network_run import LayerRun
from speak_neuro.export.modules.nodes import STATEFUL, Shape, UnsupportedLayer, check_runnable, piece_of
from speak_neuro.export.modules.record import Record, record_run
from speak_neuro.export.modules.trace import Signal, Wiring, trace

Array = npt.NDArray[Any]
LINEAR_NODES = (nir.Affine, nir.Linear, nir.Conv1d, nir.Conv2d)
CLOSE = 1e-4
"""Sums of another order agree to this share of the largest value."""


class WrongGraph(SpeakError):
    """The traced graph does not compute what the module computes."""


@dataclass
class _Built:
    nodes: dict[str, Any]
    edges: set[tuple[str, str]]
    names: dict[str, str]
    """From a module's qualified name to its node's."""
    backs: dict[str, Any] = field(default_factory=dict)
    """By a recurrent layer's name what leads from its spikes back, with its bias."""
    moved: dict[str, Array] = field(default_factory=dict)
    """By a linear layer's name the bias that it got from the recurrent layer after it."""


def to_nir(module: nn.Module, sample: Tensor, metadata: dict[str, str | int | float] | None = None) -> nir.NIRGraph:
    """The NIR graph of `module`, which `sample` (B, T, ...) shows at work; see `export.modules.record` for calling
    styles.

    Raises a SpeakError with one line for a layer that NIR cannot say exactly and for a forward that cannot be read.
    """
    return _graph_and_reference(module, sample, metadata)[0]


def reference_of(module: nn.Module, sample: Tensor) -> dict[str, LayerRun]:
    """The module's run on `sample`, by the names of `to_nir`'s nodes: the reference for `speak_neuro.sim.verify`."""
    return _graph_and_reference(module, sample, None)[1]


def _graph_and_reference(
    module: nn.Module, sample: Tensor, metadata: dict[str, str | int | float] | None
) -> tuple[nir.NIRGraph, dict[str, LayerRun]]:
    check_runnable(module)
    wiring, record = trace(module), record_run(module, sample)
    if "" in record.outputs:  # the module is one layer
        record = replace(
            record,
            inputs={"layer": record.inputs[""]},
            outputs={"layer": record.outputs[""]},
            membranes=dict.fromkeys(["layer"] if record.membranes else [], record.membranes.get("")),  # type: ignore[arg-type]
        )
    built = _build(wiring, record, tuple(sample.shape[2:]))
    graph = nir.NIRGraph(nodes=built.nodes, edges=sorted(built.edges), metadata=dict(metadata or {}), type_check=False)
    network = network_of(graph)
    _check_states(wiring, network, built)
    reference = _reference(wiring, record, built)
    _compare(wiring, record, network, reference, built)
    return graph, reference


def _build(wiring: Wiring, record: Record, shape: Shape) -> _Built:
    built = _Built({"input": nir.Input(input_type={"input": np.array(shape)})}, set(), {"": "input"})
    aliases: dict[str, tuple[str, ...]] = {}
    fused = _fused(wiring, record)
    absorbed = {part for parts in fused.values() for part in parts}
    for name in wiring.layers:  # all names first: a state leads back from a layer that comes later
        built.names[name] = name if name not in ("input", "output") else f"{name}_layer"
    for name, layer in wiring.layers.items():
        if name in absorbed:
            continue
        if name not in record.outputs and not isinstance(layer, nn.Flatten):
            raise WrongGraph(f"{name} was traced and never ran; allowed: every layer at every step")
        signals = wiring.inputs[name]
        taken, given = _shapes(name, layer, record, wiring)
        piece = piece_of(name, layer, taken, given)
        if piece is None:
            aliases[name] = _real(signals[0], aliases)
            continue
        node_name = built.names[name]
        built.nodes[node_name] = piece.node
        if any(signal.before for signal in signals) and np.any(getattr(piece.node, "bias", 0)):
            raise UnsupportedLayer(
                f"{name}: a bias behind a state, where a cycle carries 0 at the first step; allowed: bias=False"
            )
        if piece.back is not None:
            built.backs[name] = piece.back
            built.nodes[f"{node_name}.recurrent"] = _without_bias(
                name, piece.back, _real(signals[0], aliases), built, wiring
            )
            built.edges |= {(node_name, f"{node_name}.recurrent"), (f"{node_name}.recurrent", node_name)}
        if len(signals) == 1:
            for source in _real(signals[0], aliases):
                built.edges.add((built.names[source], node_name))
        elif name in fused:
            _add_fused(built, wiring, record, node_name, fused[name], aliases)
        else:
            _add_lanes(built, node_name, [_real(signal, aliases) for signal in signals], given)
    built.nodes["output"] = nir.Output(output_type={"output": np.array(record.output.shape[2:])})
    for source in _real(wiring.output, aliases):
        built.edges.add((built.names[source], "output"))
    return built


def _without_bias(name: str, back: Any, sources: tuple[str, ...], built: _Built, wiring: Wiring) -> Any:
    """The recurrent layer without its bias, which goes to the linear layer before: an edge that closes a cycle
    carries 0 at the first step, where snnTorch adds the bias already."""
    bias = getattr(back, "bias", None)
    if bias is None or not np.any(bias):
        return nir.Linear(weight=back.weight) if isinstance(back, nir.Affine) else back
    uses = [source for signals in wiring.inputs.values() for signal in signals for source in signal.sources]
    before = built.nodes.get(built.names.get(sources[0], "")) if len(sources) == 1 else None
    if not isinstance(before, (nir.Affine, nir.Linear, nir.Conv2d)) or uses.count(sources[0]) != 1:
        raise UnsupportedLayer(
            f"{name}: its recurrent layer has a bias, which no linear layer before it can take; allowed: "
            "recurrent.bias 0"
        )
    if isinstance(before, nir.Linear):
        before = nir.Affine(weight=before.weight, bias=np.zeros(len(before.weight), dtype=np.float32))
        built.nodes[built.names[sources[0]]] = before
    before.bias = (before.bias + bias).astype(np.float32)
    built.moved[sources[0]] = np.asarray(bias)
    if isinstance(back, nir.Affine):
        return nir.Linear(weight=back.weight)
    back = copy.copy(back)
    back.bias = np.zeros_like(bias)
    return back


def _real(signal: Signal, aliases: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    found: list[str] = []
    for source in signal.sources:
        found += aliases.get(source, (source,))
    return tuple(found)


def _shapes(name: str, layer: nn.Module, record: Record, wiring: Wiring) -> tuple[Shape, Shape]:
    if name in record.outputs:
        return record.inputs[name][0].shape[2:], record.outputs[name].shape[2:]
    (source,) = wiring.inputs[name][0].sources  # a flatten that forward calls
    taken: Shape = record.outputs[source].shape[2:]
    return taken, (int(np.prod(taken)),)


def _fused(wiring: Wiring, record: Record) -> dict[str, tuple[str, str]]:
    """Neurons whose current and gate logit come from two alike layers of one source: one layer gives both as lanes."""
    found = {}
    uses = [source for signals in wiring.inputs.values() for signal in signals for source in signal.sources]
    for name, signals in wiring.inputs.items():
        if len(signals) != 2 or any(len(signal.sources) != 1 for signal in signals):
            continue
        one, two = (signal.sources[0] for signal in signals)
        if not one or not two or uses.count(one) + uses.count(two) != 2:
            continue
        layers = [wiring.layers[part] for part in (one, two)]
        if type(layers[0]) is not type(layers[1]) or wiring.inputs[one] != wiring.inputs[two]:
            continue
        nodes = [
            piece_of(part, wiring.layers[part], *_shapes(part, wiring.layers[part], record, wiring))
            for part in (one, two)
        ]
        if all(piece is not None and isinstance(piece.node, LINEAR_NODES) for piece in nodes) and _alike(
            *(p.node for p in nodes if p)
        ):
            found[name] = (one, two)
    return found


def _alike(one: Any, two: Any) -> bool:
    """Whether two linear nodes differ in nothing but weights and bias."""
    if type(one) is not type(two):
        return False
    fields = [f for f in vars(one) if f not in ("weight", "bias", "input_type", "output_type", "metadata")]
    return all(np.array_equal(np.asarray(getattr(one, f)), np.asarray(getattr(two, f))) for f in fields)


def _add_fused(
    built: _Built,
    wiring: Wiring,
    record: Record,
    name: str,
    parts: tuple[str, str],
    aliases: dict[str, tuple[str, ...]],
) -> None:
    one, two = (
        piece_of(part, wiring.layers[part], *_shapes(part, wiring.layers[part], record, wiring)) for part in parts
    )
    assert one is not None
    assert two is not None
    node = one.node
    node.weight = np.concatenate((one.node.weight, two.node.weight))
    if hasattr(node, "bias"):
        node.bias = np.concatenate((one.node.bias, two.node.bias))
    if isinstance(node, (nir.Conv1d, nir.Conv2d)):
        channels, *rest = node.output_type["output"]
        node.output_type = {"output": np.array([2 * channels, *rest])}
    else:
        node = type(node)(**{f: getattr(node, f) for f in ("weight", "bias") if hasattr(node, f)})
    lanes = f"{name}.lanes"
    built.nodes[lanes] = node
    for source in _real(wiring.inputs[parts[0]][0], aliases):
        built.edges.add((built.names[source], lanes))
    built.edges.add((lanes, name))


def _add_lanes(built: _Built, name: str, signals: list[tuple[str, ...]], shape: Shape) -> None:
    """Current and gate logit each in their half of the lanes; NIR's sum puts them side by side, exactly."""
    n = shape[0]
    for half, (what, sources) in enumerate(zip(("current", "gate"), signals, strict=True)):
        weight = np.zeros((2 * n, n), dtype=np.float32)
        weight[half * n : (half + 1) * n] = np.eye(n, dtype=np.float32)
        if len(shape) == 1:
            node: Any = nir.Linear(weight=weight)
        elif len(shape) == 3:
            node = nir.Conv2d(
                input_shape=shape[1:], weight=weight[:, :, None, None], stride=1, padding=0, dilation=1, groups=1,
                bias=np.zeros(2 * n, dtype=np.float32),
            )  # fmt: skip
            node.input_type = {"input": np.array(shape)}
            node.output_type = {"output": np.array([2 * n, *shape[1:]])}
        else:
            raise SpeakError(
                f"{name}: a gate beside a current of shape {shape}; allowed: (N,), (channels, height, width), or lanes"
            )
        built.nodes[f"{name}.{what}"] = node
        built.edges.add((f"{name}.{what}", name))
        for source in sources:
            built.edges.add((built.names[source], f"{name}.{what}"))


def _reference(wiring: Wiring, record: Record, built: _Built) -> dict[str, LayerRun]:
    found = {}
    for name, layer in wiring.layers.items():
        if not isinstance(layer, STATEFUL):
            continue
        inputs = np.concatenate(record.inputs[name], axis=2).astype(np.float32)
        flat = inputs.reshape(*inputs.shape[:2], -1)
        spikes = record.outputs[name].reshape(*inputs.shape[:2], -1)
        back = built.backs.get(name)
        if back is not None:
            flat = flat + _fed_back(back, spikes, record.outputs[name].shape[2:])
        membrane = record.membranes[name].reshape(*inputs.shape[:2], -1)
        found[built.names[name]] = LayerRun(flat, spikes.astype(np.bool_), membrane.astype(np.float32))
    return found


def _fed_back(node: Any, spikes: Array, shape: Shape) -> Array:
    """What a recurrent connection adds: its layer on the spikes of the step before, 0 before the first spikes but for
    the bias."""
    nodes = {
        "input": nir.Input(input_type={"input": np.array(shape)}),
        "back": node,
        "output": nir.Output(output_type={"output": np.array(shape)}),
    }
    network = network_of(nir.NIRGraph(nodes=nodes, edges=[("input", "back"), ("back", "output")], type_check=False))
    layer: Any = network.layers["back"]
    before = np.concatenate((np.zeros_like(spikes[:, :1]), spikes[:, :-1]), axis=1)
    return np.stack([layer.apply(before[:, t].astype(np.float32)) for t in range(before.shape[1])], axis=1)


def _compare(wiring: Wiring, record: Record, network: Network, reference: dict[str, LayerRun], built: _Built) -> None:
    """Refuse a graph that the recorded run does not bear out, layer by layer."""
    for name, signals in wiring.inputs.items():
        if name not in record.inputs:
            continue
        for signal, taken in zip(signals, record.inputs[name], strict=True):
            parts = [_source(part, record, wiring, part in signal.before) for part in signal.sources if part]
            if not parts or "" in signal.sources or any(part is None for part in parts):
                continue
            total = np.sum(np.stack([part for part in parts if part is not None]), axis=0)
            if total.shape != taken.shape or not _close(total, taken):
                raise WrongGraph(
                    f"what goes into {name} is not the sum of {', '.join(signal.sources)}: forward does more "
                    "than layers and sums"
                )
    for name, node_name in built.names.items():
        layer = network.layers.get(node_name)
        if not isinstance(layer, LINEAR) or name not in record.outputs:
            continue
        taken = record.inputs[name][0]
        given = layer.apply(taken.reshape(-1, network_width(taken)).astype(np.float32))
        if name in built.moved:
            bias = np.repeat(built.moved[name], given.shape[1] // len(built.moved[name]))
            given = given - bias
        if not _close(given.reshape(-1), record.outputs[name].reshape(-1)):
            raise WrongGraph(f"the node of {name} does not compute what the module does")
    for name, run in reference.items():
        _check_neurons(name, network.layers[name], run, f"{name}.recurrent" in network.layers)


def network_width(array: Array) -> int:
    """Numbers a position, of (B, T, ...)."""
    return int(np.prod(array.shape[2:]))


def _check_states(wiring: Wiring, network: Network, built: _Built) -> None:
    """A graph delays by a step what goes round a cycle, and nothing else."""
    for name, signals in wiring.inputs.items():
        for source in {s for signal in signals for s in signal.before}:
            reached, following = set(), [built.names[source]]
            while following:  # from the layer that gave the state, backwards
                for other in network.sources[following.pop()]:
                    if other.name not in reached:
                        reached.add(other.name)
                        following.append(other.name)
            if built.names[name] not in reached:
                raise UnsupportedLayer(
                    f"{name} takes {source}'s spikes of the step before and does not lead back to it; allowed: states "
                    "that go round a cycle"
                )


def _source(name: str, record: Record, wiring: Wiring, before: bool = False) -> Array | None:
    if name in record.outputs:
        found = record.outputs[name]
        return np.concatenate((np.zeros_like(found[:, :1]), found[:, :-1]), axis=1) if before else found
    layer = wiring.layers[name]
    if isinstance(layer, nn.Flatten):
        inner = _source(wiring.inputs[name][0].sources[0], record, wiring)
        return None if inner is None else inner.reshape(*inner.shape[:2], -1)
    return None


def _close(one: Array, two: Array) -> bool:
    scale = max(float(np.abs(two).max(initial=0.0)), 1e-30)
    return bool((np.abs(one - two) <= CLOSE * scale).all())


def _check_neurons(name: str, layer: Any, run: LayerRun, recurrent: bool) -> None:
    assert isinstance(layer, Neurons)
    state = start(layer, run.input.shape[0])
    sure = np.ones(run.spikes[:, 0].shape, dtype=np.bool_)
    for t in range(run.input.shape[1]):
        step = advance(layer, run.input[:, t], state)
        state = step.state
        differs = sure & (step.spikes != run.spikes[:, t])
        near = np.abs(step.membrane - layer.threshold) <= CLOSE * np.maximum(1.0, np.abs(layer.threshold))
        if (differs & ~(near if recurrent else np.zeros_like(near))).any():
            b, n = np.argwhere(differs)[0]
            raise WrongGraph(
                f"{name}: the node's neuron {n} {'spikes' if step.spikes[b, n] else 'is silent'} at step {t} "
                f"of sequence {b} "
                f"and the module's does not do so (potential {step.membrane[b, n]:.6g}, module "
                f"{run.membrane[b, t, n]:.6g}): "
                "a state went in, or the layer's options changed after it was made"
            )
        sure &= ~differs
