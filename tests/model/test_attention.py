"""Relative attention against a double loop, and its backends against one another."""

from __future__ import annotations

import math

import pytest
import torch

from speak_neuro.model.attention import (
    QUERY_BLOCK,
    RelativeAttention,
    attend,
    choose_backend,
    distance_sinusoids,
    future_mask,
    shift_distances,
)
from speak_neuro.model.dropout import keep_limit, kept_share, random_bits

LENGTHS = [1, 2, 63, 64, 65, 127, 128, 129, 300]
CPU = torch.device("cpu")


def attention_inputs(length: int, heads: int = 2, rows: int = 3, width: int = 4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(length)
    shapes = [(heads, rows, length, width)] * 4 + [(heads, length + 1, width)]
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


def test_sinusoids_count_distances_down_sines_first():
    table = distance_sinusoids(5, 6, CPU)
    assert table.shape == (6, 6)
    for row, distance in enumerate((4, 3, 2, 1, 0)):
        for n in range(3):
            angle = distance / 10000 ** (2 * n / 6)
            assert table[row, n].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[row, 3 + n].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_sinusoids_of_a_distance_do_not_depend_on_the_length():
    assert torch.equal(distance_sinusoids(7, 8, CPU), distance_sinusoids(100, 8, CPU)[-8:])


def test_shift_distances_by_index():
    rows, keys = 3, 7  # queries 4, 5, 6
    distances = torch.arange(keys - 1, -2, -1)
    shifted = shift_distances(distances.repeat(2, rows, 1))
    for row in range(rows):
        query = keys - rows + row
        for key in range(query + 1):
            assert shifted[:, row, key].tolist() == [query - key] * 2


@pytest.mark.parametrize("backend", ["blocked", "sdpa", "plain"])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_equals_a_double_loop(backend, length):
    content_query, distance_query, key, value, distance_key = attention_inputs(length)
    output = attend(content_query, distance_query, key, value, distance_key, 0.0, backend)
    for head in range(2):
        for row in range(3):
            for i in range(length):
                scores = []
                for j in range(i + 1):
                    distance = distance_key[head, length - 1 - (i - j)]
                    score = content_query[head, row, i] @ key[head, row, j] + distance_query[head, row, i] @ distance
                    scores.append(score.item() / math.sqrt(4))
                exponents = [math.exp(s - max(scores)) for s in scores]
                expected = sum(e / sum(exponents) * value[head, row, j] for j, e in enumerate(exponents))
                torch.testing.assert_close(output[head, row, i], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", ["blocked", "sdpa"])
@pytest.mark.parametrize("length", LENGTHS)
def test_backends_equal_plain_with_gradients(backend, length):
    inputs = attention_inputs(length)
    weight = torch.randn(2, 3, length, 4, dtype=torch.float64)
    outputs, gradients = [], []
    for name in (backend, "plain"):
        outputs.append(attend(*inputs, 0.0, name))
        gradients.append(torch.autograd.grad((outputs[-1] * weight).sum(), inputs))
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("length", [1, 5, 131])
def test_blocked_with_dropout_equals_the_formula_with_the_same_mask(dropout, length):
    inputs = attention_inputs(length)
    torch.manual_seed(7)
    blocked = attend(*inputs, dropout, "blocked")
    torch.manual_seed(7)
    mask = torch.zeros(6, length, length, dtype=torch.float64)
    for start in range(0, length, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, length)
        mask[:, start:end, :end] = random_bits((6, end - start, end)) >= keep_limit(dropout)
    mask /= kept_share(dropout)
    content_query, distance_query, key, value, distance_key = inputs
    distances = (torch.arange(length).unsqueeze(1) - torch.arange(length)).clamp_min(0)
    relative = distance_key[:, length - 1 - distances]  # (H, i, j, d)
    scores = content_query @ key.transpose(2, 3) + torch.einsum("hbid,hijd->hbij", distance_query, relative)
    scores = (scores / 2).masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
    expected = (scores.softmax(3) * mask.view(2, 3, length, length)) @ value
    torch.testing.assert_close(blocked, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(expected)
    ours = torch.autograd.grad((blocked * weight).sum(), inputs)
    theirs = torch.autograd.grad((expected * weight).sum(), inputs)
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)
    if dropout and length > 1:
        assert 0.1 < (mask[:, :, 0] == 0).double().mean() < 0.5


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_blocked_gradients_by_finite_differences(dropout):
    def run(*inputs):
        torch.manual_seed(1)
        return attend(*inputs, dropout, "blocked")

    inputs = attention_inputs(5, rows=2, width=2)
    assert torch.autograd.gradcheck(run, inputs)


def test_blocked_accepts_inputs_without_gradients():
    inputs = attention_inputs(140)
    with torch.no_grad():
        bare = attend(*inputs, 0.0, "blocked")
    inputs[2].requires_grad_(False)
    output = attend(*inputs, 0.0, "blocked")
    assert torch.equal(bare, output)
    assert not bare.requires_grad
    output.sum().backward()
    assert inputs[2].grad is None
    assert inputs[3].grad is not None


@pytest.mark.parametrize("backend", ["blocked", "sdpa", "plain"])
def test_dropout_keeps_the_mean_and_drops(backend):
    inputs = [x.detach() for x in attention_inputs(40, rows=200)]
    whole = attend(*inputs, 0.0, backend)
    torch.manual_seed(0)
    draws = torch.stack([attend(*inputs, 0.3, backend) for _ in range(20)])
    assert (draws[0] - whole).abs().mean() > 0.05
    assert (draws.mean((0, 2)) - whole.mean(1)).abs().max() < 0.05


def test_module_projects_scales_and_adds_the_biases():
    torch.manual_seed(0)
    module = RelativeAttention(8, 2, 0.0).double()
    hidden = torch.randn(1, 3, 8, dtype=torch.float64)
    sinusoids = distance_sinusoids(3, 8, CPU).double()
    content_bias, distance_bias = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    query, key, value = module.query_key_value(hidden)[0].split(8, dim=1)
    relative = module.distance(sinusoids)
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        rows = []
        for i in range(3):
            scores = torch.stack(
                [
                    (query[i, part] + content_bias[head]) @ key[j, part]
                    + (query[i, part] + distance_bias[head]) @ relative[2 - (i - j), part]
                    for j in range(i + 1)
                ]
            )
            rows.append((scores / 2).softmax(0) @ value[: i + 1, part])
        heads.append(torch.stack(rows))
    expected = module.output(torch.cat(heads, dim=1))
    actual = module(hidden, sinusoids, content_bias, distance_bias)[0]
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_tables_made_in_inference_mode_serve_training():
    with torch.inference_mode():
        distance_sinusoids(1000, 34, CPU)
        future_mask(1000, CPU)
    assert not distance_sinusoids(1000, 34, CPU).is_inference()
    assert not future_mask(1000, CPU).is_inference()


def test_backend_names():
    assert choose_backend("auto", CPU) == "blocked"
    assert choose_backend("auto", torch.device("cuda")) == "sdpa"
    assert choose_backend("plain", torch.device("cuda")) == "plain"
    with pytest.raises(ValueError, match="attention_backend is 'flash'; allowed: auto, blocked, sdpa, plain"):
        RelativeAttention(8, 2, 0.0, "flash")
