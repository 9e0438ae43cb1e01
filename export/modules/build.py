"""A traced and recorded module as the nodes and edges of a NIR graph, before anything is compared."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np
from torch import nn

from speak_neuro.common.array_types import Array
from speak_neuro.errors import SpeakError
from speak_neuro.export.modules.nodes import Shape, UnsupportedLayer, piece_of
from speak_neuro.export.modules.record import Record
from speak_neuro.export.modules.trace import Signal, Wiring

LINEAR_NODES = (nir.Affine, nir.Linear, nir.Conv1d, nir.Conv2d)


class WrongGraph(SpeakError):
    """The traced graph does not compute what the module computes."""


@dataclass
class Built:
    nodes: dict[str, Any]
    edges: set[tuple[str, str]]
    names: dict[str, str]
    """From a module's qualified name to its node's."""
    backs: dict[str, Any] = field(default_factory=dict)
    """By a recurrent layer's name what leads from its spikes back, with its bias."""
    moved: dict[str, Array] = field(default_factory=dict)
    """By a linear layer's name the bias that it got from the recurrent layer after it."""


def build(wiring: Wiring, record: Record, shape: Shape) -> Built:
    built = Built({"input": nir.Input(input_type={"input": np.array(shape)})}, set(), {"": "input"})
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


def _without_bias(name: str, back: Any, sources: tuple[str, ...], built: Built, wiring: Wiring) -> Any:
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
    built: Built,
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


def _add_lanes(built: Built, name: str, signals: list[tuple[str, ...]], shape: Shape) -> None:
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
