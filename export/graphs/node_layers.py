"""A NIR node as a layer: the shape it takes, the shape it gives, its numbers in float32. Needs no torch.

`export.graphs.network` says what NIR leaves open, and how it is read here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.export.files import nir_node
from speak_neuro.export.graphs.layers import OPEN, Convolution, Delay, Dense, Layer, Neurons, Relay, Scale

Shape = tuple[int, ...]
NEURONS = ("I", "LI", "IF", "LIF", "CubaLI", "CubaLIF", "GatedResetLIF", "Threshold")


class Through:
    """The Input or Output of a graph within the graph."""


def layer_of(name: str, node: Any, shape: Shape, dt: float) -> tuple[Layer, Shape]:
    """The layer and the shape it gives."""
    kind = type(node)
    if kind in (nir.Input, nir.Output, Through):
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
            f"node {name}: {field} has shape {text_of(array.shape)}, its input {text_of(shape)}; nothing is broadcast"
        )
    return array.reshape(-1)


def _flattened(name: str, node: Any, shape: Shape) -> Shape:
    size = len(shape)
    start, end = (int(d) % size if -size <= int(d) < size else None for d in (node.start_dim, node.end_dim))
    if start is None or end is None or start > end:
        raise SpeakError(
            f"node {name}: flattens dimensions {node.start_dim} to {node.end_dim} of a shape {text_of(shape)} "
            "(no batch in it)"
        )
    return (*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])


def _dense(name: str, node: Any, shape: Shape) -> tuple[Layer, Shape]:
    weight = np.asarray(node.weight, dtype=np.float32)
    if weight.ndim != 2 or shape != (weight.shape[1],):
        raise SpeakError(f"node {name}: weights of shape {text_of(weight.shape)} cannot take {text_of(shape)} values")
    bias = np.asarray(getattr(node, "bias", np.zeros(len(weight))), dtype=np.float32)
    if bias.shape != (len(weight),):
        raise SpeakError(f"node {name}: bias has shape {text_of(bias.shape)}; allowed: ({len(weight)},)")
    return Dense(weight, bias), (len(weight),)


def _pair(value: Any, dimensions: int) -> tuple[int, ...]:
    numbers = np.asarray(value).reshape(-1)
    return tuple(int(n) for n in (np.repeat(numbers, dimensions) if numbers.size == 1 else numbers))


def _convolution(name: str, node: Any, shape: Shape) -> tuple[Layer, Shape]:
    weight = np.asarray(node.weight, dtype=np.float32)
    dimensions, groups = weight.ndim - 2, int(np.asarray(node.groups).reshape(-1)[0])
    if len(shape) != dimensions + 1 or shape[0] != weight.shape[1] * groups:
        raise SpeakError(
            f"node {name}: weights of shape {text_of(weight.shape)} in {groups} group(s) cannot take "
            f"{text_of(shape)} values"
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
        raise SpeakError(f"node {name}: pools pictures (channels, height, width), its input has shape {text_of(shape)}")
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
        raise SpeakError(f"a kernel of {text_of(kernel)} does not fit a picture of {text_of(size)}")
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
            f"node {name} takes {text_of(taken)} values (lanes [current | gate logit]), its sources give "
            f"{text_of(shape)}; nothing is broadcast"
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


def text_of(shape: Any) -> str:
    return "(" + ", ".join(str(int(n)) for n in shape) + ("," if len(shape) == 1 else "") + ")"
