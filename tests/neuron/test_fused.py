"""The fused kernel: the loop's bits forward, its gradients backward, on random and adversarial inputs."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from neuron_cases import (
    CURRENT_KINDS,
    NeuronCase,
    adversarial_currents,
    assert_gradients_close,
    magnitudes,
    neuron_cases,
    run_scan,
    scan_gradients,
)
from scripts import load

from speak_neuro.neuron.functional import gated_lif_scan
from speak_neuro.neuron.fused import dispatch as kernels
from speak_neuro.neuron.fused import numba_engine
from speak_neuro.neuron.reference import NeuronParameters, Run, gated_lif_run
from speak_neuro.neuron.resets import RESETS
from speak_neuro.testing import assert_runs_equal


@settings(max_examples=150)
@given(neuron_cases())
def test_fused_forward_is_the_reference(case: NeuronCase):
    expected = case.run()
    assert_runs_equal(run_scan(case, "numba"), expected)
    assert_runs_equal(run_scan(case, "numba", leaves={}), expected)


@pytest.mark.parametrize("kind", CURRENT_KINDS)
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 1000])
def test_fused_forward_on_adversarial_currents(kind, length):
    """Three shapes, whose lanes the reference runs side by side: 6 rows, 35 rows, 2 rows of 17 neurons."""
    rng = np.random.default_rng(length)
    current = adversarial_currents((75, length), length, kind)
    gate = rng.normal(size=(75, length)).astype(np.float32)
    ends = rng.integers(0, length + 1, 43)
    valid = np.arange(length) < np.repeat(ends, [1] * 41 + [17] * 2)[:, None]
    state = rng.normal(size=75).astype(np.float32)
    parts = ((slice(0, 6), (6,)), (slice(6, 41), (35,)), (slice(41, 75), (2, 17)))
    for mode in RESETS:
        for decay, gain, scale in ((1, 1, 0.75), (0.9, 1.1, 0.8)):
            parameters = NeuronParameters(decay=decay, gain=gain, reset_scale=scale, mode=mode)
            for begun in (False, True):
                more = (state, valid) if begun else (None, None)
                expected = NeuronCase(current, gate, parameters, *more).run()
                for lanes, shape in parts:

                    def rows(values, lanes=lanes, shape=shape):
                        """These lanes as (B, L) or (B, L, N)."""
                        return np.moveaxis(values[lanes].reshape(*shape, length), -1, 1)

                    first = (state[lanes].reshape(shape), valid[lanes][:: len(valid[lanes]) // shape[0]])
                    case = NeuronCase(rows(current), rows(gate), parameters, *(first if begun else ()))
                    wanted = Run(rows(expected.spikes), rows(expected.membrane), expected.state[lanes].reshape(shape))
                    assert_runs_equal(run_scan(case, "numba"), wanted)


@pytest.mark.parametrize("mode", RESETS)
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("shape", [(5, 65), (4, 1), (37, 35), (3, 33, 1), (2, 64, 5), (2, 40, 20), (2, 17, 40)])
@pytest.mark.parametrize("masked", [False, True])
def test_fused_gradients_are_the_loops(mode, detach, shape, masked):
    rng = np.random.default_rng(7)
    neurons = shape[2] if len(shape) == 3 else 1
    lanes = shape[:1] + shape[2:]
    case = NeuronCase(
        current=rng.normal(0.3, 0.6, shape).astype(np.float32),
        gate_logit=rng.normal(size=shape).astype(np.float32),
        parameters=NeuronParameters(
            decay=rng.uniform(0.5, 0.9, neurons).astype(np.float32),
            gain=rng.uniform(0.5, 1.5, neurons).astype(np.float32),
            threshold=rng.uniform(0.7, 1.3, neurons).astype(np.float32),
            reset_potential=rng.uniform(-0.5, 0.3, neurons).astype(np.float32),
            reset_scale=np.float32(0.8),  # a single value among per-neuron ones
            mode=mode,
        ),
        state=rng.normal(size=lanes).astype(np.float32),
        valid=rng.random(shape[:2]) > 0.25 if masked else None,
    )
    weights = [torch.from_numpy(rng.normal(size=s).astype(np.float32)) for s in (shape, shape, lanes)]
    for used in ([0, 1, 2], [0], [1], [2]):

        def terms(output, used=used):
            return [(output[i] * weights[i]).sum() for i in used]

        want, got = (scan_gradients(case, backend, terms, detach_reset=detach) for backend in ("loop", "numba"))
        assert_gradients_close(got, want, magnitudes(case, terms, detach_reset=detach))


@settings(max_examples=60)
@given(neuron_cases(max_length=20), st.booleans())
def test_fused_gradients_on_adversarial_cases(case: NeuronCase, detach):
    # Not with the huge currents: the loop's own gradient overflows there.
    assume(case.current.size > 0 and np.abs(case.current).max() < 1e6)

    def terms(output):
        return [output.spikes.sum(), (output.membrane * 0.5).sum(), -output.state.sum()]

    want, got = (scan_gradients(case, backend, terms, detach_reset=detach) for backend in ("loop", "numba"))
    assert_gradients_close(got, want, magnitudes(case, terms, detach_reset=detach))


def test_an_empty_sequence_passes_the_states_gradient_on():
    for backend in ("loop", "numba"):
        state = torch.rand(3, requires_grad=True)
        output = gated_lif_scan(torch.zeros(3, 0), torch.zeros(3, 0), state, backend=backend)
        assert output.spikes.shape == output.membrane.shape == (3, 0)
        (gradient,) = torch.autograd.grad((output.state * torch.tensor([1.0, 2, 3])).sum(), state)
        assert gradient.tolist() == [1, 2, 3]


def test_default_state_passes_its_gradient_to_the_reset_potential():
    current, gate = torch.full((3, 4), 0.1), torch.ones(3, 4)
    for backend in ("loop", "numba"):
        reset_potential = torch.tensor(0.0, requires_grad=True)
        output = gated_lif_scan(
            current, gate, decay=0.5, reset_potential=reset_potential, detach_reset=True, backend=backend
        )
        (gradient,) = torch.autograd.grad(output.state.sum(), reset_potential)
        assert gradient.item() == 3 * 0.5**4


def test_non_contiguous_inputs():
    rng = np.random.default_rng(0)
    current, gate = (torch.from_numpy(rng.normal(0.3, 0.7, (50, 4)).astype(np.float32)).t() for _ in range(2))
    valid = (torch.rand(50, 4) > 0.2).t()
    state = torch.rand(8)[::2]
    expected = gated_lif_scan(current, gate, state, valid, backend="loop")
    assert_runs_equal(gated_lif_scan(current, gate, state, valid, backend="numba"), expected)
    assert not current.is_contiguous()


def test_inputs_are_left_alone():
    current, gate, state = torch.rand(3, 20), torch.randn(3, 20), torch.rand(3)
    copies = [t.clone() for t in (current, gate, state)]
    gated_lif_scan(current.requires_grad_(), gate, state, backend="numba").spikes.sum().backward()
    for now, before in zip((current, gate, state), copies, strict=True):
        assert torch.equal(now, before)


def test_an_input_changed_before_backward_is_noticed():
    current, gate = torch.rand(2, 5, requires_grad=True), torch.randn(2, 5)
    output = gated_lif_scan(current, gate, backend="numba")
    gate.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.spikes.sum().backward()


def test_threads_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(1)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(numba_engine, "THREAD_MINIMUM", 1)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        rng = np.random.default_rng(1)
        current = torch.from_numpy(rng.normal(0.3, 0.7, (41, 70, 3)).astype(np.float32)).requires_grad_()
        gate = torch.from_numpy(rng.normal(size=(41, 70, 3)).astype(np.float32))
        threshold = torch.tensor([1.0, 0.9, 1.1], requires_grad=True)
        output = gated_lif_scan(current, gate, threshold=threshold, backend="numba")
        gradients = torch.autograd.grad(output.spikes.sum() + output.state.sum(), (current, threshold))
        results.append((*output, *gradients))
    for one, many in zip(*results, strict=True):
        assert torch.equal(one, many)


def test_lanes_are_cut_without_loss(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for lanes in (1, 16, 17, 40, 64, 1000):
        calls: list[tuple[int, int]] = []
        numba_engine.over_lanes(lanes, numba_engine.THREAD_MINIMUM, lambda *edges, calls=calls: calls.append(edges))
        covered = [lane for first, last in sorted(calls) for lane in range(first, last)]
        assert covered == list(range(lanes))
        assert len(calls) == min(3, -(-lanes // 16))
        assert all(first % 16 == 0 for first, _ in calls)


SMOKE = """
import torch
from speak_neuro.neuron.fused import numba_kernels
from speak_neuro.neuron.functional import gated_lif_scan
x = torch.full((2, 5), 0.5, requires_grad=True)
output = gated_lif_scan(x, torch.ones(2, 5), backend="numba")
output.spikes.sum().backward()
print(output.spikes[0].int().tolist(), type(numba_kernels.forward._cache).__name__)
"""


@pytest.mark.slow
def test_runs_without_a_writable_cache_folder(tmp_path):
    """As from a read-only install: no folder for numba's cache can be created anywhere."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    program = (
        "import numba.core.caching as c\n"
        "c._CacheLocator.ensure_cache_path = lambda self: (_ for _ in ()).throw(OSError('read-only'))\n"
        "for locator in c.CacheImpl._locator_classes: locator.ensure_cache_path = c._CacheLocator.ensure_cache_path\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program + SMOKE],
        env={**os.environ, "HOME": str(blocked), "XDG_CACHE_HOME": str(blocked)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[0, 1, 0, 1, 0] NullCache"


def test_reference_agrees_on_a_long_run():
    rng = np.random.default_rng(2)
    current = rng.normal(0.2, 0.5, (3, 5000)).astype(np.float32)
    gate = rng.normal(size=(3, 5000)).astype(np.float32)
    parameters = NeuronParameters(decay=0.97, gain=1.03, threshold=0.9, reset_potential=-0.1)
    case = NeuronCase(current, gate, parameters)
    assert_runs_equal(run_scan(case, "numba"), gated_lif_run(current, gate, parameters))


def benchmark():
    return load("bench/scan")


SMALL = ["--batch", "3", "--length", "20", "--lengths", "8", "--repeats", "1"]


def test_benchmark_reports_ratios(capsys, tmp_path):
    module = benchmark()
    module.MEASUREMENT_SECONDS = 1e-4
    assert module.main([*SMALL, "--json", str(tmp_path / "scan.json")]) == 0
    assert "stock / fused" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "scan.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["ratios"]["stock / fused"] > 0
    assert set(metrics["nanoseconds_per_position"]) == {"8"}


def test_benchmark_times_nothing_when_results_differ(monkeypatch, capsys):
    right = kernels.fused_scan

    def wrong(*arguments):
        spikes, membrane, state = right(*arguments)
        return spikes, membrane, state + 2.0**-20

    monkeypatch.setattr(kernels, "fused_scan", wrong)
    assert benchmark().main(SMALL) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "nothing was timed" in captured.err
