"""The GPU kernels: on a CUDA device where there is one, in Triton's interpreter everywhere.

The interpreter is chosen before triton is imported, so `test_everything_in_the_interpreter` runs this file again in a
fresh process; the tests marked `gpu` are skipped in the outer one when there is no device.
"""

import os
import re
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

from speak_neuro.neuron import backends
from speak_neuro.neuron.backends import choose_backend
from speak_neuro.neuron.functional import gated_lif_scan
from speak_neuro.neuron.reference import NeuronParameters
from speak_neuro.neuron.resets import RESETS
from speak_neuro.testing import assert_runs_equal

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
# The interpreter takes milliseconds for each operation of each position.
EXAMPLES = 8 if INTERPRETED else 150
NEURONS = 17 if INTERPRETED else 33
"""In each of two rows, so that a program has lanes of both rows, and the last program is not full."""


def kernel_test(function):
    """Runs on a CUDA device, or interpreted."""
    skip = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="no CUDA device; runs in the interpreter")
    return pytest.mark.gpu(skip(function))


@kernel_test
@settings(max_examples=EXAMPLES)
@given(neuron_cases(max_length=20))
def test_forward_is_the_reference(case: NeuronCase):
    expected = case.run()
    assert_runs_equal(run_scan(case, "triton", device=DEVICE), expected)
    assert_runs_equal(run_scan(case, "triton", device=DEVICE, leaves={}), expected)


@kernel_test
@pytest.mark.parametrize("kind", CURRENT_KINDS)
def test_forward_on_adversarial_currents(kind):
    for length, shape in ((17, (34,)), (1, (2,)), (0, (2,)), (16, (2, 33))):
        rows, *neurons = shape
        rng = np.random.default_rng(length)
        full, lanes = (rows, length, *neurons), (rows, *neurons)
        case = NeuronCase(
            adversarial_currents(full, length, kind),
            rng.normal(size=full).astype(np.float32),
            NeuronParameters(decay=0.9, gain=1.1, mode=list(RESETS)[length % 5]),
            rng.normal(size=lanes).astype(np.float32),
            np.arange(length) < rng.integers(0, length + 1, rows)[:, None],
        )
        assert_runs_equal(run_scan(case, "triton", device=DEVICE), case.run())


@kernel_test
@pytest.mark.parametrize("mode", RESETS)
@pytest.mark.parametrize(("shape", "masked", "detach"), [((5, 35), True, False), ((2, 18, NEURONS), False, True)])
def test_gradients_are_the_loops(mode, shape, masked, detach):
    rng = np.random.default_rng(7)
    neurons, lanes = (shape[2] if len(shape) == 3 else 1), shape[:1] + shape[2:]
    case = NeuronCase(
        current=rng.normal(0.3, 0.6, shape).astype(np.float32),
        gate_logit=rng.normal(size=shape).astype(np.float32),
        parameters=NeuronParameters(
            decay=rng.uniform(0.5, 0.9, neurons).astype(np.float32),
            gain=rng.uniform(0.5, 1.5, neurons).astype(np.float32),
            threshold=rng.uniform(0.7, 1.3, neurons).astype(np.float32),
            reset_potential=rng.uniform(-0.5, 0.3, neurons).astype(np.float32),
            reset_scale=np.float32(0.8),
            mode=mode,
        ),
        state=rng.normal(size=lanes).astype(np.float32),
        valid=rng.random(shape[:2]) > 0.25 if masked else None,
    )
    weights = [torch.from_numpy(rng.normal(size=s).astype(np.float32)) for s in (shape, shape, lanes)]
    for used in ([0, 1, 2], [0], [1], [2]) if not INTERPRETED else ([0, 1, 2], [list(RESETS).index(mode) % 3]):

        def terms(output, used=used):
            return [(output[i] * weights[i].to(output[i].device)).sum() for i in used]

        want = scan_gradients(case, "loop", terms, detach_reset=detach)
        got = scan_gradients(case, "triton", terms, device=DEVICE, detach_reset=detach)
        assert_gradients_close(got, want, magnitudes(case, terms, detach_reset=detach))


@kernel_test
@pytest.mark.parametrize(
    ("shape", "masked", "mode"), [((5, 19), True, "gated"), ((2, 18, NEURONS), False, "hard/none")]
)
def test_the_gates_gradient_is_the_loops(shape, masked, mode):
    rng = np.random.default_rng(3)
    current, logit = (torch.from_numpy(rng.normal(m, 0.8, shape).astype(np.float32)) for m in (0.5, 0))
    valid = torch.from_numpy(np.arange(shape[1]) < rng.integers(1, shape[1] + 1, shape[0])[:, None]) if masked else None
    found = []
    for backend, device in (("loop", "cpu"), ("triton", DEVICE)):
        leaf = logit.clone().to(device).requires_grad_()
        output = gated_lif_scan(
            current.to(device),
            leaf,
            None,
            None if valid is None else valid.to(device),
            decay=0.9,
            reset_potential=-0.2,
            mode=mode,
            gate_slope=1.5,
            backend=backend,
        )
        loss = output.spikes.sum() + (output.membrane**2).sum() - output.state.sum()
        found.append(torch.autograd.grad(loss, leaf)[0].cpu())
    assert found[0].abs().max() > 0.05
    torch.testing.assert_close(found[1], found[0], rtol=2e-5, atol=2e-5 * float(found[0].abs().max()))


@kernel_test
@settings(max_examples=EXAMPLES // 2)
@given(neuron_cases(max_length=18), st.booleans())
def test_gradients_on_adversarial_cases(case: NeuronCase, detach):
    assume(case.current.size > 0 and np.abs(case.current).max() < 1e6)

    def terms(output):
        return [output.spikes.sum(), (output.membrane * 0.5).sum(), -output.state.sum()]

    want = scan_gradients(case, "loop", terms, detach_reset=detach)
    got = scan_gradients(case, "triton", terms, device=DEVICE, detach_reset=detach)
    assert_gradients_close(got, want, magnitudes(case, terms, detach_reset=detach))


@kernel_test
def test_only_the_current_may_need_a_gradient():
    current, gate = torch.rand(3, 20, device=DEVICE), torch.randn(3, 20, device=DEVICE)
    results = []
    for backend in ("loop", "triton"):
        leaf = current.clone().requires_grad_()
        output = gated_lif_scan(leaf, gate, backend=backend)
        results.append(torch.autograd.grad(output.spikes.sum(), leaf)[0])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@kernel_test
def test_a_long_run_is_the_reference():
    if INTERPRETED:
        pytest.skip("too slow in the interpreter")
    rng = np.random.default_rng(2)
    shape = (64, 5000)
    case = NeuronCase(
        rng.normal(0.2, 0.5, shape).astype(np.float32),
        rng.normal(size=shape).astype(np.float32),
        NeuronParameters(decay=0.97, gain=1.03, threshold=0.9, reset_potential=-0.1),
    )
    assert_runs_equal(run_scan(case, "triton", device=DEVICE), case.run())


@pytest.mark.skipif(INTERPRETED, reason="this is the fresh process")
def test_everything_in_the_interpreter():
    pytest.importorskip("triton")
    done = subprocess.run(
        # The warnings are numpy's, of overflows that a GPU carries on silently.
        [*f"{sys.executable} -m pytest -q -x -p no:cacheprovider -m gpu -W ignore::RuntimeWarning".split(), __file__],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 20


def ptx(fusion: bool) -> str:
    """The forward kernel for a current device, compiled without one."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from speak_neuro.neuron.fused.triton_kernels import forward_kernel

    choices = {"RULE": -1, "MASKED": True, "LANES": 32}
    numbers = ("lanes", "length", "neurons", "columns", "row_stride", "time_stride")
    signature = {
        name: "constexpr" if name in choices else "i32" if name in numbers else "*u8" if name == "valid" else "*fp32"
        for name in forward_kernel.arg_names
    }
    return triton.compile(
        ASTSource(fn=forward_kernel, signature=signature, constexprs=choices),
        target=GPUTarget("cuda", 80, 32),
        options={"enable_fp_fusion": fusion, "num_warps": 1},
    ).asm["ptx"]


@pytest.mark.skipif(INTERPRETED, reason="compiles, which the interpreter does not")
def test_nothing_is_contracted_in_the_forward_kernel(monkeypatch, tmp_path):
    """In the machine code a product and a sum stay two roundings, and small numbers are not flushed to zero."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    exact = ptx(fusion=False)
    assert "fma" in ptx(fusion=True)
    assert "fma" not in exact
    assert "ftz" not in exact
    assert "mul.rn.f32" in exact


@pytest.mark.skipif(INTERPRETED, reason="the interpreter serves the CPU")
def test_on_the_cpu_it_is_refused():
    with pytest.raises(ValueError, match=r"serves float32 on CUDA devices, not torch.float32 on cpu; use 'loop' or"):
        gated_lif_scan(torch.ones(1, 2), torch.ones(1, 2), backend="triton")
    with pytest.raises(ValueError, match=r"serves float32 on CUDA devices, not torch\.float64"):
        choose_backend(torch.device("cuda"), torch.float64, "triton")


def test_the_default_takes_each_devices_kernel(monkeypatch, caplog):
    backends._log_choice.cache_clear()
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(backends, "available", lambda package: True)
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    with caplog.at_level("INFO", logger="speak_neuro.neuron.backends"):
        assert choose_backend(cuda, torch.float32) == "triton"
        assert choose_backend(cuda, torch.float64) == "loop"
        assert choose_backend(cpu, torch.float32) == "numba"
        assert choose_backend(torch.device("meta"), torch.float32) == "loop"
    assert "gated LIF scan on cuda, torch.float32: backend triton" in caplog.text
    monkeypatch.setattr(backends, "available", lambda package: package != "triton")
    assert choose_backend(cuda, torch.float32) == "loop"
    with pytest.raises(ValueError, match="needs the package triton"):
        choose_backend(cuda, torch.float32, "triton")
