"""The scan where torch watches: exported, traced, batched and differentiated as functions. Right is the numpy run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from speak_neuro.neuron.functional import gated_lif_scan
from speak_neuro.neuron.module import GatedLeaky
from speak_neuro.neuron.reference import NeuronParameters, gated_lif_run


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(0)
    return tuple(torch.from_numpy(random.normal(0.3, 1, (2, 9, 3)).astype(np.float32)) for _ in range(2))  # type: ignore[return-value]


def expected(current: Tensor, gate: Tensor, **constants: Any) -> tuple[np.ndarray, ...]:
    run = gated_lif_run(current.numpy(), gate.numpy(), NeuronParameters(**constants))
    return run.spikes.astype(np.float32), run.membrane, run.state


def assert_same(found: Any, wanted: tuple[np.ndarray, ...]) -> None:
    for got, right in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(got.numpy(), right)


def test_an_exported_program_computes_the_neuron(inputs: tuple[Tensor, Tensor]) -> None:
    module = GatedLeaky(3, decay=0.75)
    program = torch.export.export(module, inputs)
    other = tuple(-value.flip(0) for value in inputs)
    for given in (inputs, other):
        assert_same(program.module()(*given), expected(*given, decay=0.75))
    with pytest.raises(AssertionError, match="9"):  # never another length in silence
        program.module()(*(torch.zeros(2, 12, 3) for _ in range(2)))


def test_a_graph_holds_the_neuron_and_no_empty_memory(inputs: tuple[Tensor, Tensor]) -> None:
    module = GatedLeaky(3, decay=0.75)
    graph = make_fx(lambda a, b: tuple(module(a, b)))(*inputs)
    other = tuple(-value.flip(0) for value in inputs)
    assert_same(graph(*other), expected(*other, decay=0.75))
    assert "empty" not in graph.code


def test_batched_by_vmap(inputs: tuple[Tensor, Tensor]) -> None:
    module = GatedLeaky(3, decay=0.75)
    stacked = [torch.stack([value, -value, 2 * value]) for value in inputs]
    found = torch.vmap(module)(*stacked)
    for index in range(3):
        given = [value[index] for value in stacked]
        assert_same([value[index] for value in found], expected(*given, decay=0.75))


def test_an_ensemble_of_neurons(inputs: tuple[Tensor, Tensor]) -> None:
    """torch's recipe for ensembles: the constants are batched, the inputs are shared."""
    decays = (0.25, 0.5, 1.0)
    state, buffers = torch.func.stack_module_state([GatedLeaky(3, decay=decay) for decay in decays])  # type: ignore[arg-type]
    base = GatedLeaky(3)

    def call(state: Any, buffers: Any, *given: Tensor) -> Any:
        return torch.func.functional_call(base, (state, buffers), given)

    found = torch.vmap(call, in_dims=(0, 0, None, None))(state, buffers, *inputs)
    for index, decay in enumerate(decays):
        assert_same([value[index] for value in found], expected(*inputs, decay=decay))


def test_gradients_as_functions_are_those_of_backward(inputs: tuple[Tensor, Tensor]) -> None:
    weight = torch.linspace(-1, 1, 9)[:, None]

    def loss(current: Tensor, decay: Tensor) -> Tensor:
        found = gated_lif_scan(current, inputs[1], decay=decay)
        return (weight * found.membrane).sum() + (found.spikes * weight).sum() + found.state.sum()

    given = (inputs[0].clone().requires_grad_(), torch.full((3,), 0.75, requires_grad=True))
    loss(*given).backward()  # by the fused kernel, whose backward pass is written out
    found = torch.func.grad(loss, argnums=(0, 1))(*(value.detach() for value in given))
    for got, value in zip(found, given, strict=True):
        torch.testing.assert_close(got, value.grad, rtol=1e-5, atol=1e-5)
    samples = torch.vmap(torch.func.grad(loss), in_dims=(0, None))(torch.stack([inputs[0]] * 2), given[1].detach())
    torch.testing.assert_close(samples[1], given[0].grad, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_that_would_keep_its_length_is_refused(inputs: tuple[Tensor, Tensor]) -> None:
    for backend in ("auto", "loop"):
        with pytest.raises(ValueError, match=r"length of its example .*; use torch\.export, or trace GatedLeaky\.step"):
            torch.jit.trace(GatedLeaky(3, backend=backend), inputs)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_a_step_can_be_traced(inputs: tuple[Tensor, Tensor]) -> None:
    module = GatedLeaky(3, decay=0.75)
    current, gate = inputs
    traced = torch.jit.trace(lambda *given: tuple(module.step(*given)), (current[:, 0], gate[:, 0], torch.zeros(2, 3)))
    state, spikes = torch.zeros(2, 3), []
    for t in range(current.shape[1]):
        fired, _, state = traced(current[:, t], gate[:, t], state)
        spikes.append(fired)
    right = expected(current, gate, decay=0.75)
    np.testing.assert_array_equal(torch.stack(spikes, 1).numpy(), right[0])
    np.testing.assert_array_equal(state.numpy(), right[2])


def test_a_fused_kernel_that_was_asked_for_is_refused(inputs: tuple[Tensor, Tensor]) -> None:
    module = GatedLeaky(3, backend="numba")
    with pytest.raises(ValueError, match=r"'numba' .* a transform of torch\.func cannot follow; use 'loop'"):
        torch.vmap(module)(*(value[None] for value in inputs))
    with pytest.raises(ValueError, match="make_fx cannot follow"):
        make_fx(lambda a, b: module(a, b).membrane)(*inputs)
