"""The torch step and loop scan against the numpy reference, and their gradients against a smooth stand-in."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from neuron_cases import NeuronCase, neuron_cases

from speak_neuro.neuron import backends
from speak_neuro.neuron.backends import choose_backend
from speak_neuro.neuron.functional import gated_lif_scan, gated_lif_step
from speak_neuro.neuron.reference import NeuronParameters
from speak_neuro.neuron.resets import RESETS, compiled_reset
from speak_neuro.neuron.surrogates import spike
from speak_neuro.testing import assert_runs_equal, assert_spikes_equal

NAMES = ("decay", "gain", "threshold", "reset_potential", "reset_scale")


def tensor(array):
    return None if array is None else torch.from_numpy(np.array(array))


def constants_of(parameters: NeuronParameters):
    return {name: tensor(getattr(parameters, name)) for name in NAMES}


def scan(case: NeuronCase, backend, **changes):
    return gated_lif_scan(
        tensor(case.current),
        tensor(case.gate_logit),
        tensor(case.state),
        tensor(case.valid),
        **{**constants_of(case.parameters), "mode": case.parameters.mode, "backend": backend, **changes},
    )


@settings(max_examples=100)
@given(neuron_cases())
def test_loop_gives_the_reference_bits(case: NeuronCase):
    assert_runs_equal(scan(case, "loop"), case.run())


@settings(max_examples=30)
@given(neuron_cases(max_length=12))
def test_steps_are_the_scan(case: NeuronCase):
    options = {**constants_of(case.parameters), "mode": case.parameters.mode}
    whole = gated_lif_scan(tensor(case.current), tensor(case.gate_logit), tensor(case.state), backend="loop", **options)
    state = tensor(case.state)
    if state is None:
        state = options["reset_potential"].reshape(-1).expand(case.current[:, :0].sum(1).shape).clone()
    for t in range(case.current.shape[1]):
        output = gated_lif_step(tensor(case.current[:, t]), tensor(case.gate_logit[:, t]), state, **options)
        assert torch.equal(output.spikes, whole.spikes[:, t])
        assert torch.equal(output.membrane.nan_to_num(), whole.membrane[:, t].nan_to_num())
        state = output.state
    assert torch.equal(state.nan_to_num(), whole.state.nan_to_num())


def test_plain_numbers_and_tensors_give_the_same_bits():
    rng = np.random.default_rng(0)
    current, gate = torch.from_numpy(rng.normal(0.3, 0.7, (2, 3, 50)).astype(np.float32))
    numbers = {"decay": 0.9, "gain": 1.1, "threshold": 1.1, "reset_potential": -0.1, "reset_scale": 0.7}
    runs = [
        gated_lif_scan(current, gate, **values)
        for values in (
            numbers,
            {k: torch.tensor(v) for k, v in numbers.items()},
            {k: torch.tensor([v]) for k, v in numbers.items()},
        )
    ]
    assert_runs_equal(runs[1], runs[0])
    assert_runs_equal(runs[2], runs[0])


def test_outputs_are_floats_zero_or_one():
    current = torch.rand(2, 40)
    output = gated_lif_scan(current, torch.randn(2, 40), backend="loop")
    assert output.spikes.dtype == torch.float32
    assert set(output.spikes.unique().tolist()) == {0.0, 1.0}


# The stand-in: the same recurrence written with multiplications, in float64, its spike a straight-through sigmoid whose
# value is pinned to the hard decision. Autograd of this is the definition of the gradients.


def stand_in(current, gate, state, valid, constants, *, mode, slope, detach):
    decay, gain, threshold, reset_potential, reset_scale = constants
    rule, subtracts = compiled_reset(mode)
    soft = reset_scale * threshold if subtracts else torch.zeros_like(threshold)
    v = reset_potential.expand(current.shape[:1] + current.shape[2:]) if state is None else state
    spikes, membrane = [], []
    for t in range(current.shape[1]):
        u = decay * v + gain * current[:, t]
        smooth = torch.sigmoid(slope * (u - threshold))
        s = smooth + ((u >= threshold).double() - smooth).detach()
        m = (gate[:, t] > 0).double() if rule is None else torch.full_like(u, float(rule))
        in_reset = s.detach() if detach else s
        after = (1 - in_reset) * u + in_reset * (m * reset_potential + (1 - m) * (u - soft))
        if valid is not None:
            real = valid[:, t].double().reshape((-1,) + (1,) * (u.dim() - 1))
            s, u, after = s * real, real * u + (1 - real) * v, real * after + (1 - real) * v
        spikes.append(s)
        membrane.append(u)
        v = after
    return torch.stack(spikes, 1), torch.stack(membrane, 1), v


def random_problem(shape, seed, *, masked, per_neuron, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)

    def draw(size, low, high):
        return (torch.rand(size, generator=rng, dtype=torch.float64) * (high - low) + low).to(dtype)

    lanes = shape[:1] + shape[2:]
    size = shape[2:] if per_neuron else ()
    constants = [draw(size, *range_) for range_ in ((0.6, 1), (0.5, 1.5), (0.8, 1.5), (-0.5, 0.2), (0.3, 1))]
    return {
        "current": draw(shape, -0.4, 1.0).requires_grad_(),
        "gate": draw(shape, -1, 1),
        "state": draw(lanes, -0.5, 1.2).requires_grad_(),
        "valid": torch.rand(shape[:2], generator=rng) > 0.25 if masked else None,
        "constants": [c.requires_grad_() for c in constants],
        "weights": [draw(shape, -1, 1), draw(shape, -1, 1), draw(lanes, -1, 1)],
    }


def gradients_of(outputs, problem, with_state=True):
    loss = sum((output * weight).sum() for output, weight in zip(outputs, problem["weights"], strict=True))
    inputs = [problem["current"], *([problem["state"]] if with_state else []), *problem["constants"]]
    return torch.autograd.grad(loss, inputs, materialize_grads=True, allow_unused=True)


@pytest.mark.parametrize("mode", RESETS)
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(("shape", "masked"), [((3, 17), False), ((2, 15, 3), True)])
@pytest.mark.parametrize("with_state", [True, False])
def test_gradients_are_those_of_the_smooth_stand_in(mode, detach, shape, masked, with_state):
    problem = random_problem(shape, 5, masked=masked, per_neuron=len(shape) == 3)
    state = problem["state"] if with_state else None
    expected = gradients_of(
        stand_in(
            problem["current"],
            problem["gate"],
            state,
            problem["valid"],
            problem["constants"],
            mode=mode,
            slope=4.0,
            detach=detach,
        ),
        problem,
        with_state,
    )
    outputs = gated_lif_scan(
        problem["current"],
        problem["gate"],
        state,
        problem["valid"],
        **dict(zip(NAMES, problem["constants"], strict=True)),
        mode=mode,
        detach_reset=detach,
    )
    assert outputs.spikes.sum() > 3
    for got, want in zip(gradients_of(outputs, problem, with_state), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_gradcheck_between_spikes():
    """Where no spike changes and the reset is detached, the potential is piecewise smooth: finite differences agree."""
    problem = random_problem((2, 9), 3, masked=True, per_neuron=False)

    def potentials(current, state, *constants):
        output = gated_lif_scan(
            current,
            problem["gate"],
            state,
            problem["valid"],
            **dict(zip(NAMES, constants, strict=True)),
            detach_reset=True,
        )
        return output.membrane, output.state

    assert torch.autograd.gradcheck(potentials, (problem["current"], problem["state"], *problem["constants"]))


def test_the_surrogate_by_hand():
    """At the threshold the slope is k / 4; the membrane one step later feels it through the reset, unless detached."""
    current = torch.tensor([[1.0, 0.25]], requires_grad=True)
    gate = torch.ones(1, 2)
    for detach, expected in ((False, [-1.0, 1.0]), (True, [0.0, 1.0])):
        # u_2 = v_1 + I_2, v_1 = (1 - s) u + s * 0: dv_1/du_1 = (1 - 1) - 1 * u_1 * slope = -1
        output = gated_lif_scan(current, gate, detach_reset=detach, backend="loop")
        (gradient,) = torch.autograd.grad(output.membrane[0, 1], current)
        assert gradient.tolist() == [expected]
    threshold = torch.tensor(1.0, requires_grad=True)
    u = torch.tensor([1.0, 0.0], requires_grad=True)
    fired = spike(u, threshold, 4.0)
    assert fired.tolist() == [1.0, 0.0]
    slope, at_threshold = torch.autograd.grad(fired[0], (u, threshold))
    assert slope.tolist() == [1.0, 0.0]
    assert at_threshold.item() == -1.0


def test_gate_carries_no_gradient():
    gate = torch.randn(2, 30, requires_grad=True)
    current = torch.rand(2, 30, requires_grad=True)
    for backend in ("loop", "numba"):
        output = gated_lif_scan(current, gate, backend=backend)
        (gradient,) = torch.autograd.grad(output.spikes.sum() + output.membrane.sum(), gate, allow_unused=True)
        assert gradient is None


def test_a_long_far_potential_gives_finite_gradients():
    current = torch.full((1, 200), 1e20, requires_grad=True)
    for backend in ("loop", "numba"):
        output = gated_lif_scan(current, torch.ones(1, 200), mode="gated", backend=backend)
        (gradient,) = torch.autograd.grad(output.spikes.sum(), current)
        assert torch.isfinite(gradient).all()


def test_half_precision_is_computed_in_float32():
    current = torch.rand(2, 20).to(torch.bfloat16).requires_grad_()
    output = gated_lif_scan(current, torch.randn(2, 20).half())
    assert output.spikes.dtype == output.membrane.dtype == output.state.dtype == torch.float32
    output.spikes.sum().backward()
    assert current.grad is not None
    assert current.grad.dtype == torch.bfloat16


def test_backend_is_chosen_explicitly(monkeypatch, caplog):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    backends._log_choice.cache_clear()
    with caplog.at_level(logging.INFO, logger="speak_neuro"):
        assert choose_backend(cpu, torch.float32) == "numba"
        assert choose_backend(cpu, torch.float32) == "numba"
    assert [record.getMessage() for record in caplog.records] == ["gated LIF scan on cpu, torch.float32: backend numba"]
    assert choose_backend(cpu, torch.float64) == "loop"
    assert choose_backend(cpu, torch.float32, "loop") == "loop"
    with pytest.raises(ValueError, match="backend is 'fast'; allowed: auto, loop, numba"):
        choose_backend(cpu, torch.float32, "fast")
    with pytest.raises(ValueError, match=r"serves float32 on the CPU, not torch.float32 on cuda; use 'loop'"):
        choose_backend(cuda, torch.float32, "numba")
    with pytest.raises(ValueError, match=r"not torch\.float64 on cpu"):
        choose_backend(cpu, torch.float64, "numba")
    with pytest.raises(ValueError, match=r"current has type torch\.int64"):
        choose_backend(cpu, torch.int64)
    monkeypatch.setattr(backends, "available", lambda package: False)
    assert choose_backend(cpu, torch.float32) == "loop"
    with pytest.raises(ValueError, match="pip install numba"):
        choose_backend(cpu, torch.float32, "numba")


def test_wrong_arguments_are_refused():
    two, three = torch.zeros(2, 3), torch.zeros(2, 3, 4)
    for arguments, options, message in (
        ((two, three), {}, r"current has shape \(2, 3\), gate_logit \(2, 3, 4\)"),
        ((two[0], two[0]), {}, "allowed: both"),
        ((two, two, torch.zeros(3)), {}, r"state has shape \(3,\); allowed: \(2,\)"),
        ((two, two, None, torch.ones(2, 3)), {}, r"valid has shape \(2, 3\) and type torch.float32"),
        ((two, two, None, torch.ones(3, 2, dtype=torch.bool)), {}, "valid has shape"),
        ((two, two), {"threshold": torch.ones(2)}, r"threshold has shape \(2,\)"),
        ((three, three), {"decay": torch.ones(3)}, r"decay has shape \(3,\)"),
        ((two, two), {"mode": "sotf"}, "mode is 'sotf'"),
    ):
        with pytest.raises(ValueError, match=message):
            gated_lif_scan(*arguments, **options)
    with pytest.raises(ValueError, match="all"):
        gated_lif_step(two[0], two[0], two)
    with pytest.raises(ValueError, match="mode"):
        gated_lif_step(two[0], two[0], two[0], mode="")


def test_double_precision_spikes_like_single_on_exact_sums():
    current = torch.randint(-2, 5, (4, 100), generator=torch.Generator().manual_seed(0)) / 4
    gate = torch.randn(4, 100)
    options = {"reset_scale": 0.75, "mode": "gated"}
    single = gated_lif_scan(current.float(), gate, **options)
    double = gated_lif_scan(current.double(), gate, **options)
    assert double.membrane.dtype == double.spikes.dtype == torch.float64
    assert_spikes_equal(double.spikes, single.spikes)
