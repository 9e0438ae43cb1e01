"""Whether the neuron's spikes replace a window's proxy spikes (paper Eq. 15-16), one decision per window.

Both segmentations of a window are scored by the same language model with the same weights and dropout; NLL is the sum
of its L next-character losses in nats, the mean loss is NLL / L. The candidate is accepted with probability

    metropolis   min(1, exp((NLL(proxy) - NLL(candidate)) / temperature))      default
    literal      min(1, loss(proxy) / loss(candidate))                         Eq. 16 as written; accepts nearly all
    greedy       1 if NLL(candidate) < NLL(proxy) else 0
    always       1
    never        0
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import BoolArray, Float64Array

AcceptanceRule = Literal["metropolis", "literal", "greedy", "always", "never"]
ACCEPTANCE_RULES: tuple[str, ...] = get_args(AcceptanceRule)


def acceptance_probability(
    nll_candidate: npt.ArrayLike,
    nll_proxy: npt.ArrayLike,
    rule: AcceptanceRule = "metropolis",
    temperature: float = 1.0,
) -> Float64Array:
    """Probability (B,) of accepting each candidate, from NLLs (B,) summed over the window."""
    candidate, proxy = (_finite(name, x) for name, x in (("nll_candidate", nll_candidate), ("nll_proxy", nll_proxy)))
    if candidate.shape != proxy.shape or candidate.ndim != 1:
        raise ValueError(f"nll_candidate has shape {candidate.shape}, nll_proxy {proxy.shape}; allowed: both (B,)")
    if rule == "metropolis":
        if not (temperature > 0 and np.isfinite(temperature)):
            raise ValueError(f"temperature is {temperature}; allowed: above 0, finite")
        return np.asarray(np.exp(np.minimum(0.0, (proxy - candidate) / temperature)))
    if rule == "literal":
        if (candidate < 0).any() or (proxy < 0).any():
            raise ValueError("NLL below 0; allowed with the literal rule: at least 0")
        # The window's length cancels, so sums serve as well as means. Written without 0 / 0: equal losses accept.
        better = candidate <= proxy
        return np.where(better, 1.0, proxy / np.where(better, 1.0, candidate))
    if rule == "greedy":
        return (candidate < proxy).astype(np.float64)
    if rule in ("always", "never"):
        return np.full(candidate.shape, float(rule == "always"))
    raise ValueError(f"rule is {rule!r}; allowed: {', '.join(ACCEPTANCE_RULES)}")


def acceptance(
    nll_candidate: npt.ArrayLike,
    nll_proxy: npt.ArrayLike,
    rule: AcceptanceRule,
    temperature: float,
    uniform: npt.ArrayLike,
) -> BoolArray:
    """Which candidates are accepted (B,): those whose `uniform` (B,), drawn from [0, 1), is below their probability.

    The draws are an argument, so that the caller's generator decides and a resume repeats them.
    """
    probability = acceptance_probability(nll_candidate, nll_proxy, rule, temperature)
    draws = np.asarray(uniform, dtype=np.float64)
    if draws.shape != probability.shape or not ((draws >= 0) & (draws < 1)).all():
        raise ValueError(f"uniform has shape {draws.shape}; allowed: {probability.shape}, each in [0, 1)")
    return draws < probability


def _finite(name: str, value: npt.ArrayLike) -> Float64Array:
    array = np.asarray(value, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a value that is not finite: the language model's loss has diverged")
    return array
