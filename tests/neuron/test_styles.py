"""The neuron in networks of others: in nn.Sequential, step by step, with one input, lanes, convolutions, surrogates."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import snntorch
import torch
from snntorch import surrogate
from torch import nn

import speak_neuro
from speak_neuro.neuron.module import GatedLeaky, GatedLeakyCell
from speak_neuro.neuron.reference import gated_lif_run
from speak_neuro.neuron.resets import RESETS
from speak_neuro.testing import assert_bits_equal, assert_runs_equal, assert_spikes_equal


def inputs(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    current, gate = (torch.from_numpy(rng.normal(mean, 0.7, shape).astype(np.float32)) for mean in (0.3, 0))
    return current, gate


def test_the_package_offers_both() -> None:
    assert speak_neuro.GatedLeaky is GatedLeaky
    assert speak_neuro.GatedLeakyCell is GatedLeakyCell
    with pytest.raises(AttributeError, match="GatedLeeky"):
        _ = speak_neuro.GatedLeeky  # type: ignore[attr-defined]


def test_nothing_is_imported_before_it_is_needed() -> None:
    """Torch by the package's modules, numba by its kernel, which is the CPU's default, triton by its own alone."""
    code = """
import sys, speak_neuro
print("torch" in sys.modules, hasattr(speak_neuro, "GatedLeaky"))
import torch
from speak_neuro.neuron.functional import gated_lif_scan
gated_lif_scan(torch.ones(1, 2), torch.ones(1, 2), backend="loop")
print("numba" in sys.modules, "triton" in sys.modules)
gated_lif_scan(torch.ones(1, 2), torch.ones(1, 2))
print("numba" in sys.modules, "triton" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False", "False", "True", "False"]


def test_in_a_sequential_with_lanes_and_with_one_input() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 20, 8)
    gated = nn.Sequential(
        nn.Linear(8, 10), GatedLeaky(5, decay=0.9, learn_gate="own-loss", output="spikes"), nn.Linear(5, 2)
    )
    assert gated(x).shape == (3, 20, 2)
    lanes = gated[0](x)
    current, gate = gated[1].split(lanes.detach())
    assert_spikes_equal(gated[1](lanes), GatedLeaky(5, decay=0.9)(current, gate).spikes)
    hard = nn.Sequential(nn.Linear(8, 5), GatedLeaky(5, mode="hard", output="spikes"), nn.Linear(5, 2))
    assert hard(x).shape == (3, 20, 2)


@pytest.mark.parametrize("mode", ["hard", "soft", "none"])
def test_modes_without_a_gate_need_one_input(mode) -> None:
    current, gate = inputs(3, 30, 4)
    module = GatedLeaky(4, decay=0.875, mode=mode)
    assert_runs_equal(module(current), gated_lif_run(current.numpy(), gate.numpy(), module.parameters_numpy()))
    assert_runs_equal(module(current), module(current, gate))


@pytest.mark.parametrize("mode", RESETS)
@pytest.mark.parametrize("shape", [(), (4,), (4, 3), (4, 3, 2)])
def test_cells_step_as_sequences_do_whatever_the_shape(mode, shape) -> None:
    neurons = shape[0] if shape else 1
    constants = {"decay": 0.9, "threshold": [0.5 + 0.25 * n for n in range(neurons)], "reset_potential": -0.125}
    whole, cell = (kind(neurons, mode=mode, **constants) for kind in (GatedLeaky, GatedLeakyCell))
    current, gate = inputs(2, 25, *shape)
    expected, mem = whole(current, gate), None
    kept = GatedLeakyCell(neurons, mode=mode, init_hidden=True, **constants)
    for t in range(25):
        spk, mem = cell(current[:, t], mem, gate[:, t])
        assert_spikes_equal(spk[:, None], expected.spikes[:, t : t + 1])
        assert_spikes_equal(kept(current[:, t], gate_logit=gate[:, t])[:, None], spk[:, None])
    assert_bits_equal(mem, expected.state)
    # each neuron against the numpy oracle, whatever stands behind the neurons' axis
    if shape:
        places = current.reshape(2, 25, neurons, -1)
        oracle = gated_lif_run(
            places[..., 0].numpy(), gate.reshape(places.shape)[..., 0].numpy(), whole.parameters_numpy()
        )
        assert_spikes_equal(expected.spikes.reshape(places.shape)[..., 0], torch.from_numpy(oracle.spikes).float())


def test_a_channel_has_its_constants_everywhere_in_a_picture() -> None:
    module = GatedLeaky(2, threshold=[0.5, 2.0], mode="hard", learn=["threshold"])
    current = torch.full((1, 1, 2, 3, 3), 1.0)
    output = module(current)
    assert output.spikes[0, 0, 0].all()
    assert not output.spikes[0, 0, 1].any()
    output.membrane.sum().backward()
    output = module(current)
    output.spikes.sum().backward()
    assert module.threshold.grad is not None
    assert module.threshold.grad.shape == (2,)


def test_a_kept_state_is_forgotten_on_request_only() -> None:
    cell = GatedLeakyCell(3, mode="soft", init_hidden=True)
    current = torch.full((2, 3), 0.6)
    first, second = cell(current), cell(current)
    assert first.sum() == 0
    assert second.sum() == 6
    cell.reset_mem()
    assert cell(current).sum() == 0
    with pytest.raises(ValueError, match=r"the state has shape \(2, 3\); allowed: the current's, \(5, 3\)"):
        cell(torch.ones(5, 3))
    with pytest.raises(ValueError, match="no mem"):
        cell(current, torch.zeros(2, 3))
    assert "mem" not in cell.state_dict()
    cell.detach_mem()
    assert copy.deepcopy(cell).mem is not cell.mem


def test_a_layer_and_its_cell_share_what_they_learn() -> None:
    layer = GatedLeaky(3, learn=["threshold"], mode="hard", surrogate_slope=2.0)
    cell = layer.cell()
    assert cell.threshold is layer.threshold
    spk, _ = cell(torch.full((1, 3), 0.9))
    spk.sum().backward()
    assert layer.threshold.grad is not None
    assert cell.surrogate_slope == 2.0


def test_hard_cell_is_snntorchs_leaky_loop() -> None:
    leaky = snntorch.Leaky(beta=0.9, reset_mechanism="zero", reset_delay=False)
    cell = GatedLeakyCell(6, decay=0.9, mode="hard")
    current, _ = inputs(4, 80, 6)
    mem, other = None, torch.zeros(4, 6)
    for t in range(80):
        spk, mem = cell(current[:, t], mem)
        expected, other = leaky(current[:, t], other)
        assert_spikes_equal(spk[:, None], expected[:, None])
    assert torch.equal(mem, other)


@pytest.mark.parametrize("make", [surrogate.fast_sigmoid(slope=10), surrogate.atan(alpha=2.0)])
def test_snntorchs_surrogates_give_the_gradient_and_leave_the_spikes(make) -> None:
    current, gate = inputs(3, 30, 4)
    plain, ours = GatedLeaky(4), GatedLeaky(4, spike_grad=make)
    leaf = current.clone().requires_grad_()
    assert_runs_equal(ours(current, gate), plain(current, gate))
    ours(leaf, gate).spikes.sum().backward()
    # one step by hand: the gradient at the last position is the surrogate's own
    u = plain(current, gate).membrane[:, -1].clone().requires_grad_()
    make(u - 1).sum().backward()
    assert torch.allclose(leaf.grad[:, -1], u.grad)
    with pytest.raises(ValueError, match="a spike_grad needs 'loop'"):
        GatedLeaky(4, spike_grad=make, backend="numba")(current, gate)
    assert GatedLeaky(1, spike_grad=make).fire(torch.tensor([1.0, 0.5])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GatedLeaky(4)(torch.ones(2, 5, 4)), "mode 'gated' reads a gate; allowed: .* 8 lanes"),
        (lambda: GatedLeaky(4)(torch.ones(2, 4)), r"has shape \(2, 4\), 1 neuron\(s\); this module has 4"),
        (lambda: GatedLeaky(4, mode="hard")(torch.ones(2, 5, 8)), r"8 neuron\(s\); this module has 4"),
        (lambda: GatedLeakyCell(4, mode="hard")(torch.ones(4)), r"allowed: \(batch, 4, ...\)"),
        (lambda: GatedLeakyCell(4)(torch.ones(2, 4)), "reads a gate"),
        (lambda: GatedLeaky(4)(torch.ones(2, 5, 4), torch.ones(2, 5, 1)), "gate_logit has shape"),
        (lambda: GatedLeaky(4).split(torch.ones(2, 5, 4)), "lanes have shape"),
        (lambda: GatedLeaky(4, learn=["beta"]), "learn has beta; allowed: decay"),
        (lambda: GatedLeaky(4, learn_gate="yes"), "learn_gate is 'yes'; allowed: None, straight-through, own-loss"),
        (lambda: GatedLeaky(4, output="spk"), "output is 'spk'"),
        (lambda: GatedLeaky(4, gate_slope=0.0), "gate_slope is 0.0"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
