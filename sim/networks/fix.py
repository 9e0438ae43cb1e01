"""Chooses integers for a network of neurons, after Loihi's ranges, from a calibration run.

Every layer's value is an integer times its unit. Spikes have the unit 1; numbers that go in, or from one linear layer
to the next, are graded spikes of 16 bits. A linear layer's weights are w = q * unit_out / (unit_in 2^shift) with |q|
below 2^15 (a high and a low part of 8 bits each); its sum, which may not leave 32 bits, is shifted right by up to 8
bits, Loihi's least weight exponent.
Neuron n counts its potential in unit * gain_n, so the current is added as it comes:

    threshold T_n = threshold / unit_n      soft_n, reset_n, bias_n likewise      decay in 1/4096

Where all neurons of a layer have one threshold and one gain, the unit is chosen so that T and the soft reset are exact
(`quantize.largest_threshold`); T has a mantissa of 17 bits. Potentials keep `headroom` in 24 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from speak_neuro.common.array_types import Array
from speak_neuro.errors import SpeakError
from speak_neuro.export.graphs.layers import LINEAR, Convolution, Delay, Dense, Layer, Neurons, Relay, Scale
from speak_neuro.export.graphs.network import Network
from speak_neuro.export.graphs.network_run import NetworkRun, Stepper
from speak_neuro.neuron.integer import (
    ACCUMULATOR_LIMIT,
    DECAY_ONE,
    MANTISSA_LIMIT,
    PAYLOAD_LIMIT,
    SHIFT_LIMIT,
    STATE_LIMIT,
    WEIGHT_LIMIT,
    WIDE_EXPONENT,
    float32_fraction,
)
from speak_neuro.sim.fixed.quantize import HEADROOM, largest_threshold


@dataclass(frozen=True)
class FixedNetwork:
    """The network in integers, int64 arrays throughout."""

    network: Network
    units: dict[str, float]
    """value = integer * unit, of every layer's output."""
    formats: dict[str, dict[str, Any]]
    """Of each layer of neurons, for a report."""


def fix_inputs(fixed: FixedNetwork, flat: Array) -> Array:
    """(B, T, D) numbers to graded spikes."""
    whole = np.rint(flat.astype(np.float64) / fixed.units[fixed.network.input])
    if np.abs(whole).max(initial=0) > PAYLOAD_LIMIT:
        raise SpeakError(
            f"inputs reach {np.abs(flat).max():g}; the format holds "
            f"{PAYLOAD_LIMIT * fixed.units[fixed.network.input]:g}"
        )
    return whole.astype(np.int64)


def fix_network(network: Network, flat: Array, run: NetworkRun, headroom: float = HEADROOM) -> FixedNetwork:
    """Integers for `network`, for the inputs (B, T, D) and the potentials of its `run`."""
    layers: dict[str, Layer] = dict(network.layers)
    largest = np.abs(flat).max(initial=0.0)
    spikes_in = bool((flat == np.rint(flat)).all()) and largest <= PAYLOAD_LIMIT
    units: dict[str, float] = {network.input: 1.0 if spikes_in else float(largest) / PAYLOAD_LIMIT}
    reach: dict[str, float] = {network.input: float(np.rint(largest / units[network.input])) or 1.0}
    formats: dict[str, dict[str, Any]] = {}
    largest_values = _largest_values(network, flat)
    for name in network.neurons():  # spikes are known before what they drive
        layer = network.layers[name]
        assert isinstance(layer, Neurons)
        if layer.spiking:
            units[name], reach[name] = 1.0, 1.0
    for name, layer in network.layers.items():
        if isinstance(layer, Neurons):
            feeds = _linear_sources(network, name)
            unit = _unit_for(network, name, layer, feeds, units, reach, run, headroom)
            for feed in feeds:
                source, most = _unit_in(network, feed, units), _reach_in(network, feed, reach)
                finest = _linear_unit(network.layers[feed], source, most, grid=False)
                layers[feed], units[feed] = _fix_linear(network.layers[feed], source, unit, finest)
            layers[name], formats[name] = _fix_neurons(name, layer, unit, run)
            if not layer.spiking:
                units[name] = float(unit * layer.gain.reshape(-1)[0])
        elif isinstance(layer, LINEAR) and name not in units:
            if not _feeds_neurons(network, name):
                source = _unit_in(network, name, units)
                finest = _linear_unit(layer, source, _reach_in(network, name, reach), grid=False)
                unit = max(finest, largest_values[name] * headroom / PAYLOAD_LIMIT)
                layers[name], units[name] = _fix_linear(layer, source, unit, finest)
                reach[name] = float(PAYLOAD_LIMIT)
        elif isinstance(layer, (Relay, Delay)) and name != network.input:
            sources = {units[s.name] for s in network.sources[name] if s.name in units}
            if len(sources) > 1:
                raise SpeakError(f"node {name} adds values of different units; allowed in fixed point: one unit")
            units[name] = sources.pop() if sources else 1.0
            reach[name] = sum(reach.get(s.name, 1.0) for s in network.sources[name])
    return FixedNetwork(replace(network, layers=layers), units, formats)


def _largest_values(network: Network, flat: Array) -> dict[str, float]:
    """The largest magnitude of each layer's output in the calibration."""
    stepper = Stepper(network, flat.shape[0], np.float32)
    found = dict.fromkeys(network.layers, 0.0)
    for t in range(flat.shape[1]):
        for name, values in stepper.step(flat[:, t])[0].items():
            found[name] = max(found[name], float(np.abs(values).max(initial=0.0)))
    return found


def _sources(network: Network, name: str) -> list[str]:
    found = []
    for source in network.sources[name]:
        if isinstance(network.layers[source.name], (Relay, Delay)) and source.name != network.input:
            found += _sources(network, source.name)
        else:
            found.append(source.name)
    return found


def _linear_sources(network: Network, name: str) -> list[str]:
    """The linear layers whose sum a layer of neurons takes; anything else has no unit to choose."""
    sources = _sources(network, name)
    for source in sources:
        if not isinstance(network.layers[source], LINEAR):
            raise SpeakError(
                f"node {name} takes {source} without weights between; allowed in fixed point: a linear layer "
                "before neurons"
            )
    return sources


def _feeds_neurons(network: Network, name: str) -> bool:
    return any(
        isinstance(layer, Neurons) and name in _sources(network, other) for other, layer in network.layers.items()
    )


def _unit_in(network: Network, name: str, units: dict[str, float]) -> float:
    found = {units.get(source, 1.0) for source in _sources(network, name)}
    if len(found) > 1:
        raise SpeakError(f"node {name} adds values of different units; allowed in fixed point: one unit")
    return found.pop()


def _reach_in(network: Network, name: str, reach: dict[str, float]) -> float:
    return sum(reach.get(source, 1.0) for source in _sources(network, name))


def _weights(layer: Layer) -> Array:
    value = layer.scale if isinstance(layer, Scale) else layer.weight  # type: ignore[union-attr]
    return np.asarray(value, dtype=np.float64)


def _linear_unit(layer: Layer, source: float, reach: float, grid: bool = True) -> float:
    """The finest unit of a linear layer's output that weights and sums allow; on the `grid` equal weights are 1."""
    weight = np.abs(_weights(layer))
    sizes = np.unique(weight[weight > 0])
    if grid and sizes.size == 1 and not np.any(getattr(layer, "bias", 0)):
        return float(sizes[0]) * source
    if not sizes.size:
        return source
    row = weight.reshape(*weight.shape[:-1], -1).sum(axis=-1).max() if weight.ndim > 1 else weight.max()
    limit = min(float(WEIGHT_LIMIT), ACCUMULATOR_LIMIT / 2 * float(sizes[-1]) / (float(row) * reach))
    if limit < 1:
        raise SpeakError("a sum of graded spikes would leave 32 bits whatever the weights' format")
    return float(sizes[-1]) * source / limit


def _unit_for(
    network: Network,
    name: str,
    layer: Neurons,
    feeds: list[str],
    units: dict[str, float],
    reach: dict[str, float],
    run: NetworkRun,
    headroom: float,
) -> float:
    """The unit of what goes into a layer of neurons, of all its linear sources at once."""
    finest = max(
        _linear_unit(network.layers[feed], _unit_in(network, feed, units), _reach_in(network, feed, reach))
        for feed in feeds
    )
    scale = np.abs(layer.gain * (layer.syn_gain if layer.syn_gain.size else 1.0)).astype(np.float64)
    if (scale == 0).any():
        raise SpeakError(f"node {name}: a gain of 0 has no fixed-point format")
    potentials = np.abs(run.layers[name].membrane, dtype=np.float64).max(axis=(0, 1))
    needed = (np.maximum(potentials, np.abs(layer.threshold)) * headroom / scale / STATE_LIMIT).max()
    if layer.spiking:
        needed = max(needed, float((np.abs(layer.threshold) / scale).max()) / (MANTISSA_LIMIT << SHIFT_LIMIT))
    unit = max(finest, float(needed))
    if not layer.spiking or np.unique(layer.threshold).size > 1 or np.unique(scale).size > 1:
        return unit
    return _exact_unit(layer, float(scale[0]), unit)


def _exact_unit(layer: Neurons, scale: float, unit: float) -> float:
    """A unit at or above `unit` that makes threshold and resets whole numbers, if a small denominator does."""
    threshold = float(layer.threshold[0])
    if threshold <= 0:
        return unit
    shares = np.unique(np.concatenate((layer.soft_reset, layer.reset_potential)).astype(np.float64) / threshold)
    multiple = math.lcm(*(float32_fraction(float(np.float32(share))).denominator for share in shares))
    best = largest_threshold(int(threshold / scale / unit), multiple)
    return threshold / scale / best if best else unit


def _fix_linear(layer: Layer, source: float, unit: float, finest: float) -> tuple[Layer, float]:
    """The layer in integers whose output counts in `unit`; `finest` is the unit that its weights could have."""

    def whole(value: Array, by: float) -> Array:
        return np.asarray(np.rint(np.asarray(value, dtype=np.float64) * by).astype(np.int64))

    shift = int(np.clip(math.floor(math.log2(unit / finest) + 1e-9), 0, -WIDE_EXPONENT)) if finest < unit else 0
    factor = source / unit * 2.0**shift
    if isinstance(layer, Scale):
        return Scale(whole(layer.scale, factor), shift), unit
    assert isinstance(layer, (Dense, Convolution))
    fixed = replace(layer, weight=whole(layer.weight, factor), bias=whole(layer.bias, 2.0**shift / unit), shift=shift)
    return fixed, unit


def _fix_neurons(name: str, layer: Neurons, unit: float, run: NetworkRun) -> tuple[Neurons, dict[str, Any]]:
    synaptic = layer.syn_gain.astype(np.float64) if layer.syn_gain.size else np.ones(layer.size)
    units = unit * synaptic * layer.gain.astype(np.float64)  # of each neuron's potential

    def whole(value: Array) -> Array:
        return np.asarray(np.rint(value.astype(np.float64) / units).astype(np.int64))

    if (units < 0).any():
        raise SpeakError(f"node {name}: a negative gain has no fixed-point format")
    threshold = np.ceil(layer.threshold.astype(np.float64) / units).astype(np.int64)  # u >= T
    if layer.spiking and (threshold < 1).any():
        raise SpeakError(
            f"node {name}: a threshold of {layer.threshold.min():g} is not a positive whole number of units "
            f"{units.max():g}"
        )
    threshold = _representable(threshold)
    ones = np.ones(layer.size, dtype=np.int64)
    empty = np.zeros(0, dtype=np.int64)
    fixed = Neurons(
        decay=_share(layer.decay),
        gain=ones,
        bias=whole(layer.bias),
        threshold=threshold,
        reset_potential=whole(layer.reset_potential),
        soft_reset=whole(layer.soft_reset),
        gate_threshold=np.floor(layer.gate_threshold.astype(np.float64) / unit).astype(np.int64),
        initial=whole(layer.initial),
        syn_decay=_share(layer.syn_decay) if layer.syn_decay.size else empty,
        syn_gain=ones if layer.syn_gain.size else empty,
        gate=layer.gate,
        spiking=layer.spiking,
    )
    largest = np.abs(run.layers[name].membrane, dtype=np.float64).max(axis=(0, 1))
    return fixed, {
        "unit": float(units.max()),
        "threshold_units": [int(threshold.min()), int(threshold.max())],
        "range_in_thresholds": float((STATE_LIMIT / np.maximum(np.abs(threshold), 1)).min()),
        "largest_potential_in_thresholds": float((largest / np.maximum(np.abs(layer.threshold), 1e-30)).max()),
    }


def _share(decay: Array) -> Array:
    """A decay in 1/4096."""
    return np.asarray(np.rint(decay.astype(np.float64) * DECAY_ONE).astype(np.int64))


def _representable(threshold: Array) -> Array:
    """The next number with a mantissa of 17 bits."""
    shift = np.zeros_like(threshold)
    while ((threshold >> shift) > MANTISSA_LIMIT).any():
        shift = np.where((threshold >> shift) > MANTISSA_LIMIT, shift + 1, shift)
    return np.asarray(-((-threshold) >> shift) << shift)
