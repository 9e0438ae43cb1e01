"""What each level of a verification says of two runs: counts, the first difference and its cause, passed or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from speak_neuro.common.array_types import Array
from speak_neuro.export.graphs.layers import Neurons, advance, start
from speak_neuro.export.graphs.network import Network
from speak_neuro.export.graphs.network_bounds import potential_bounds
from speak_neuro.export.graphs.network_run import LayerRun
from speak_neuro.sim.networks.fix import FixedNetwork


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


def _exact(layer: Any, name: str, expected: LayerRun, found: LayerRun) -> dict[str, Any]:
    """A layer's counts, and the first place where it differs in any bit."""
    different = (expected.spikes != found.spikes) | (expected.membrane != found.membrane)
    first = _at(layer, expected, found, _first(different)) if different.any() else None
    return {"name": name, **_counts(expected, found), "first": first}


def _all_exact(layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "layers": layers,
        "passed": all(row["spike_mismatches"] == 0 and row["membrane_mismatches"] == 0 for row in layers),
    }


def neuron_level(network: Network, runs: Mapping[str, LayerRun], lava: Mapping[str, LayerRun]) -> dict[str, Any]:
    layers = []
    for name in network.neurons():
        layer, expected, found = network.layers[name], runs[name], lava[name]
        assert isinstance(layer, Neurons)
        row = _exact(layer, name, expected, found)
        if row["first"]:
            own = _by_equation(layer, expected.input)
            follows = (own.spikes == found.spikes).all() and (own.membrane == found.membrane).all()
            row["first"]["cause"] = (
                f"the reference does not follow the {network.kinds[name]}'s equation: Lava does, bit for bit"
                if follows
                else "Lava does not follow the node's equation: please report it"
            )
        layers.append(row)
    return _all_exact(layers)


def _by_equation(layer: Neurons, inputs: Array) -> LayerRun:
    state = start(layer, inputs.shape[0])
    rows = []
    for t in range(inputs.shape[1]):
        step = advance(layer, inputs[:, t], state)
        state = step.state
        rows.append((step.spikes, step.membrane))
    spikes, membrane = (np.stack(column, axis=1) for column in zip(*rows, strict=True))
    return LayerRun(inputs, spikes, membrane)


def network_level(
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


def fixed_level(
    fixed: FixedNetwork,
    expected: Mapping[str, LayerRun],
    lava: Mapping[str, LayerRun],
    runs: Mapping[str, LayerRun],
) -> dict[str, Any]:
    layers = []
    for name in fixed.network.neurons():
        row = _exact(fixed.network.layers[name], name, expected[name], lava[name]) | fixed.formats[name]
        row["float_agreement"] = float((expected[name].spikes == runs[name].spikes).mean())
        if row["first"]:
            row["first"]["cause"] = "Lava does not follow the integer reference: please report it"
        layers.append(row)
    return _all_exact(layers)
