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
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import read_graph
from speak_neuro.export.graphs.interpreter import DT
from speak_neuro.export.graphs.layers import Neurons, Relay, advance, start
from speak_neuro.export.graphs.network import Network, Source, network_of
from speak_neuro.export.graphs.network_bounds import potential_bounds
from speak_neuro.export.graphs.network_run import LayerRun, NetworkRun, check_inputs, run_flat
from speak_neuro.sim.networks.fix import FixedNetwork, fix_inputs, fix_network
from speak_neuro.sim.networks.plan import job_of, plan_of
from speak_neuro.sim.runner import run_job

Array = npt.NDArray[Any]
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
        found["neuron"] = _neuron_level(network, runs, lava["neuron"])
    if "network" in levels:
        lava["network"] = simulator.whole(network, flat, "network").layers
        found["network"] = _network_level(network, flat, runs, own.layers, lava["network"])
    if "fixed" in levels:
        fixed = fix_network(network, flat, own)
        integer = fix_inputs(fixed, flat)
        expected = run_flat(fixed.network, integer, integer=True)
        lava["fixed"] = simulator.whole(fixed.network, integer, "fixed").layers
        found["fixed"] = _fixed_level(fixed, expected.layers, lava["fixed"], runs)
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


def _counts(expected: LayerRun, found: LayerRun) -> dict[str, int]:
    same = expected.membrane == found.membrane  # a zero's sign is no difference
    return {
        "positions": int(expected.spikes.size),
        "spikes": int(expected.spikes.sum()),
        "spike_mismatches": int((expected.spikes != found.spikes).sum()),
        "membrane_mismatches": int((~same).sum()),
    }


def _first(different: Array) -> tuple[int, int, int]:
    """Sequence, step and neuron of the earliest difference."""
    t = int(np.argmax(different.any(axis=(0, 2))))
    b, n = np.argwhere(different[:, t])[0]
    return int(b), t, int(n)


def _at(layer: Neurons, expected: LayerRun, found: LayerRun, place: tuple[int, int, int]) -> dict[str, Any]:
    b, t, n = place
    return {
        "sequence": b,
        "step": t,
        "neuron": n,
        "reference": {"spike": bool(expected.spikes[place]), "membrane": float(expected.membrane[place])},
        "lava": {"spike": bool(found.spikes[place]), "membrane": float(found.membrane[place])},
        "threshold": float(layer.threshold[n]),
    }


def _neuron_level(network: Network, runs: Mapping[str, LayerRun], lava: Mapping[str, LayerRun]) -> dict[str, Any]:
    layers = []
    for name in network.neurons():
        layer, expected, found = network.layers[name], runs[name], lava[name]
        assert isinstance(layer, Neurons)
        row: dict[str, Any] = {"name": name, **_counts(expected, found), "first": None}
        different = (expected.spikes != found.spikes) | (expected.membrane != found.membrane)
        if different.any():
            row["first"] = _at(layer, expected, found, _first(different))
            own = _by_equation(layer, expected.input)
            follows = (own.spikes == found.spikes).all() and (own.membrane == found.membrane).all()
            row["first"]["cause"] = (
                f"the reference does not follow the {network.kinds[name]}'s equation: Lava does, bit for bit"
                if follows
                else "Lava does not follow the node's equation: please report it"
            )
        layers.append(row)
    return {
        "layers": layers,
        "passed": all(r["spike_mismatches"] == 0 and r["membrane_mismatches"] == 0 for r in layers),
    }


def _by_equation(layer: Neurons, inputs: Array) -> LayerRun:
    state = start(layer, inputs.shape[0])
    rows = []
    for t in range(inputs.shape[1]):
        step = advance(layer, inputs[:, t], state)
        state = step.state
        rows.append((step.spikes, step.membrane))
    spikes, membrane = (np.stack(column, axis=1) for column in zip(*rows, strict=True))
    return LayerRun(inputs, spikes, membrane)


def _network_level(
    network: Network,
    flat: Array,
    runs: Mapping[str, LayerRun],
    own: Mapping[str, LayerRun],
    lava: Mapping[str, LayerRun],
) -> dict[str, Any]:
    names = network.neurons()
    bounds = potential_bounds(network, flat)
    batch, steps = flat.shape[:2]
    first = np.full(batch, steps)  # the step of each sequence's first difference
    for name in names:
        for expected in (runs[name], own[name]):  # bounds are of the graph's own run, so it must agree as well
            differs = (expected.spikes != lava[name].spikes).any(axis=2)
            first = np.minimum(first, np.where(differs.any(axis=1), differs.argmax(axis=1), steps))
    before = np.arange(steps) < first[:, None]
    layers, at_first = [], np.zeros(batch, dtype=np.bool_)
    for name in names:
        layer, expected, found = network.layers[name], runs[name], lava[name]
        assert isinstance(layer, Neurons)
        gap = np.abs(expected.membrane.astype(np.float64) - found.membrane)
        drifted = before[:, :, None] & (gap > bounds[name])
        # Of each sequence that differs, the first layer at that step has no difference upstream to excuse it.
        here = (np.arange(steps) == first[:, None])[:, :, None] & (expected.spikes != found.spikes)
        here &= ~at_first[:, None, None]
        at_first |= here.any(axis=(1, 2))
        margin = np.abs(expected.membrane.astype(np.float64) - layer.threshold)
        unexplained = drifted | (here & (margin > 2 * bounds[name]))
        row: dict[str, Any] = {
            "name": name,
            **_counts(expected, found),
            "largest_difference": float(np.where(before[:, :, None], gap, 0).max(initial=0.0)),
            "bound": float(bounds[name].max(initial=0.0)),
            "first_differences": int(here.any(axis=(1, 2)).sum()),
            "unexplained": int(unexplained.sum()),
            "first": None,
        }
        mismatched = expected.spikes != found.spikes
        shown = unexplained if unexplained.any() else (here if here.any() else mismatched)
        if shown.any():
            place = _first(shown)
            row["first"] = _at(layer, expected, found, place)
            row["first"]["cause"] = _cause(place, unexplained, here, margin, gap, bounds[name])
        layers.append(row)
    return {
        "layers": layers,
        "sequences_that_differ": int((first < steps).sum()),
        "passed": all(row["unexplained"] == 0 for row in layers),
    }


def _cause(
    place: tuple[int, int, int], unexplained: Array, here: Array, margin: Array, gap: Array, bound: Array
) -> str:
    if unexplained[place]:
        return f"unexplained: potentials differ by {gap[place]:.3g}, rounding allows {bound[place]:.3g}"
    if here[place]:
        allowed = 2 * bound[place]
        return f"rounding: {margin[place]:.3g} from the threshold, sums of another order may differ by {allowed:.3g}"
    return "follows from an earlier difference in this sequence"


def _fixed_level(
    fixed: FixedNetwork,
    expected: Mapping[str, LayerRun],
    lava: Mapping[str, LayerRun],
    runs: Mapping[str, LayerRun],
) -> dict[str, Any]:
    layers = []
    for name in fixed.network.neurons():
        layer = fixed.network.layers[name]
        assert isinstance(layer, Neurons)
        row: dict[str, Any] = {
            "name": name,
            **_counts(expected[name], lava[name]),
            "first": None,
            **fixed.formats[name],
        }
        row["float_agreement"] = float((expected[name].spikes == runs[name].spikes).mean())
        different = (expected[name].spikes != lava[name].spikes) | (expected[name].membrane != lava[name].membrane)
        if different.any():
            row["first"] = _at(layer, expected[name], lava[name], _first(different))
            row["first"]["cause"] = "Lava does not follow the integer reference: please report it"
        layers.append(row)
    return {
        "layers": layers,
        "passed": all(r["spike_mismatches"] == 0 and r["membrane_mismatches"] == 0 for r in layers),
    }
