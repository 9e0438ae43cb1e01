"""The straight-through gradient into the gate logit: against finite differences, in every backend; and the warning."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from speak_neuro.neuron.functional import gated_lif_scan
from speak_neuro.neuron.module import GatedLeaky
from speak_neuro.neuron.reference import NeuronParameters, gated_lif_run
from speak_neuro.neuron.resets import compiled_reset

SLOPE, GATE_SLOPE = 4.0, 1.5
CONSTANTS: dict[str, float] = {
    "decay": 0.9, "gain": 1.1, "threshold": 1.0, "reset_potential": -0.2, "reset_scale": 0.8
}  # fmt: skip


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def smoothed_loss(current, gate, mode, valid, weights, hard_run) -> float:
    """The loss of a smooth neuron that has the spikes and gates of the hard run at the point where it was made.

    Around that point spike and gate follow their sigmoids: s = S + sig(k (u - th)) - sig(k (U - th)), and m alike, so
    finite differences of this function are what a straight-through gradient stands for.
    """
    membrane, spikes, logits = hard_run
    p = CONSTANTS
    soft = p["reset_scale"] * p["threshold"] if compiled_reset(mode).soft else 0.0
    v = np.full(current.shape[:1] + current.shape[2:], p["reset_potential"])
    total = 0.0
    for t in range(current.shape[1]):
        u = p["decay"] * v + p["gain"] * current[:, t]
        s = spikes[:, t] + sigmoid(SLOPE * (u - p["threshold"])) - sigmoid(SLOPE * (membrane[:, t] - p["threshold"]))
        m = (logits[:, t] > 0) + sigmoid(GATE_SLOPE * gate[:, t]) - sigmoid(GATE_SLOPE * logits[:, t])
        after = (1 - s) * u + s * (m * p["reset_potential"] + (1 - m) * (u - soft))
        real = valid[:, t].reshape((-1,) + (1,) * (v.ndim - 1))
        s, u, v = np.where(real, s, 0.0), np.where(real, u, v), np.where(real, after, v)
        total += (weights[0][:, t] * s).sum() + (weights[1][:, t] * u).sum()
    return float(total + (weights[2] * v).sum())


def example(shape, seed, mode):
    rng = np.random.default_rng(seed)
    current, gate = rng.normal(0.5, 0.7, shape), rng.normal(0, 1, shape)
    valid = np.arange(shape[1]) < rng.integers(shape[1] // 2, shape[1] + 1, shape[0])[:, None]
    weights = rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=shape[:1] + shape[2:])
    return current, gate, valid, weights


def straight_through(current, gate, valid, weights, mode, backend, dtype, device="cpu"):
    leaf = torch.tensor(gate, dtype=dtype, device=device, requires_grad=True)
    output = gated_lif_scan(
        torch.tensor(current, dtype=dtype, device=device),
        leaf,
        None,
        torch.tensor(valid, device=device),
        **CONSTANTS,
        mode=mode,
        surrogate_slope=SLOPE,
        gate_slope=GATE_SLOPE,
        backend=backend,
    )
    spikes, membrane, state = (torch.tensor(w, dtype=dtype, device=device) for w in weights)
    loss = (output.spikes * spikes).sum() + (output.membrane * membrane).sum() + (output.state * state).sum()
    (found,) = torch.autograd.grad(loss, leaf)
    return found.double().cpu().numpy(), output


@pytest.mark.parametrize("mode", ["gated", "hard/none"])
@pytest.mark.parametrize("shape", [(3, 24), (2, 18, 4)])
def test_it_is_the_finite_difference_of_the_smoothed_neuron(mode, shape) -> None:
    current, gate, valid, weights = example(shape, 1, mode)
    found, output = straight_through(current, gate, valid, weights, mode, "loop", torch.float64)
    hard = output.membrane.detach().numpy(), output.spikes.detach().numpy(), gate
    expected, step = np.zeros(shape), 1e-5
    for place in np.ndindex(*shape):
        sides = []
        for sign in (1, -1):
            moved = gate.copy()
            moved[place] += sign * step
            sides.append(smoothed_loss(current, moved, mode, valid, weights, hard))
        expected[place] = (sides[0] - sides[1]) / (2 * step)
    assert np.abs(expected).max() > 0.05
    assert (expected != 0).sum() > 10
    np.testing.assert_allclose(found, expected, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("mode", ["gated", "hard/none"])
@pytest.mark.parametrize("shape", [(3, 24), (2, 18, 4), (37, 41), (2, 35, 33)])
def test_the_fused_kernel_gives_the_loops(mode, shape) -> None:
    current, gate, valid, weights = example(shape, 2, mode)
    single = [np.float32(values) for values in (current, gate)]
    want, _ = straight_through(*single, valid, weights, mode, "loop", torch.float32)
    got, _ = straight_through(*single, valid, weights, mode, "numba", torch.float32)
    assert np.abs(want).max() > 0.05
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5 * np.abs(want).max())


def test_spikes_and_other_gradients_do_not_depend_on_it() -> None:
    current, gate, _, _ = example((4, 50, 3), 3, "gated")
    found = []
    for learn in (None, "straight-through"):
        for backend in ("loop", "numba"):
            module = GatedLeaky(3, decay=0.9, learn=["threshold"], learn_gate=learn, backend=backend)
            leaf = torch.tensor(current, dtype=torch.float32, requires_grad=True)
            output = module(leaf, torch.tensor(gate, dtype=torch.float32))
            (output.spikes.sum() + output.membrane.sum()).backward()
            found.append((backend, output.spikes.detach(), leaf.grad, module.threshold.grad))
    expected = gated_lif_run(np.float32(current), np.float32(gate), NeuronParameters(decay=np.float32(0.9))).spikes
    for backend, spikes, of_current, of_threshold in found:
        assert np.array_equal(spikes.numpy() > 0, expected)
        first = next(entry for entry in found if entry[0] == backend)
        assert torch.equal(of_current, first[2])
        assert torch.equal(of_threshold, first[3])


@pytest.mark.parametrize("mode", ["hard", "soft", "none"])
def test_modes_that_ask_no_gate_send_it_nothing(mode) -> None:
    for backend in ("loop", "numba"):
        gate = torch.randn(2, 20, 3, requires_grad=True)
        module = GatedLeaky(3, mode=mode, learn_gate="straight-through", backend=backend)
        output = module(torch.rand(2, 20, 3, requires_grad=True), gate)
        output.spikes.sum().backward()
        assert gate.grad is None or not gate.grad.any()


def test_a_gate_that_cannot_learn_says_so_once() -> None:
    current, gate = torch.rand(2, 10, 3), torch.randn(2, 10, 3, requires_grad=True)
    module = GatedLeaky(3)
    with pytest.warns(UserWarning, match="learn_gate='straight-through'"):
        module(current, gate)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(current, gate)
        GatedLeaky(3, learn_gate="own-loss")(current, gate)
        GatedLeaky(3, learn_gate="straight-through")(current, gate)
        GatedLeaky(3).eval()(current, gate)
        GatedLeaky(3, mode="hard")(current, gate)
        GatedLeaky(3)(current, gate.detach())
        with torch.no_grad():
            GatedLeaky(3)(current, gate)


def test_a_gate_of_ones_own_loss() -> None:
    torch.manual_seed(0)
    readout = torch.nn.Linear(4, 6)
    module = GatedLeaky(3, learn_gate="own-loss", output="spikes")
    lanes = readout(torch.randn(2, 15, 4))
    spikes = module(lanes)
    _, logit = module.split(lanes)
    torch.nn.functional.binary_cross_entropy_with_logits(logit, torch.ones_like(logit)).backward(retain_graph=True)
    assert readout.weight.grad[3:].abs().min() > 0
    readout.weight.grad = None
    spikes.sum().backward()
    assert not readout.weight.grad[3:].any()
