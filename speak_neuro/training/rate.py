"""A target shortening factor: characters per token held at `--target-sf`, in training and on held-out text.

In training each system has its own knob, moved a little after each step (dual ascent; r is the rate of boundaries that
inference would set, 1 / SF the target):

    speak, spike loss       price of a spike         += step * (r * SF - 1)
    speak, information      ln of the nats' gain     -= step * (r * SF - 1)
    dtp-gumbel, magnet      log-odds of the prior    -= step * (r * SF - 1)
    hnet                    none: the target is in its own loss
    dtp-entropy, -unigram   none: the 1 / SF of a batch's positions with the highest logits are its boundaries

A knob acts through what is learned, with a lag. So an evaluation, and the finished run, shift the bias of the current
or of the boundary's logit by what makes the rate on the validation text the target's: one number, found by bisection,
and still the same linear readout. SPEAK's batches in training are shifted so too (`held`): a language model that
learned on tokens of 4.5 characters is worse at tokens of 4 than one that learned on these (experiments/LOG.md).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speak_neuro.systems.gumbel import GumbelPredictor
from speak_neuro.systems.hnet import HNet
from speak_neuro.systems.predictor import Predictor
from speak_neuro.systems.system import System
from speak_neuro.tokenizer.module import Boundaries, SpeakTokenizer
from speak_neuro.training.distributed import Ranks
from speak_neuro.training.sliding import views

STEPS = {"price": 0.05, "nats": 0.02, "odds": 0.05}
"""Sizes of the dual steps at the peak learning rate."""
REACH = 8.0
"""A shift is looked for this far to both sides, in thresholds or in logits."""
HALVINGS = 24


def move(system: System, rate: Tensor, factor: float, ranks: Ranks) -> None:
    """Dual ascent by the rate of this process's rows; `factor` is that on the learning rates."""
    knob = system.rate
    if knob is None:
        return
    excess = ranks.mean(rate.detach()) * knob.target - 1
    sign = 1.0 if knob.kind == "price" else -1.0
    knob.value.add_((sign * STEPS[knob.kind] * factor * excess).to(knob.value)).clamp_(-REACH, REACH)


def highest(logit: Tensor, target: float, ranks: Ranks) -> Tensor:
    """Boundaries of a batch: its 1 / target positions of highest logit. (B, L) -> (B, L) bool."""
    every = ranks.gather(logit.detach()).flatten()
    count = max(1, round(every.numel() / target))
    return logit.detach() >= every.topk(count).values[-1]


def held(system: System, found: Boundaries, ranks: Ranks) -> Boundaries:
    """`found` with its current shifted so that the batch of all processes has the target's tokens."""
    tokenizer = system.tokenizer
    with torch.no_grad():
        every = ranks.gather(found.current.detach()), ranks.gather(found.gate_logit.detach())
        shift = shift_to(system.config.training.target_sf, lambda by: float(boundaries(system, *every, by).mean()))
    current = found.current + steps_of(tokenizer, shift)
    spikes, membrane, state = tokenizer.neuron(current, found.gate_logit)
    return Boundaries(current, found.gate_logit, membrane, spikes, state)


@contextlib.contextmanager
def at_target(system: System, ids: npt.NDArray[np.int32], window: int, keep: bool) -> Iterator[None]:
    """The system with its rate on `ids` at the target; `keep` says whether it stays so afterwards."""
    biases, target = [bias for bias, _ in shifted(system)], system.config.training.target_sf
    if not biases or not target:
        yield
        return
    with contextlib.nullcontext() if keep else restored(biases):
        calibrate(system, ids, window, target)
        yield


@contextlib.contextmanager
def restored(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Afterwards the parameters are as they were."""
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)


def shifted(system: System) -> list[tuple[Tensor, float]]:
    """The parameters that a shift is added to, and how much of it each takes."""
    if system.is_speak:
        return system.tokenizer.encoder.offsets(system.tokenizer.current_readout)
    if isinstance(system.segmenter, HNet):
        return [(system.segmenter.border, 1.0)]
    predictors = (part for part in system.segmenter.modules() if isinstance(part, GumbelPredictor))
    return [(predictor.contract.bias, 1.0) for predictor in predictors]


@torch.no_grad()
def calibrate(system: System, ids: npt.NDArray[np.int32], window: int, target: float) -> float:
    """Shift the current or the logit so that `ids` have `target` characters per token; returns the shift."""
    shift = shift_to(target, rate_of(system, ids, window))
    for bias, share in shifted(system):
        bias += shift * share
    return shift


def shift_to(target: float, rate: Callable[[float], float]) -> float:
    """The shift at which `rate`, which grows with it, is nearest to 1 / target; it may jump over it."""
    rate = functools.cache(rate)  # the last two places were looked at on the way
    low, high = -REACH, REACH
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if rate(middle) * target > 1 else (middle, high)
    return min(high, low, key=lambda shift: abs(rate(shift) * target - 1))


def steps_of(tokenizer: SpeakTokenizer, shift: float) -> float:
    """A shift of the current in the units that it is in: whole steps on a grid."""
    return shift if tokenizer.grid is None else round(shift * tokenizer.unit)


def rate_of(system: System, ids: npt.NDArray[np.int32], window: int, batch: int = 32) -> Callable[[float], float]:
    """The rate of boundaries on `ids` as a function of the shift, counted as `evaluate` counts; all else is computed
    once."""
    device = next(system.parameters()).device
    training = system.training
    system.eval()
    plan, parts = views(int(ids.size), window), []
    for first in range(0, len(plan), batch):
        part = plan[first : first + batch]
        padded = np.zeros((len(part), window), dtype=np.int64)
        counted = np.zeros(padded.shape, dtype=np.bool_)
        for row, view in enumerate(part):
            padded[row, : view.end - view.start] = ids[view.start : view.end]
            counted[row, view.first - view.start : view.end - view.start] = True
        rows = torch.from_numpy(padded).to(device)
        parts.append((*drives(system, rows), torch.from_numpy(counted).to(device)))
    system.train(training)

    def rate(shift: float) -> float:
        counts = [
            torch.stack([boundaries(system, drive, gate, shift)[at].sum(), at.sum()]) for drive, gate, at in parts
        ]
        total = torch.stack(counts).double().sum(0)
        return float(total[0] / total[1])

    return rate


def drives(system: System, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What a shift is added to, and SPEAK's gate logit: (B, L) each."""
    if system.is_speak:
        hidden = system.language_model.pre(rows) if system.tokenizer.needs_hidden else None
        _, current, gate = system.tokenizer.inputs(rows, hidden)
        return current, gate
    hidden = system.language_model.pre(rows)
    if isinstance(system.segmenter, HNet):
        logit = system.segmenter.route(hidden) - 0.5
        return logit, logit
    assert isinstance(system.segmenter, Predictor)
    logit = system.segmenter.predict(rows, hidden, sample=False).logit
    return logit, logit


def boundaries(system: System, drive: Tensor, gate: Tensor, shift: float) -> Tensor:
    """(B, L): 0 or 1; where a system draws its boundaries, their probability."""
    if system.is_speak:
        tokenizer = system.tokenizer
        return tokenizer.neuron(drive + steps_of(tokenizer, shift), gate)[0]  # type: ignore[no-any-return]
    sampled = isinstance(system.segmenter, Predictor) and system.segmenter.sampled
    return torch.sigmoid(drive + shift) if sampled else (drive + shift > 0).float()
