"""DTP's boundary predictor: exact straight-through values, the prior's loss by hand, gradients that arrive."""

import math

import pytest
import torch

from speak_neuro.model.hourglass import Hourglass, HourglassConfig
from speak_neuro.systems.gumbel import GumbelPredictor, binomial_prior_loss, sample_boundaries


def test_samples_are_exactly_zero_and_one_at_the_logits_rate():
    generator = torch.Generator().manual_seed(0)
    for logit in (-2.0, 0.0, 1.0):
        logits = torch.full((400, 500), logit, requires_grad=True)
        boundaries = sample_boundaries(logits, 0.5, torch.rand(logits.shape, generator=generator))
        assert set(boundaries.unique().tolist()) == {0.0, 1.0}
        assert float(boundaries.detach().mean()) == pytest.approx(1 / (1 + math.exp(-logit)), abs=0.005)


def test_samples_survive_extreme_logits():
    logits = torch.tensor([[-1e6, -60.0, 0.0, 60.0, 1e6]], requires_grad=True)
    boundaries = sample_boundaries(logits, 0.5)
    assert boundaries[0, [0, 1, 3, 4]].tolist() == [0, 0, 1, 1]
    (gradient,) = torch.autograd.grad(boundaries.sum(), logits)
    assert torch.isfinite(gradient).all()


def test_the_gradient_is_the_relaxed_samples():
    """Recovered from the same draws: d b / d e = b~ (1 - b~) / temperature."""
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(1)).requires_grad_()
    uniform = torch.rand(3, 40, generator=torch.Generator().manual_seed(2))
    boundaries = sample_boundaries(logits, 0.5, uniform)
    (gradient,) = torch.autograd.grad(boundaries.sum(), logits)
    relaxed = torch.sigmoid((logits + torch.logit(uniform)) / 0.5).detach()
    assert torch.equal(boundaries, (relaxed > 0.5).float())
    torch.testing.assert_close(gradient, relaxed * (1 - relaxed) / 0.5, rtol=1e-4, atol=1e-6)


def test_the_prior_by_hand():
    """Of 4 positions 1 and 3 are boundaries, prior 0.2: C(4,1) 0.2 0.8^3 = 0.4096 and C(4,3) 0.2^3 0.8 = 0.0256."""
    boundaries = torch.tensor([[0.0, 1, 0, 0], [1, 1, 0, 1]], requires_grad=True)
    loss = binomial_prior_loss(boundaries, 0.2)
    assert float(loss.detach()) == pytest.approx(-(math.log(0.4096) + math.log(0.0256)) / 8, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, boundaries)
    # d/dk of ln C(4, k) is psi(5 - k) - psi(k + 1) = 13/12 - 0 ... in harmonic numbers H_{4-k} - H_k.
    for row, count in ((0, 1), (1, 3)):
        harmonic = sum(1 / i for i in range(1, 5 - count)) - sum(1 / i for i in range(1, count + 1))
        slope = -(harmonic + math.log(0.2 / 0.8)) / 8
        torch.testing.assert_close(gradient[row], torch.full((4,), slope))


def test_the_prior_agrees_with_the_librarys_binomial():
    boundaries = (torch.rand(5, 30, generator=torch.Generator().manual_seed(3)) < 0.3).float()
    priors = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    expected = -(torch.distributions.Binomial(30, priors).log_prob(boundaries.sum(1)) / 30).mean()
    torch.testing.assert_close(binomial_prior_loss(boundaries, priors), expected)


def test_the_prior_pulls_the_rate_towards_itself():
    logits = torch.full((8, 200), 0.0, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    torch.manual_seed(0)
    for _ in range(150):
        optimiser.zero_grad()
        binomial_prior_loss(sample_boundaries(logits, 0.5), 0.2).backward()
        optimiser.step()
    assert float(torch.sigmoid(logits.detach()).mean()) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1])
def test_a_prior_outside_its_range_is_named(prior):
    with pytest.raises(ValueError, match=f"prior is {prior}; allowed: above 0 and below 1"):
        binomial_prior_loss(torch.zeros(1, 4), prior)


def test_a_prior_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"prior has shape \(3,\); allowed: a number or \(2,\)"):
        binomial_prior_loss(torch.zeros(2, 4), torch.full((3,), 0.2))


def test_the_temperature_is_positive():
    with pytest.raises(ValueError, match="temperature is 0; allowed: above 0"):
        GumbelPredictor(4, 8, temperature=0)


def test_evaluation_is_deterministic_unless_asked_to_sample():
    torch.manual_seed(0)
    predictor, hidden = GumbelPredictor(8, 16).eval(), torch.randn(4, 300, 8)
    one, two = predictor(hidden), predictor(hidden)
    assert torch.equal(one.boundaries, two.boundaries)
    assert torch.equal(one.boundaries, (torch.sigmoid(one.logit) > 0.5).float())
    assert not torch.equal(predictor(hidden, sample=True).boundaries, predictor(hidden, sample=True).boundaries)
    predictor.train()
    assert not torch.equal(predictor(hidden).boundaries, predictor(hidden).boundaries)
    assert torch.equal(predictor(hidden, sample=False).boundaries, one.boundaries)


def test_the_language_models_loss_reaches_the_predictor_through_the_pooling():
    torch.manual_seed(0)
    config = HourglassConfig(9, width=16, heads=2, inner=32, shortened_layers=1, dropout=0, attention_dropout=0)
    model, predictor = Hourglass(config), GumbelPredictor(16, 32)
    ids = torch.randint(0, 9, (3, 40))
    hidden = model.pre(ids)
    logits = model.decode(hidden, predictor(hidden).boundaries)
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    for name, parameter in predictor.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
