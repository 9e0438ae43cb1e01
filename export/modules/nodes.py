"""One torch or snnTorch layer to the NIR node that computes the same, or a refusal with the reason.

    GatedLeaky, GatedLeakyCell      GatedResetLIF; modes without a gate have a constant one
    snntorch.Leaky                  LIF with tau = dt / (1 - beta), r = tau / dt, both in float64 so that beta comes
                                    back exactly;
                                    IF when beta is 1. reset_mechanism "zero"; "none" is a GatedResetLIF that never
                                    resets
    snntorch.Synaptic               CubaLIF, "zero" with reset_delay=False
    snntorch.RLeaky                 the same as Leaky, with a Linear or Conv2d from its spikes back to its input
    Linear, Conv1d, Conv2d          Affine or Linear, Conv1d, Conv2d
    AvgPool2d, Flatten              the same
    Dropout, Identity               nothing (in evaluation)

NIR's neurons reset to v_reset at the step of the spike. snnTorch's default, "subtract" a step later, is another neuron.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import numpy.typing as npt
import snntorch
import torch
from torch import nn

from speak_neuro.errors import SpeakError
from speak_neuro.export.files.nir_node import GatedResetLIF
from speak_neuro.export.graphs.network import DT
from speak_neuro.neuron.module import GatedLeaky, GatedLeakyCell
from speak_neuro.neuron.resets import compiled_reset, why_not_compiled

Shape = tuple[int, ...]
STATEFUL = (GatedLeaky, GatedLeakyCell, snntorch.Leaky, snntorch.Synaptic, snntorch.RLeaky)
"""Layers of neurons; the first value that they return is the spikes."""
PASSES = (nn.Dropout, nn.Identity, nn.Dropout2d)


class UnsupportedLayer(SpeakError):
    """A layer that NIR's nodes cannot say exactly; the message says what can be done."""


@dataclass(frozen=True)
class Piece:
    """The node of one layer, and of a recurrent one what leads from its spikes back to its input."""

    node: Any
    back: Any = None


def piece_of(name: str, module: nn.Module, taken: Shape, given: Shape) -> Piece | None:
    """The node of a layer that takes and gives values of these shapes (no batch, no time); None for one that does
    nothing."""
    if isinstance(module, PASSES):
        return None
    for kind, make in _MAKERS.items():
        if type(module) is kind:
            return make(name, module, taken, given)
    raise UnsupportedLayer(
        f"{name} is a {type(module).__name__}, which NIR has no node for; allowed: "
        f"{', '.join(kind.__name__ for kind in _MAKERS)}, Dropout, Identity"
    )


def check_runnable(module: nn.Module) -> None:
    """Refuse a layer that no run of it can be compared with."""
    for name, layer in module.named_modules():
        if isinstance(layer, snntorch.RSynaptic):
            raise UnsupportedLayer(
                f"{name or 'the module'}: snnTorch 1.0's RSynaptic never resets at the step of its spike, whatever "
                "reset_delay says; allowed: Synaptic and a Linear(bias=False) that gets its spikes of the step before, "
                "or RLeaky"
            )


def _array(value: torch.Tensor) -> npt.NDArray[Any]:
    return value.detach().cpu().numpy()


def _weights(name: str, module: Any) -> npt.NDArray[np.float32]:
    weight = _array(module.weight)
    if weight.dtype != np.float32:
        raise UnsupportedLayer(f"{name}: its weights are {weight.dtype}; allowed: float32")
    return weight


def _linear(name: str, module: Any, taken: Shape, given: Shape) -> Piece:
    weight = _weights(name, module)
    if len(taken) != 1:
        raise UnsupportedLayer(
            f"{name}: a Linear over the last of several axes {taken}; allowed: one axis, Flatten before it"
        )
    return Piece(
        nir.Linear(weight=weight) if module.bias is None else nir.Affine(weight=weight, bias=_array(module.bias))
    )


def _conv(name: str, module: Any, taken: Shape, given: Shape) -> Piece:
    weight = _weights(name, module)
    if module.padding_mode != "zeros":
        raise UnsupportedLayer(f"{name}: padding_mode is {module.padding_mode!r}; allowed: 'zeros'")
    bias = np.zeros(len(weight), dtype=np.float32) if module.bias is None else _array(module.bias)
    if len(set(module.kernel_size)) > 1:
        raise UnsupportedLayer(
            f"{name}: a kernel of {module.kernel_size}; nir takes kernels for squares and could not read it"
        )
    weight = _ungrouped(weight, module.groups)
    one = isinstance(module, nn.Conv1d)
    if isinstance(module.padding, str):
        padding: Any = module.padding
    else:
        padding = int(module.padding[0]) if one else tuple(int(p) for p in module.padding)
    node = (nir.Conv1d if one else nir.Conv2d)(
        input_shape=int(taken[1]) if one else tuple(int(n) for n in taken[1:]),
        weight=weight,
        stride=int(module.stride[0]) if one else tuple(int(s) for s in module.stride),
        padding=padding,
        dilation=int(module.dilation[0]) if one else tuple(int(d) for d in module.dilation),
        groups=1,
        bias=bias,
    )
    node.input_type, node.output_type = {"input": np.array(taken)}, {"output": np.array(given)}
    return Piece(node)


def _ungrouped(weight: npt.NDArray[np.float32], groups: int) -> npt.NDArray[np.float32]:
    """The same convolution in one group, with zeros between the groups: nir infers wrong shapes from several."""
    if groups == 1:
        return weight
    out, inner = weight.shape[0] // groups, weight.shape[1]
    whole = np.zeros((weight.shape[0], inner * groups, *weight.shape[2:]), dtype=np.float32)
    for g in range(groups):
        rows = slice(g * out, (g + 1) * out)
        whole[rows, g * inner : (g + 1) * inner] = weight[rows]
    return whole


def _pair(value: Any) -> npt.NDArray[np.int64]:
    return np.array([value, value] if isinstance(value, int) else list(value))


def _pool(name: str, module: Any, taken: Shape, given: Shape) -> Piece:
    padded = bool(np.any(_pair(module.padding)))
    if module.ceil_mode or module.divisor_override is not None or (padded and not module.count_include_pad):
        raise UnsupportedLayer(
            f"{name}: ceil_mode, divisor_override and count_include_pad=False have no place in NIR's AvgPool2d"
        )
    node = nir.AvgPool2d(
        kernel_size=_pair(module.kernel_size), stride=_pair(module.stride), padding=_pair(module.padding)
    )
    node.input_type, node.output_type = {"input": np.array(taken)}, {"output": np.array(given)}
    return Piece(node)


def _flatten(name: str, module: Any, taken: Shape, given: Shape) -> Piece:
    if module.start_dim == 0:
        raise UnsupportedLayer(f"{name}: flattens the batch; allowed: start_dim 1 or more")
    start = module.start_dim - 1 if module.start_dim > 0 else module.start_dim
    end = module.end_dim - 1 if module.end_dim > 0 else module.end_dim
    return Piece(nir.Flatten(input_type={"input": np.array(taken)}, start_dim=start, end_dim=end))


def _gated(name: str, module: Any, taken: Shape, given: Shape) -> Piece:
    if reason := why_not_compiled(module.mode):
        raise UnsupportedLayer(f"{name}: {reason}")
    p, (rule, soft) = module.parameters_numpy(), compiled_reset(module.mode)
    scale = p.reset_scale if soft else np.zeros_like(p.reset_scale)
    values = (p.decay, p.gain, p.threshold, p.reset_potential, scale, np.zeros_like(p.decay))
    fields = [
        np.broadcast_to(np.asarray(v).reshape(-1, *(1,) * (len(given) - 1)), given).astype(np.float32) for v in values
    ]
    return Piece(GatedResetLIF(*fields, gate={None: 0, True: 1, False: -1}[rule]))


def _check_snntorch(name: str, module: Any, delayed_zero: bool) -> str:
    """The reset mechanism of a layer of snnTorch's, if NIR has it."""
    kind = type(module).__name__
    mechanism = str(module.reset_mechanism)
    advice = "reset_mechanism='zero', reset_delay=False"
    if mechanism == "subtract":
        raise UnsupportedLayer(
            f"{name}: {kind} subtracts its threshold"
            + (" a step later" if module.reset_delay else "")
            + f", NIR's LIF resets to v_reset at once; allowed: {advice}, or GatedLeaky(mode='soft'), which subtracts "
            "at once"
        )
    if mechanism == "zero" and module.reset_delay and not delayed_zero:
        raise UnsupportedLayer(f"{name}: {kind} resets a step later and drops that step's input; allowed: {advice}")
    if float(module.graded_spikes_factor) != 1:
        raise UnsupportedLayer(f"{name}: graded_spikes_factor is {float(module.graded_spikes_factor):g}; allowed: 1")
    if module.inhibition or module.state_quant:
        raise UnsupportedLayer(f"{name}: inhibition and state_quant have no place in NIR")
    return mechanism


def _spread(name: str, field: str, value: torch.Tensor, shape: Shape) -> npt.NDArray[np.float32]:
    """A parameter of snnTorch's, which torch would broadcast over the last axes, in the full shape."""
    array = _array(value).astype(np.float32)
    try:
        return np.broadcast_to(array, shape).copy()
    except ValueError:
        raise UnsupportedLayer(f"{name}: {field} has shape {array.shape}, its input {shape}") from None


def _membrane(decay: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """tau and r in float64: 1 - DT / tau rounds back to the decay, r DT / tau to 1."""
    tau = DT / (1 - decay.astype(np.float64))
    return tau, tau / DT


def _leaky(name: str, module: Any, taken: Shape, given: Shape) -> Piece:
    mechanism = _check_snntorch(name, module, delayed_zero=type(module) is snntorch.Leaky)
    beta = np.clip(_spread(name, "beta", module.beta, given), 0, 1)
    threshold = _spread(name, "threshold", module.threshold, given)
    zeros = np.zeros(given, dtype=np.float32)
    if mechanism == "none":
        above = np.nextafter(threshold, np.float32(np.inf))  # snnTorch fires where u > threshold
        node = GatedResetLIF(beta, np.ones_like(beta), above, zeros, zeros, zeros, gate=-1)
    elif (beta == 1).all():
        node = nir.IF(r=np.full(given, 1 / DT), v_threshold=threshold, v_reset=zeros)
    elif (beta == 1).any():
        raise UnsupportedLayer(f"{name}: some betas are 1 and some less; NIR has a node for each, not for both")
    else:
        tau, r = _membrane(beta)
        node = nir.LIF(tau=tau, r=r, v_leak=np.zeros(given), v_threshold=threshold, v_reset=zeros)
    return Piece(node, _recurrent(name, module, given))


def _synaptic(name: str, module: Any, taken: Shape, given: Shape) -> Piece:
    if _check_snntorch(name, module, delayed_zero=False) != "zero":
        raise UnsupportedLayer(f"{name}: a Synaptic without reset; allowed: reset_mechanism='zero', reset_delay=False")
    alpha, beta = (np.clip(_spread(name, field, getattr(module, field), given), 0, 1) for field in ("alpha", "beta"))
    if (alpha == 1).any() or (beta == 1).any():
        raise UnsupportedLayer(f"{name}: alpha or beta is 1, a CubaLIF's time constant would be infinite")
    tau, r = _membrane(beta)
    tau_syn, w_in = _membrane(alpha)
    node = nir.CubaLIF(
        tau_syn=tau_syn,
        tau_mem=tau,
        r=r,
        v_leak=np.zeros(given),
        v_threshold=_spread(name, "threshold", module.threshold, given).astype(np.float64),
        v_reset=np.zeros(given),
        w_in=w_in,
    )
    return Piece(node)


def _recurrent(name: str, module: Any, shape: Shape) -> Any:
    """What leads from the spikes of RLeaky back to its input."""
    inner = getattr(module, "recurrent", None)
    if inner is None:
        return None
    if isinstance(inner, nn.Linear):
        return _linear(f"{name}.recurrent", inner, shape, shape).node
    if isinstance(inner, nn.Conv2d):
        return _conv(f"{name}.recurrent", inner, shape, shape).node
    return nir.Scale(scale=_spread(f"{name}.recurrent", "V", inner.V, shape))


_MAKERS: dict[type, Callable[[str, Any, Shape, Shape], Piece]] = {
    GatedLeaky: _gated,
    GatedLeakyCell: _gated,
    snntorch.Leaky: _leaky,
    snntorch.RLeaky: _leaky,
    snntorch.Synaptic: _synaptic,
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.AvgPool2d: _pool,
    nn.Flatten: _flatten,
}
