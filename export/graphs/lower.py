"""The gated-reset neuron out of stock NIR primitives, bit for bit: for readers without GatedResetLIF.

NIR has no product of a spike and a potential, so "forget u at a hard reset" must be built. A spike has u >= threshold
> 0, and in finite precision such a u is a sum of finitely many powers of two, which comparisons can peel off:

    r = u;  for e = high .. low:    b_e = [r >= 2^e],   r <- r - 2^e b_e          the bits of u, from the top
    hard = [s + m > 1.5]            soft = [s - m > 0.5]                          s spike, m gate
    kept = u - sum_e 2^e [b_e + hard > 1.5]                                       u, or exactly 0 at a hard reset
    v    = kept + reset_potential * hard - soft_reset * soft

All of it is Scale, Threshold and fan-in, element by element, with one edge back: v -> leak -> u of the next step. Every
partial sum of `kept` is made of u's own bits, hence exact in any order, and no other sum has more than two terms that
are not zero. So the result does not depend on the order in which a reader adds, and is the neuron's to the last bit
(the sign of a zero aside).

2^(high + 1) must exceed every potential (`largest_potential` proves it), 2^low be the last bit that a potential at or
above the threshold can have: 23 places below the threshold's first bit in float32, 52 in float64, or the unit of a grid
that all numbers lie on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import nir
import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import Float64Array
from speak_neuro.errors import SpeakError
from speak_neuro.export.files.nir_node import GatedResetLIF

Precision = Literal["float32", "float64"]
SMALLEST_EXPONENT = {"float32": -149, "float64": -1074}
MANTISSA = {"float32": 24, "float64": 53}


class NotLowerable(SpeakError):
    """The neuron cannot be written with stock primitives exactly; the message says why."""


@dataclass(frozen=True)
class Lowered:
    """The lowered graph and what it rests on."""

    graph: nir.NIRGraph
    bits: int
    """Bits of the potential that a hard reset can forget."""
    largest_potential: float
    """No potential exceeds this."""
    reason: str
    """Why."""


def largest_potential(
    node: GatedResetLIF, largest_current: npt.ArrayLike, mantissa: int = 24
) -> tuple[Float64Array, list[str]]:
    """A bound (N,) on u when no |current| exceeds `largest_current`, and for each neuron why it holds.

    With D = |gain| * largest_current and A the largest v (at rest v < threshold): u <= decay A + D and, after a soft
    reset, v <= decay A + D - soft. Three arguments, of which the smallest bound counts:

        drive     D <= soft: a soft reset takes away at least what came in, A = threshold
        decay     A = (D - soft) / (1 - decay), or the threshold if that is larger
        rounding  beyond 2^(mantissa + 1) D, adding D changes nothing: half the unit in the last place is more than D
    """
    decay, gain, threshold, scale = (
        np.asarray(value, dtype=np.float64)
        for value in (node.decay, node.gain, node.v_threshold, soft_reset_factor(node))
    )
    bounds, reasons = [], []
    for g, a, th, soft, current in zip(
        decay, gain, threshold, scale, np.broadcast_to(np.abs(largest_current), decay.shape), strict=True
    ):
        drive = abs(a) * float(current) * (1 + 2.0**-20)
        if not math.isfinite(drive) or drive > 2.0**100:
            raise NotLowerable(f"the largest drive is {drive:g}; allowed: up to 2^100")
        largest = max(drive, abs(soft), 2.0**-100)
        found = [
            (2.0 ** (mantissa + 1 + math.ceil(math.log2(largest))), "beyond it no current is large enough to count")
        ]
        unit = 2.0**-22
        if soft >= drive + unit * (th + drive):
            found.append((th, "a soft reset takes away at least the largest current"))
        if 1 - g >= 2.0**-16:
            found.append((max(th, (drive - soft) / (1 - g - 2.0**-21)), "the decay outweighs the current"))
        v, reason = min(found)
        bounds.append((max(v, th) + drive) * (1 + 2.0**-20))
        reasons.append(reason)
    return np.array(bounds), reasons


def soft_reset_factor(node: GatedResetLIF) -> npt.NDArray[np.float32]:
    """What a soft reset subtracts, (N,), rounded to float32 once."""
    return np.asarray(np.multiply(node.reset_scale, node.v_threshold, dtype=np.float32))


def grid_exponent(*values: npt.ArrayLike) -> int | None:
    """The largest e such that every value is a whole multiple of 2^e; None when all are zero."""
    numbers = np.concatenate([np.asarray(v, dtype=np.float64).reshape(-1) for v in values])
    numbers = numbers[numbers != 0]
    if not numbers.size:
        return None
    mantissa, exponent = np.frexp(numbers)
    whole = np.abs(mantissa * 2.0**53).astype(np.int64)
    lowest_bit = np.log2((whole & -whole).astype(np.float64)).astype(np.int64)
    return int((exponent - 53 + lowest_bit).min())


def refuse(node: GatedResetLIF, largest_current: npt.ArrayLike | None) -> list[str]:
    """Why this neuron cannot be lowered; empty when it can."""
    reasons = []
    if node.spec_version > 1:
        reasons.append("a constant gate or the shape of a picture is not lowered; give the neuron lanes and shape (N,)")
    if (node.v_threshold <= 0).any():
        reasons.append(f"v_threshold is {node.v_threshold.min():g}; only a potential above 0 has bits to peel off")
    if largest_current is None:
        reasons.append(
            "nothing bounds the current, so no range of bits is enough for certain; state one with --largest-current"
        )
    elif not np.isfinite(largest_current).all() or (np.asarray(largest_current) < 0).any():
        reasons.append(f"the largest current is {np.max(largest_current)}; allowed: finite, at least 0")
    return reasons


def lower(
    native: nir.NIRGraph,
    largest_current: npt.ArrayLike | None,
    *,
    unit: int | None = None,
    at_most: float | None = None,
    precision: Precision = "float32",
) -> Lowered:
    """Replace the one GatedResetLIF of `native` by stock nodes.

    `largest_current`: no |current| that the rest of the graph can give exceeds it. `unit`: every drive is a multiple of
    2^unit (`grid_exponent`), which saves bits where decay is 0 or 1. `at_most`: a bound on the potential that the
    caller vouches for, instead of the proven one. `precision`: what the reader computes in.
    """
    names = [name for name, node in native.nodes.items() if isinstance(node, GatedResetLIF)]
    if len(names) != 1:
        raise NotLowerable(f"the graph has {len(names)} GatedResetLIF nodes; allowed: one")
    node = native.nodes[names[0]]
    reasons = refuse(node, largest_current)
    if reasons:
        raise NotLowerable("cannot be lowered: " + "; ".join(reasons))
    assert largest_current is not None
    bound, why = largest_potential(node, largest_current, MANTISSA[precision])
    if at_most is not None:
        if not math.isfinite(at_most) or at_most < node.v_threshold.max():
            raise NotLowerable(f"the largest potential is {at_most}; allowed: finite, at least the threshold")
        bound, why = np.array([at_most]), ["stated, not proven"]
    high = math.floor(math.log2(float(bound.max())))
    low = math.floor(math.log2(float(node.v_threshold.min()))) - MANTISSA[precision] + 1
    low = max(low, SMALLEST_EXPONENT[precision])
    if unit is not None and np.isin(node.decay, (0, 1)).all():
        grid = grid_exponent(soft_reset_factor(node), node.v_reset)
        low = max(low, unit if grid is None else min(unit, grid))
    high = max(high, low)
    nodes, edges = _neuron(node, high, low, precision)
    into = [source for source, target in native.edges if target == names[0]]
    after = [target for source, target in native.edges if source == names[0]]
    nodes |= {name: other for name, other in native.nodes.items() if name != names[0]}
    neurons = node.decay.size
    half, none = np.eye(neurons, dtype=np.float32), np.zeros((neurons, neurons), dtype=np.float32)
    # Only sums with zero: picking lanes is exact whatever the order.
    nodes["neuron_current"] = nir.Linear(weight=np.concatenate([half, none], axis=1))
    nodes["neuron_logit"] = nir.Linear(weight=np.concatenate([none, half], axis=1))
    edges += [(source, lane) for source in into for lane in ("neuron_current", "neuron_logit")]
    edges += [("neuron_spike", target) for target in after]
    edges += [edge for edge in map(tuple, native.edges) if names[0] not in edge]
    if "neuron_first" in nodes:
        source = next(name for name, other in native.nodes.items() if isinstance(other, nir.Input))
        width = int(np.prod(native.nodes[source].output_type["output"]))
        nodes["neuron_one"] = nir.Affine(
            weight=np.zeros((neurons, width), dtype=np.float32), bias=np.ones(neurons, dtype=np.float32)
        )
        edges.append((source, "neuron_one"))
    graph = nir.NIRGraph(nodes=dict(sorted(nodes.items())), edges=sorted(edges), metadata=dict(native.metadata or {}))
    return Lowered(graph, high - low + 1, float(bound.max()), ", ".join(sorted(set(why))))


def _neuron(
    node: GatedResetLIF, high: int, low: int, precision: Precision
) -> tuple[dict[str, nir.NIRNode], list[tuple[str, str]]]:
    """The nodes of the neuron between its lanes and its spikes. All names begin with neuron_, after `input`: a reader
    that looks for the closing edge of the cycle from the first name on finds the one from the leak to the potential.
    """
    dtype = np.dtype(precision)
    neurons = node.decay.size
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[tuple[str, str]] = []

    def scale(name: str, factor: Any, *sources: str) -> None:
        nodes[name] = nir.Scale(scale=np.broadcast_to(np.asarray(factor, dtype=dtype), (neurons,)).copy())
        edges.extend((source, name) for source in sources)

    def threshold(name: str, value: Any, *sources: str) -> None:
        nodes[name] = nir.Threshold(threshold=np.broadcast_to(np.asarray(value, dtype=dtype), (neurons,)).copy())
        edges.extend((source, name) for source in sources)

    def at_least(value: Any) -> Any:
        """For a reader that compares with >: the number just below."""
        return np.nextafter(np.asarray(value, dtype=dtype), dtype.type(-np.inf))

    def peel(source: str) -> list[tuple[str, Any]]:
        """The bits of `source` from 2^high to 2^low: name and value of each."""
        found = []
        rest = source
        for index, exponent in enumerate(range(high, low - 1, -1)):
            bit, take = f"neuron_bit_{index:03d}", f"neuron_take_{index:03d}"
            power = dtype.type(2.0**exponent)
            threshold(bit, at_least(power), rest)
            found.append((bit, power))
            if exponent > low:
                scale(take, -power, bit)
                following = f"neuron_rest_{index + 1:03d}"
                scale(following, 1, rest, take)
                rest = following
        return found

    u, v = "neuron_potential", "neuron_state"
    scale("neuron_drive", node.gain, "neuron_current")
    scale("neuron_leak", node.decay, v)
    scale(u, 1, "neuron_drive", "neuron_leak")
    start = np.multiply(node.decay, node.v_reset, dtype=np.float32)
    if start.any():
        # The first step finds 0 in the cycle, where the neuron's potential is v_reset: 1 once, and 0 ever after.
        scale("neuron_first", 1, "neuron_one", "neuron_later")
        nodes["neuron_later"] = nir.Affine(
            weight=np.zeros((neurons, neurons), dtype=np.float32), bias=-np.ones(neurons, dtype=np.float32)
        )
        edges.append(("neuron_first", "neuron_later"))
        scale("neuron_start", start, "neuron_first")
        edges.append(("neuron_start", u))
    threshold("neuron_spike", at_least(node.v_threshold), u)
    threshold("neuron_gate", node.gate_threshold, "neuron_logit")
    threshold("neuron_hard", 1.5, "neuron_spike", "neuron_gate")
    scale("neuron_kept", 1, u)
    for index, (bit, power) in enumerate(peel(u)):
        held, cancel = f"neuron_held_{index:03d}", f"neuron_cancel_{index:03d}"
        threshold(held, 1.5, bit, "neuron_hard")
        scale(cancel, -power, held)
        edges.append((cancel, "neuron_kept"))
    scale(v, 1, "neuron_kept")
    if node.v_reset.any():
        scale("neuron_reset", node.v_reset, "neuron_hard")
        edges.append(("neuron_reset", v))
    soft = soft_reset_factor(node)
    if soft.any():  # else the nodes would lead nowhere, which NIR takes for a second output
        scale("neuron_closed", -1, "neuron_gate")
        threshold("neuron_soft", 0.5, "neuron_spike", "neuron_closed")
        scale("neuron_fall", -soft, "neuron_soft")
        edges.append(("neuron_fall", v))
    return nodes, edges
