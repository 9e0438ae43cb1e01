"""A training module as a NIR graph, exact or refused, and its run as the reference for `speak_neuro.sim.verify`.

    graph = to_nir(net, sample)                    a NIRGraph; `write_graph(path, graph)` writes it
    reference = reference_of(net, sample, graph)   what each layer of neurons took and did, by the graph's names

After tracing, the graph is compared with a run of the module on the sample: what goes into each layer must be the sum
of what its sources give, and every neuron must spike as its node's equation says on the module's own currents.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np
from torch import Tensor, nn

from speak_neuro.common.array_types import Array
from speak_neuro.export.graphs.layers import LINEAR, Neurons, advance, start
from speak_neuro.export.graphs.network import Network, network_of
from speak_neuro.export.graphs.network_run import LayerRun
from speak_neuro.export.modules.build import Built, WrongGraph, build
from speak_neuro.export.modules.nodes import STATEFUL, Shape, UnsupportedLayer, check_runnable
from speak_neuro.export.modules.record import Record, record_run
from speak_neuro.export.modules.trace import Wiring, trace

CLOSE = 1e-4
"""Sums of another order agree to this share of the largest value."""


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
    built = build(wiring, record, tuple(sample.shape[2:]))
    graph = nir.NIRGraph(nodes=built.nodes, edges=sorted(built.edges), metadata=dict(metadata or {}), type_check=False)
    network = network_of(graph)
    _check_states(wiring, network, built)
    reference = _reference(wiring, record, built)
    _compare(wiring, record, network, reference, built)
    return graph, reference


def _reference(wiring: Wiring, record: Record, built: Built) -> dict[str, LayerRun]:
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


def _compare(wiring: Wiring, record: Record, network: Network, reference: dict[str, LayerRun], built: Built) -> None:
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


def _check_states(wiring: Wiring, network: Network, built: Built) -> None:
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
