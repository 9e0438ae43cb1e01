"""The Hourglass model: causality, equality with the plain model, edge inputs, sizes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from speak_neuro.model import plain
from speak_neuro.model.hourglass import Hourglass, HourglassConfig, predictor_view

LENGTHS = [1, 2, 63, 64, 65, 129, 300]
TINY = HourglassConfig(11, width=16, heads=2, inner=32, pre_layers=1, shortened_layers=2, post_layers=1)
NO_DROPOUT = HourglassConfig(
    11, width=32, heads=4, inner=64, pre_layers=1, shortened_layers=2, post_layers=1, dropout=0.0, attention_dropout=0.0
)
VANILLA = HourglassConfig(11, width=16, heads=2, inner=32, pre_layers=3, shortened_layers=0, post_layers=0)
NORMS = ["pre", "post"]


def with_norm(config: HourglassConfig, norm: str) -> HourglassConfig:
    return dataclasses.replace(config, norm=norm)


def build(config: HourglassConfig, backend: str = "auto", dtype: torch.dtype = torch.float32) -> Hourglass:
    torch.manual_seed(0)
    model = Hourglass(config, backend)
    for parameter in model.parameters():  # livelier than the initial weights, so that a wrong term shows
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.to(dtype)


def text(rows: int, length: int, rate: float = 0.2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 11, (rows, length), generator=generator)
    return ids, torch.rand(rows, length, generator=generator) < rate


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_of_dynamic_token_pooling():
    vanilla = Hourglass(HourglassConfig(27, pre_layers=12, shortened_layers=0, post_layers=0, norm="post"))
    assert count(vanilla) == 41_009_179
    assert count(vanilla.pre_stack.layers[0]) == 3_415_040
    published = HourglassConfig(27, norm="post")
    assert count(Hourglass(published)) == 42_063_388 - 1_052_673  # without its boundary predictor
    assert count(Hourglass(with_norm(published, "pre"))) == count(Hourglass(published)) + 2 * 512  # the final norm


@pytest.mark.parametrize("norm", NORMS)
def test_initial_weights(norm):
    torch.manual_seed(0)
    model = Hourglass(HourglassConfig(27, width=128, heads=4, inner=512, norm=norm))
    for name, parameter in model.named_parameters():
        mean, deviation = parameter.mean().item(), parameter.std().item()
        if name == "null_group":
            assert abs(mean) < 0.3
            assert 0.8 < deviation < 1.2, name
        elif norm == "pre" and name == "embedding.weight":
            assert 0.47 < deviation < 0.53
        elif name == "final_norm.weight":
            assert (parameter == 1).all()
        elif name.endswith("norm.weight"):
            assert abs(mean - 1) < 0.01
            assert 0.014 < deviation < 0.026, name
        elif name.endswith(".bias") or (norm == "pre" and name.endswith("contract.weight")):
            assert not parameter.any(), name
        else:
            assert abs(mean) < 0.01
            assert 0.014 < deviation < 0.026, name


@pytest.mark.parametrize("backend", ["blocked", "sdpa", "plain"])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("norm", NORMS)
def test_equals_the_plain_model_with_gradients(norm, backend, length):
    model = build(with_norm(NO_DROPOUT, norm), backend)
    reference = plain.PlainHourglass(with_norm(NO_DROPOUT, norm))
    reference.load_state_dict(model.state_dict())
    ids, boundaries = text(2, length)
    results = []
    for each in (model, reference):
        logits = each(ids, boundaries)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
        results.append((logits, torch.autograd.grad(loss, list(each.parameters()))))
    (ours, our_gradients), (theirs, their_gradients) = results
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    for (name, _), one, two in zip(model.named_parameters(), our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("norm", NORMS)
def test_boundary_gradient_equals_the_plain_model(norm):
    model = build(with_norm(NO_DROPOUT, norm), dtype=torch.float64)
    reference = plain.PlainHourglass(with_norm(NO_DROPOUT, norm)).double()
    reference.load_state_dict(model.state_dict())
    ids, hard = text(2, 50)
    gradients = []
    for each in (model, reference):
        boundaries = hard.double().requires_grad_()
        gradients.append(torch.autograd.grad(each(ids, boundaries).square().sum(), boundaries)[0])
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("backend", ["blocked", "sdpa", "plain"])
@pytest.mark.parametrize("position", [0, 40, 127, 128, 199])
@pytest.mark.parametrize("norm", NORMS)
def test_the_future_does_not_leak_through_characters(norm, backend, position):
    model = build(with_norm(NO_DROPOUT, norm), backend)
    ids, boundaries = text(2, 200)
    changed = ids.clone()
    changed[:, position:] = (changed[:, position:] + 1) % 11
    with torch.no_grad():
        before, after = model(ids, boundaries), model(changed, boundaries)
    assert torch.equal(before[:, :position], after[:, :position])
    assert not torch.equal(before[:, position], after[:, position])


@pytest.mark.parametrize("backend", ["blocked", "sdpa", "plain"])
@pytest.mark.parametrize("position", [1, 40, 128])
def test_the_future_does_not_leak_through_boundaries(backend, position):
    model = build(NO_DROPOUT, backend)
    ids, boundaries = text(2, 200)
    # A row that is all boundaries keeps the shortened length, hence the shape of every product, the same.
    boundaries[1] = True
    changed_ids, changed = ids.clone(), boundaries.clone()
    changed_ids[0, position:] = (changed_ids[0, position:] + 1) % 11
    changed[0, position:] = ~changed[0, position:]
    with torch.no_grad():
        before, after = model(ids, boundaries), model(changed_ids, changed)
    assert torch.equal(before[:, :position], after[:, :position])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0, position], after[0, position])


@pytest.mark.parametrize("length", [1, 2, 64, 129, 250])
def test_a_prefix_gives_the_prefix_of_the_logits(length):
    model = build(NO_DROPOUT, dtype=torch.float64)
    ids, boundaries = text(2, 300)
    with torch.no_grad():
        whole, part = model(ids, boundaries), model(ids[:, :length], boundaries[:, :length])
    torch.testing.assert_close(part, whole[:, :length], rtol=0, atol=1e-11)


def test_rows_with_different_boundary_counts_equal_each_row_alone():
    model = build(NO_DROPOUT, dtype=torch.float64)
    ids, _ = text(4, 90)
    boundaries = torch.stack([text(1, 90, rate)[1][0] for rate in (0.0, 0.1, 0.5, 1.0)])
    with torch.no_grad():
        together = model(ids, boundaries)
        for row in range(4):
            alone = model(ids[row : row + 1], boundaries[row : row + 1])
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-11)


@pytest.mark.parametrize("length", [1, 30])
@pytest.mark.parametrize("value", [False, True])
def test_no_boundaries_and_only_boundaries(length, value):
    model = build(NO_DROPOUT, dtype=torch.float64)
    reference = plain.PlainHourglass(NO_DROPOUT).double()
    reference.load_state_dict(model.state_dict())
    ids, _ = text(2, length)
    boundaries = torch.full((2, length), value)
    torch.testing.assert_close(model(ids, boundaries), reference(ids, boundaries), rtol=0, atol=1e-6)


def test_without_boundaries_every_position_reads_the_null_group():
    model = build(NO_DROPOUT).eval()
    ids, boundaries = text(1, 20, rate=0.0)
    before = model(ids, boundaries)
    with torch.no_grad():
        model.null_group.add_(torch.randn_like(model.null_group))
    assert ((model(ids, boundaries) - before).abs().amax(2) > 1e-4).all()


def test_two_segmentations_stacked_over_one_prefix():
    model = build(NO_DROPOUT, dtype=torch.float64)
    ids, first = text(3, 80)
    _, second = text(3, 80, rate=0.4, seed=1)
    with torch.no_grad():
        hidden = model.pre(ids)
        both = model.decode(hidden.repeat(2, 1, 1), torch.cat([first, second]))
        torch.testing.assert_close(both[:3], model(ids, first), rtol=0, atol=1e-11)
        torch.testing.assert_close(both[3:], model(ids, second), rtol=0, atol=1e-11)


def test_the_same_seed_gives_the_same_dropout_and_evaluation_none():
    model = build(TINY)
    ids, boundaries = text(2, 150)
    outputs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        outputs.append(model(ids, boundaries))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    model.eval()
    assert torch.equal(model(ids, boundaries), model(ids, boundaries))


@pytest.mark.parametrize("norm", NORMS)
def test_vanilla_needs_no_boundaries(norm):
    model = build(with_norm(VANILLA, norm))
    reference = plain.PlainHourglass(model.config)
    reference.load_state_dict(model.state_dict())
    ids, _ = text(2, 70)
    torch.testing.assert_close(model.eval()(ids), reference.eval()(ids, None), rtol=0, atol=1e-5)
    assert not hasattr(model, "null_group")


def test_both_forms_draw_the_same_numbers():
    after = []
    for norm in NORMS:
        torch.manual_seed(0)
        Hourglass(with_norm(TINY, norm))
        after.append(torch.rand(3))
    assert torch.equal(*after)


def test_pre_norm_layers_leave_the_running_sum_alone():
    """With every part's output at zero a stack of pre-norm layers is the identity; post-norm layers normalise it."""
    ids, _ = text(2, 60)
    for norm in NORMS:
        model = build(with_norm(NO_DROPOUT, norm))
        with torch.no_grad():
            for layer in model.pre_stack.layers:
                for part in (layer.attention.output, layer.contract):
                    part.weight.zero_()
                    part.bias.zero_()
            assert torch.equal(model.pre(ids), model.embedding(ids)) == (norm == "pre")


def test_what_a_boundary_predictor_reads_is_normalised():
    hidden = 7 + 30 * torch.randn(2, 5, 64)
    seen = predictor_view(hidden, "pre")
    torch.testing.assert_close(seen, (hidden - hidden.mean(2, keepdim=True)) / hidden.std(2, False, keepdim=True))
    assert predictor_view(hidden, "post") is hidden


def test_empty_text():
    assert build(TINY)(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0, dtype=torch.bool)).shape == (2, 0, 11)
    assert build(VANILLA)(torch.zeros(2, 0, dtype=torch.long)).shape == (2, 0, 11)


def test_bfloat16_autocast_stays_close_and_trains():
    model = build(TINY)
    ids, boundaries = text(2, 300)
    model.eval()
    exact = model(ids, boundaries)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids, boundaries)
    assert (logits - exact).abs().max() < 0.1 * exact.abs().max()
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(ids, boundaries).float().logsumexp(2).mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_state_dict_round_trip():
    model, other = build(TINY), Hourglass(TINY)
    other.load_state_dict(model.state_dict(), strict=True)
    ids, boundaries = text(1, 40)
    assert torch.equal(model.eval()(ids, boundaries), other.eval()(ids, boundaries))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("vocabulary", 0, r"vocabulary is 0; allowed: a whole number from 1 on"),
        ("width", 15, r"width is 15; allowed: an even number"),
        ("heads", 3, r"heads is 3; allowed: a divisor of width 512"),
        ("inner", 2.5, r"inner is 2.5; allowed: a whole number from 1 on"),
        ("pre_layers", -1, r"pre_layers is -1; allowed: a whole number from 0 on"),
        ("shortened_layers", True, r"shortened_layers is True; allowed: a whole number"),
        ("post_layers", "2", r"post_layers is '2'; allowed: a whole number"),
        ("dropout", 1.0, r"dropout is 1.0; allowed: a probability, 0 <= dropout < 1"),
        ("attention_dropout", -0.1, r"attention_dropout is -0.1; allowed: a probability"),
        ("norm", "both", r"norm is 'both'; allowed: pre, post"),
        ("dropout", float("nan"), r"dropout is nan; allowed: a probability"),
    ],
)
def test_configuration_errors_name_field_value_and_range(field, value, message):
    with pytest.raises(ValueError, match=message):
        HourglassConfig(**{"vocabulary": 27, field: value})


def test_input_errors_name_the_shape():
    model = build(TINY)
    with pytest.raises(ValueError, match=r"ids has shape \(3,\); allowed: \(B, L\)"):
        model.pre(torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="boundaries is None"):
        model(torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"boundaries has shape \(1, 4\); allowed: \(1, 3\)"):
        model(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 4, dtype=torch.bool))
