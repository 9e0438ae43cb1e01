"""Proves the run of a network equal to Lava's, layer by layer.

    neuron level     each layer of neurons alone, on the reference's own inputs: every spike and every bit of u must
                     agree
    network level    the inputs go in, Lava computes everything: sums of another order may differ in their last bits.
                     The
                     first spike that differs in a sequence must be within the rounding bound of its threshold, and up
                     to there no potential may differ by more than the bound; what follows from it is counted, not
                     judged
    fixed            Loihi's integers: Lava against the integer reference, every spike and potential

The reference is the run of a training module (`speak_neuro.export.record`), or the run of the graph in numpy.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from speak_neuro.common.array_types import Array
from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import read_graph
from speak_neuro.export.graphs.layers import Neurons, Relay
from speak_neuro.export.graphs.network import DT, Network, Source, network_of
from speak_neuro.export.graphs.network_run import LayerRun, NetworkRun, check_inputs, run_flat
from speak_neuro.sim.networks.fix import fix_inputs, fix_network
from speak_neuro.sim.networks.levels import fixed_level, network_level, neuron_level
from speak_neuro.sim.networks.plan import job_of, plan_of
from speak_neuro.sim.runner import run_job

Level = Literal["neuron", "network", "fixed"]
LEVELS: tuple[Level, ...] = ("neuron", "network", "fixed")
WORKER = "speak_neuro.sim.child.layer_worker"
JOB_BYTES = 2**28
LANES = 1024
"""Sequences in one Lava network."""
OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Verification:
    """The report as JSON has it, and the runs for pictures."""

    report: dict[str, Any]
    reference: dict[str, LayerRun]
    lava: dict[str, dict[str, LayerRun]] = field(default_factory=dict)
    """By level and layer."""

    @property
    def passed(self) -> bool:
        """Whether every level held."""
        return bool(self.report["passed"])


def verify(
    graph: Any,
    inputs: Array,
    reference: Mapping[str, LayerRun] | None = None,
    *,
    levels: Sequence[Level] = ("neuron", "network"),
    dt: float = DT,
    timeout: float | None = None,
    python: str | None = None,
    on_step: OnStep = lambda level, step, total: None,
) -> Verification:
    """Run `graph` (a NIRGraph or its file) on (B, T, *shape) `inputs` in Lava and compare every layer of neurons.

    `reference` has the run of a training module, by the names of the graph's nodes; None takes the graph's run in
    numpy. `timeout` is in seconds for each job in Lava; None allows ten times what a slow machine needs.
    """
    for level in levels:
        if level not in LEVELS:
            raise SpeakError(f"level {level!r}; allowed: {', '.join(LEVELS)}")
    if isinstance(graph, (str, os.PathLike)):
        graph = read_graph(graph)
    network = network_of(graph, dt)
    flat = check_inputs(network, inputs)
    own = run_flat(network, flat)
    runs = _checked(network, reference, flat) if reference is not None else own.layers
    simulator = _Simulator(timeout, python, on_step)
    lava: dict[str, dict[str, LayerRun]] = {}
    found: dict[str, Any] = {}
    if "neuron" in levels:
        lava["neuron"] = {name: simulator.alone(network, name, runs[name].input) for name in network.neurons()}
        found["neuron"] = neuron_level(network, runs, lava["neuron"])
    if "network" in levels:
        lava["network"] = simulator.whole(network, flat, "network").layers
        found["network"] = network_level(network, flat, runs, own.layers, lava["network"])
    if "fixed" in levels:
        fixed = fix_network(network, flat, own)
        integer = fix_inputs(fixed, flat)
        expected = run_flat(fixed.network, integer, integer=True)
        lava["fixed"] = simulator.whole(fixed.network, integer, "fixed").layers
        found["fixed"] = fixed_level(fixed, expected.layers, lava["fixed"], runs)
    report = {
        "passed": all(level["passed"] for level in found.values()),
        "reference": "the module's own run" if reference is not None else "the graph run in numpy",
        "sequences": int(flat.shape[0]),
        "steps": int(flat.shape[1]),
        "layers": [_describe(network, name, runs[name]) for name in network.neurons()],
        "levels": found,
        "seconds": round(simulator.seconds, 3),
        "versions": simulator.versions,
    }
    return Verification(report, dict(runs), lava)


def simulate(
    graph: Any,
    inputs: Array,
    *,
    dt: float = DT,
    timeout: float | None = None,
    python: str | None = None,
    on_step: OnStep = lambda level, step, total: None,
) -> NetworkRun:
    """Run `graph` on (B, T, *shape) inputs in Lava, without comparing anything."""
    if isinstance(graph, (str, os.PathLike)):
        graph = read_graph(graph)
    network = network_of(graph, dt)
    return _Simulator(timeout, python, on_step).whole(network, check_inputs(network, inputs), "network")


def _describe(network: Network, name: str, run: LayerRun) -> dict[str, Any]:
    layer = network.layers[name]
    assert isinstance(layer, Neurons)
    return {
        "name": name,
        "kind": network.kinds[name],
        "neurons": layer.size,
        "shape": list(network.shapes[name]),
        "spikes": int(run.spikes.sum()),
        "rate": float(run.spikes.mean()),
    }


def _checked(network: Network, reference: Mapping[str, LayerRun], flat: Array) -> dict[str, LayerRun]:
    """The reference's layers with the shapes that the graph says."""
    found = {}
    for name in network.neurons():
        if name not in reference:
            raise SpeakError(f"the reference lacks layer {name}; it has {', '.join(sorted(reference)) or 'none'}")
        layer = network.layers[name]
        assert isinstance(layer, Neurons)
        arrays = []
        for part, width in (("input", layer.width), ("spikes", layer.size), ("membrane", layer.size)):
            array = np.asarray(getattr(reference[name], part))
            if array.shape[:2] != flat.shape[:2] or int(np.prod(array.shape[2:])) != width:
                raise SpeakError(
                    f"the reference's {part} of {name} has shape {array.shape}; allowed: "
                    f"({flat.shape[0]}, {flat.shape[1]}, {width})"
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise SpeakError(f"the reference's {part} of {name} holds NaN or infinity")
            arrays.append(array.reshape(*flat.shape[:2], width))
        found[name] = LayerRun(arrays[0].astype(np.float32), arrays[1].astype(np.bool_), arrays[2].astype(np.float32))
    return found


class _Simulator:
    """Runs networks in Lava and adds up what it took."""

    def __init__(self, timeout: float | None, python: str | None, on_step: OnStep) -> None:
        self._timeout, self._python, self._on_step = timeout, python, on_step
        self.seconds = 0.0
        self.versions: dict[str, str] = {}

    def alone(self, network: Network, name: str, inputs: Array) -> LayerRun:
        """One layer of neurons on its own inputs."""
        layer = network.layers[name]
        assert isinstance(layer, Neurons)
        single = Network(
            layers={"input": Relay(), name: layer, "output": Relay()},
            sources={"input": (), name: (Source("input", False),), "output": (Source(name, False),)},
            shapes={"input": (layer.width,), name: (layer.size,), "output": (layer.size,)},
            kinds={"input": "Input", name: network.kinds[name], "output": "Output"},
            input="input",
            output="output",
        )
        return self.whole(single, inputs, name).layers[name]

    def _report(self, label: str, total: int, step: int) -> None:
        self._on_step(label, step, total)

    def whole(self, network: Network, inputs: Array, label: str) -> NetworkRun:
        """All of (B, T, D) inputs, as jobs of bounded memory."""
        plan = plan_of(network)
        batch, steps, _ = inputs.shape
        values = 4 * steps * (inputs.shape[2] + sum(2 * network.width(name) for name in network.neurons()))
        rows = max(1, min(batch, JOB_BYTES // max(values, 1)))
        parts: list[dict[str, Array]] = []
        for first in range(0, batch, rows):
            part = np.ascontiguousarray(inputs[first : first + rows].swapaxes(0, 1))
            part = part.astype(np.int32 if part.dtype.kind == "i" else np.float32)
            job = {**job_of(network, plan), "inputs": part, "lanes": np.asarray(LANES)}
            groups = -(-part.shape[1] // LANES)
            limit = self._timeout or 60 + 0.02 * groups * steps * len(plan.feeds) + 2e-7 * part.size * 50
            started = time.monotonic()
            done = run_job(
                job,
                timeout=limit,
                python=self._python,
                worker=WORKER,
                on_step=functools.partial(self._report, label, groups * (steps + plan.depth)),
            )
            self.seconds += time.monotonic() - started
            self.versions = done.versions
            parts.append(done.arrays)
        merged = {name: np.concatenate([p[name] for p in parts], axis=1).swapaxes(0, 1) for name in parts[0]}
        layers = {}
        for name in network.neurons():
            membrane = merged[f"{name}.membrane"]
            spikes = merged.get(f"{name}.spikes", np.zeros(membrane.shape, dtype=np.int8))
            layers[name] = LayerRun(np.zeros((*membrane.shape[:2], 0)), spikes.astype(np.bool_), membrane)
        return NetworkRun(layers, merged["output"].reshape(batch, steps, *network.shapes[network.output]))
