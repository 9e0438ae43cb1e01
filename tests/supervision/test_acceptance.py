"""Acceptance rules on constructed losses, and by frequency."""

import numpy as np
import pytest

from speak_neuro.supervision.acceptance import ACCEPTANCE_RULES, acceptance, acceptance_probability

BETTER, SAME, WORSE = 90.0, 100.0, 103.0
CANDIDATE, PROXY = np.array([BETTER, SAME, WORSE]), np.full(3, SAME)


def test_probabilities_by_hand() -> None:
    assert acceptance_probability(CANDIDATE, PROXY).tolist() == [1, 1, np.exp(-3.0)]
    assert acceptance_probability(CANDIDATE, PROXY, temperature=8)[2] == np.exp(-3 / 8)
    assert acceptance_probability(CANDIDATE, PROXY, "literal").tolist() == [1, 1, 100 / 103]
    assert acceptance_probability(CANDIDATE, PROXY, "greedy").tolist() == [1, 0, 0]
    assert acceptance_probability(CANDIDATE, PROXY, "always").tolist() == [1, 1, 1]
    assert acceptance_probability(CANDIDATE, PROXY, "never").tolist() == [0, 0, 0]


def test_the_literal_rule_does_not_depend_on_the_window_and_metropolis_does() -> None:
    summed, mean = (np.array([103.0]), np.array([100.0])), (np.array([1.03]), np.array([1.0]))
    literal = [acceptance_probability(*pair, "literal")[0] for pair in (summed, mean)]
    assert literal[0] == pytest.approx(literal[1])
    assert acceptance_probability(*mean)[0] > 0.97 > 0.05 > acceptance_probability(*summed)[0]


@pytest.mark.parametrize("rule", ["metropolis", "literal"])
def test_frequencies(rule) -> None:
    draws = np.random.default_rng(0).random(40_000)
    candidate, proxy = np.full(draws.size, 101.0), np.full(draws.size, 100.0)
    accepted = acceptance(candidate, proxy, rule, 1.0, draws)
    expected = acceptance_probability([101.0], [100.0], rule)[0]
    assert accepted.mean() == pytest.approx(expected, abs=0.01)
    assert 0 < accepted.mean() < 1


def test_extreme_draws_and_losses() -> None:
    zeros, tops = np.zeros(3), np.full(3, np.nextafter(1.0, 0.0))
    assert acceptance(CANDIDATE, PROXY, "metropolis", 1.0, tops).tolist() == [True, True, False]
    assert acceptance(CANDIDATE, PROXY, "metropolis", 1.0, zeros).all()
    assert not acceptance(CANDIDATE, PROXY, "never", 1.0, zeros).any()
    assert acceptance(CANDIDATE, PROXY, "always", 1.0, tops).all()
    # Differences beyond the range of exp, and losses of zero, raise no warning and no NaN.
    assert acceptance_probability([0.0, 1e6], [1e6, 0.0]).tolist() == [1, 0]
    assert acceptance_probability([0.0, 1.0, 0.0], [0.0, 0.0, 1.0], "literal").tolist() == [1, 0, 1]


def test_rules_without_chance_ignore_the_draws() -> None:
    assert acceptance(CANDIDATE, PROXY, "greedy", 1.0, [0.5] * 3).tolist() == [True, False, False]
    assert acceptance([], [], "always", 1.0, []).shape == (0,)
    assert set(ACCEPTANCE_RULES) == {"metropolis", "literal", "greedy", "always", "never"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "best"}, "rule is 'best'"),
        ({"temperature": 0.0, "uniform": [0.5] * 3}, "temperature is 0.0"),
        ({"temperature": np.inf, "uniform": [0.5] * 3}, "temperature is inf"),
        ({"uniform": [0.5]}, "uniform has shape"),
        ({"uniform": [0.5, 0.5, 1.0]}, r"each in \[0, 1\)"),
        ({"nll_candidate": [np.nan] * 3, "uniform": [0.5] * 3}, "nll_candidate holds a value that is not finite"),
        ({"nll_candidate": [1.0], "uniform": [0.5]}, "allowed: both"),
        ({"nll_candidate": [-1.0] * 3, "rule": "literal", "uniform": [0.5] * 3}, "NLL below 0"),
    ],
)
def test_refusals_name_the_field(arguments, message: str) -> None:
    given = {"nll_candidate": CANDIDATE, "nll_proxy": PROXY, "rule": "metropolis", "temperature": 1.0}
    with pytest.raises(ValueError, match=message):
        acceptance(**{**given, "uniform": [0.5] * 3, **arguments})
