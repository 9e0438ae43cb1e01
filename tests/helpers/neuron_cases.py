"""Runs of the neuron for tests: any constants, mode, state and padding, and currents chosen to hurt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from speak_neuro.common.array_types import BoolArray, Float32Array
from speak_neuro.neuron.functional import GatedLIFOutput, gated_lif_scan
from speak_neuro.neuron.reference import CONSTANTS, NeuronParameters, gated_lif_run
from speak_neuro.neuron.resets import RESETS

Terms = Callable[[GatedLIFOutput], list[Tensor]]
"""The terms of a loss."""


@dataclass
class NeuronCase:
    """Arguments of one run of the neuron."""

    current: Float32Array
    gate_logit: Float32Array
    parameters: NeuronParameters = field(default_factory=NeuronParameters)
    state: Float32Array | None = None
    valid: BoolArray | None = None

    def run(self) -> Any:
        return gated_lif_run(self.current, self.gate_logit, self.parameters, self.state, self.valid)


def run_scan(
    case: NeuronCase,
    backend: str,
    *,
    device: str = "cpu",
    detach_reset: bool = False,
    leaves: dict[str, Tensor] | None = None,
) -> GatedLIFOutput:
    """`case` by a backend of `gated_lif_scan`; `leaves`, if given, gets its differentiable inputs by name."""

    def tensor(array: Any) -> Any:
        return None if array is None else torch.from_numpy(np.array(array)).to(device)

    current, state = tensor(case.current), tensor(case.state)
    options = {name: tensor(getattr(case.parameters, name)) for name in CONSTANTS}
    if leaves is not None:
        wanted = {"current": current, "state": state, **options}
        leaves.update({name: t.requires_grad_() for name, t in wanted.items() if t is not None})
    return gated_lif_scan(
        current,
        tensor(case.gate_logit),
        state,
        tensor(case.valid),
        **options,
        mode=case.parameters.mode,
        detach_reset=detach_reset,
        backend=backend,
    )


def scan_gradients(
    case: NeuronCase,
    backend: str,
    terms: Terms,
    *,
    device: str = "cpu",
    detach_reset: bool = False,
) -> dict[str, Tensor]:
    """The gradient of a loss of the scan's output, the sum of its terms, in every differentiable input, by name."""
    leaves: dict[str, Tensor] = {}
    value = sum(
        terms(run_scan(case, backend, device=device, detach_reset=detach_reset, leaves=leaves)), torch.zeros(())
    )
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


@dataclass
class Magnitudes:
    """What gradients are sums of, without signs: their rounding is relative to this, however much of it cancels."""

    largest: float
    """The largest sum over terms of |dL_i/du_t|."""
    summed: float
    """Sum over terms and positions of |dL_i/du_t| max(1, |u_t|, |I_t|, |U_0|): a constant's gradient is made of it."""
    gain: float
    """The largest |gain|, by which a current's gradient is dL/du_t."""


def magnitudes(case: NeuronCase, terms: Terms, *, detach_reset: bool = False) -> Magnitudes:
    """The magnitudes of a loss's gradients, by the loop.

    dL/du_t is the gradient of a current that is multiplied by the gain before, not in, the scan. The current's own
    gradient, gain dL/du_t, does not tell it: a gain near zero makes that small and the summands not. And the terms of
    the loss one by one, since dL/du_t is itself what is left of them.
    """
    gain = np.asarray(case.parameters.gain, dtype=np.float32)
    scaled = replace(case, current=gain * case.current, parameters=replace(case.parameters, gain=np.float32(1)))
    leaves: dict[str, Tensor] = {}
    output = run_scan(scaled, "loop", detach_reset=detach_reset, leaves=leaves)
    total = torch.zeros_like(output.membrane)
    for term in terms(output):
        if term.requires_grad:
            options: dict[str, Any] = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
            total += torch.autograd.grad(term, leaves["current"], **options)[0].abs()
    sizes = torch.maximum(output.membrane.detach().abs(), torch.from_numpy(case.current).abs()).clamp(min=1)
    if case.state is not None:
        sizes = torch.maximum(sizes, torch.from_numpy(case.state).abs().unsqueeze(1))
    return Magnitudes(float(total.max()), float((total * sizes).sum()), float(np.abs(gain).max()))


def assert_gradients_close(got: dict[str, Tensor], want: dict[str, Tensor], scale: Magnitudes) -> None:
    """1e-5 of each value. What cancels gets as much of what was summed, and of a constant, a sum over all positions, a
    tenth of that."""
    for name, value in want.items():
        largest = scale.largest * (scale.gain if name == "current" else 1)
        slack = 1e-6 * scale.summed if name in CONSTANTS else 1e-5 * max(largest, float(value.abs().max()))
        torch.testing.assert_close(
            got[name].to(value.device),
            value,
            rtol=1e-5,
            atol=slack,
            msg=lambda text, n=name: f"{n}: {text}",  # type: ignore[misc]
        )


def adversarial_currents(shape: tuple[int, ...], seed: int, kind: str) -> Float32Array:
    """Currents chosen to hurt: `CURRENT_KINDS` names the kinds."""
    random = np.random.default_rng(seed)
    if kind == "quarters":  # sums land exactly on a threshold of 1
        values = random.integers(-2, 5, shape) / 4
    elif kind == "sixty-fourths":
        values = random.integers(-16, 49, shape) / 64
    elif kind == "one ulp":  # 1, and the floats next to it
        values = np.nextafter(np.float32(1), np.array([0, 1, 2], dtype=np.float32))[random.integers(0, 3, shape)]
    elif kind == "zero":
        values = np.zeros(shape)
    elif kind == "huge":
        values = random.choice([1e30, -1e30, 3e38, 1e7, 0.3], shape)
    elif kind == "negative":
        values = -random.random(shape)
    elif kind == "tiny":  # subnormal numbers and signed zeros
        values = random.choice([1e-40, -1e-40, 0.0, -0.0, 1e-30], shape)
    elif kind == "random":
        values = random.normal(0.3, 0.7, shape)
    else:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(CURRENT_KINDS)}")
    return values.astype(np.float32)


CURRENT_KINDS = ("quarters", "sixty-fourths", "one ulp", "zero", "huge", "negative", "tiny", "random")


def neuron_cases(
    *, max_batch: int = 4, max_length: int = 40, max_neurons: int = 3, unit_constants: bool | None = None
) -> SearchStrategy[NeuronCase]:
    """Hypothesis strategy of `NeuronCase`: every mode, (B, L) and (B, L, N), with and without state and padding.

    `unit_constants`: True keeps decay = gain = 1 (the sums of the drawn currents are then exact), False draws them.
    """

    @st.composite
    def cases(draw: Any) -> NeuronCase:
        batch, length = draw(st.integers(1, max_batch)), draw(st.integers(0, max_length))
        neurons = draw(st.none() | st.integers(1, max_neurons))
        shape = (batch, length) if neurons is None else (batch, length, neurons)
        lanes = (batch,) if neurons is None else (batch, neurons)
        seed = draw(st.integers(0, 2**32 - 1))
        random = np.random.default_rng(seed)
        unit = draw(st.booleans()) if unit_constants is None else unit_constants

        def constant(low: float, high: float) -> Float32Array:
            size = draw(st.sampled_from([(), (neurons or 1,)]))
            return np.asarray(np.round(random.uniform(low, high, size) * 64) / 64, dtype=np.float32)

        parameters = NeuronParameters(
            decay=1.0 if unit else np.asarray(random.random(), dtype=np.float32),
            gain=1.0 if unit else np.asarray(random.uniform(-2, 2), dtype=np.float32),
            threshold=constant(0.5, 2),
            reset_potential=constant(-1, 0.25),
            reset_scale=constant(0, 1),
            mode=draw(st.sampled_from(list(RESETS))),
        )
        lengths = random.integers(0, length + 1, batch)
        return NeuronCase(
            current=adversarial_currents(shape, seed, draw(st.sampled_from(CURRENT_KINDS))),
            gate_logit=random.choice([-1.0, -0.0, 0.0, 1e-40, 1.0], shape).astype(np.float32),
            parameters=parameters,
            state=draw(st.sampled_from([None, random.normal(0, 1, lanes).astype(np.float32)])),
            valid=draw(st.sampled_from([None, np.arange(length) < lengths[:, None]])),
        )

    return cases()
