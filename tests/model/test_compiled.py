"""Compiled passes: the eager model's logits and gradients, in few shapes; what is padded changes nothing."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from speak_neuro.model.compiled import SIZES, compile_passes
from speak_neuro.model.hourglass import Hourglass, HourglassConfig
from speak_neuro.model.pooling import count_slots, downsample, upsample

# torch's compiler asks each tensor for .grad and hides the warning itself, which as an error it cannot.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
LENGTH = 40
CONFIG = HourglassConfig(
    11, width=16, heads=2, inner=32, pre_layers=1, shortened_layers=1, post_layers=1, dropout=0.0, attention_dropout=0.0
)


@pytest.fixture(autouse=True)
def forgotten():
    """What torch compiled here, and its limits, end with a test."""
    limits = torch._dynamo.config.recompile_limit, torch._dynamo.config.fail_on_recompile_limit_hit
    yield
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit, torch._dynamo.config.fail_on_recompile_limit_hit = limits


def build() -> Hourglass:
    torch.manual_seed(0)
    model = Hourglass(CONFIG)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def text(rate: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 11, (3, LENGTH), generator=generator)
    return ids, torch.rand(3, LENGTH, generator=generator) < rate


def gradients(model: Hourglass, ids: Tensor, boundaries: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    logits = model(ids, boundaries)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def check_equal(compiled: Hourglass, eager: Hourglass, ids: Tensor, boundaries: Tensor) -> None:
    logits, grads = gradients(compiled, ids, boundaries)
    expected, expected_grads = gradients(eager, ids, boundaries)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert grads.keys() == expected_grads.keys()
    for name, gradient in grads.items():
        torch.testing.assert_close(
            gradient, expected_grads[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_slots_that_are_added_change_nothing():
    ids, boundaries = text(0.3)
    model = build()
    before, grads = gradients(model, ids, boundaries)
    model.slot_multiple = 17
    after, others = gradients(model, ids, boundaries)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)
    for name, gradient in grads.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-6)


def test_counting_slots():
    boundaries = torch.tensor([[True, False, True, True], [False, False, True, False]])
    assert [count_slots(boundaries, multiple) for multiple in (1, 3, 4, 5)] == [4, 6, 4, 5]
    assert count_slots(boundaries.float(), 3) == 6
    assert count_slots(boundaries[:0]) == 1
    hidden, null = torch.randn(2, 4, 3), torch.zeros(3)
    padded = downsample(hidden, boundaries, null, 6)
    assert padded.shape == (2, 6, 3)
    assert torch.equal(padded[:, :4], downsample(hidden, boundaries, null))
    assert torch.equal(upsample(padded, boundaries), upsample(padded[:, :4], boundaries))


def test_few_shapes_are_compiled_and_they_agree():
    """The compiler's front and its gradients, without the minutes that making machine code takes."""
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled, eager = build(), build()
    compile_passes(compiled, LENGTH, backend=counting)
    for seed, rate in enumerate([0.05, 0.3, 0.55] * 2):
        check_equal(compiled, eager, *text(rate, seed))
    assert 3 <= len(graphs) <= 1 + SIZES
    made = len(graphs)
    compiled.eval()
    ids, boundaries = text(0.2)
    with torch.no_grad():
        expected = eager.eval()(ids[:2], boundaries[:2])
        torch.testing.assert_close(compiled(ids[:2], boundaries[:2]), expected, rtol=1e-5, atol=1e-5)
    assert len(graphs) == made, "evaluation compiles nothing"
    assert compiled.state_dict().keys() == eager.state_dict().keys()


def test_dropout_goes_through_the_compiler():
    torch.manual_seed(0)
    model = Hourglass(dataclasses.replace(CONFIG, dropout=0.5, attention_dropout=0.5))
    compile_passes(model, LENGTH, backend="eager")
    ids, boundaries = text(0.3)
    logits, grads = gradients(model, ids, boundaries)
    assert logits.isfinite().all()
    assert (logits - gradients(model, ids, boundaries)[0]).abs().max() > 1e-3, "another mask"
    assert all(gradient.isfinite().all() for gradient in grads.values())


@pytest.mark.slow
def test_machine_code_agrees():
    compiled, eager = build(), build()
    compile_passes(compiled, LENGTH)
    for rate in (0.2, 0.6):
        check_equal(compiled, eager, *text(rate))


def test_lengths_are_checked():
    with pytest.raises(ValueError, match="length is 0; allowed: at least 1"):
        compile_passes(copy.deepcopy(build()), 0)
