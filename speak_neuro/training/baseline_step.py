"""The training step of the systems that SPEAK is compared with: one loss, one clip, one Adam, as DTP's code has it.

    h = pre(c)      b = segmenter(c, h)      logits = decode(h, b)      L = L_LM(logits) + L_boundary

    dtp-unigram          L_boundary = BCE(e, ends of the exemplar's pieces)
    dtp-entropy          L_boundary = BCE(e, [H_t > H_{t-1} and H_t > H_{t-2}])
    dtp-gumbel, magnet   L_boundary = -ln Binomial(sum b; L, prior) / L, and L_LM reaches e through the sampled b
    the others           0

H_t is the entropy of the model's next-character distribution in the same pass; the first position always counts as a
peak, the second has one comparison. With `double_sigmoid` BCE takes sigmoid(e) for its logit: DTP's code does so, which
moves the decision to true probabilities above about 0.62. With `exemplar_steps` dtp-gumbel and magnet train their first
steps as dtp-unigram: from the first step on random boundaries, a language model can learn to do without its tokens,
and then no gradient reaches the predictor (experiments/LOG.md).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from speak_neuro.config import SAMPLED, RunConfig
from speak_neuro.supervision.entropy import character_entropy
from speak_neuro.systems.gumbel import binomial_prior_loss
from speak_neuro.systems.segmenters import SUPERVISED, Predictor
from speak_neuro.training.draws import uniform_draws
from speak_neuro.training.optimiser import schedule
from speak_neuro.training.rate import highest, move
from speak_neuro.training.trainer import (
    Trainer,
    language_model_precision,
    next_character_nats,
    read_batch,
)


def entropy_peaks(entropy: Tensor) -> Tensor:
    """Positions whose entropy exceeds that of the two before: (B, L) -> (B, L) bool."""
    peaks = torch.ones_like(entropy, dtype=torch.bool)
    peaks[:, 1:] &= entropy[:, 1:] > entropy[:, :-1]
    peaks[:, 2:] &= entropy[:, 2:] > entropy[:, :-2]
    return peaks


def boundary_loss(config: RunConfig, logit: Tensor, targets: Tensor) -> Tensor:
    """Mean BCE of the predictor's logits (B, L) against boundaries (B, L)."""
    scores = torch.sigmoid(logit) if config.tokenizer.double_sigmoid else logit
    return nn.functional.binary_cross_entropy_with_logits(scores, targets.to(scores.dtype))


def baseline_step(trainer: Trainer) -> dict[str, float]:
    """One optimiser step of a system other than SPEAK; returns what it measured."""
    system, config, ranks = trainer.system.train(), trainer.config, trainer.ranks
    run, segmenter = system.config, system.segmenter
    kind = run.tokenizer.kind
    if kind in SAMPLED and trainer.step < config.exemplar_steps:
        kind = "dtp-unigram"
    trainer.optimiser.set_rates(trainer.step)
    with record_function("speak.data"):
        _, ids, following, targets = read_batch(trainer)
    auxiliary = torch.zeros((), device=ids.device)
    with record_function("speak.model"), language_model_precision(trainer):
        hidden = system.language_model.pre(ids)
        if isinstance(segmenter, Predictor):
            # Drawn for the whole batch, so that a row's draws are the same in whichever process it is.
            drawn = kind in SAMPLED
            uniform = uniform_draws(config, trainer.step, ids.device) if drawn else None
            boundaries, logit = segmenter.predict(ids, hidden, drawn, None if uniform is None else ranks.own(uniform))
            if kind in SUPERVISED and config.target_sf:
                boundaries = highest(logit, config.target_sf, ranks).float()
            used = boundaries if kind in SAMPLED else boundaries.detach() > 0.5
        else:
            boundaries = segmenter(ids)
            used, logit = boundaries, boundaries
        logits = system.language_model.decode(hidden, used)
    with record_function("speak.losses"):
        model_loss = next_character_nats(logits, following).mean()
        if isinstance(segmenter, Predictor) and kind in SAMPLED:
            priors = segmenter.priors(ids, 1 / config.target_sf if config.target_sf else run.tokenizer.prior)
            auxiliary = binomial_prior_loss(boundaries, priors if system.rate is None else system.rate.priors(priors))
        elif kind in SUPERVISED:
            if kind == "dtp-entropy":
                targets = entropy_peaks(character_entropy(logits.detach()))
            auxiliary = boundary_loss(run, logit, targets)
    with record_function("speak.backward"):
        trainer.optimiser.zero_grad()
        (model_loss + auxiliary).backward()  # type: ignore[no-untyped-call]
        ranks.start_average(system.parameters())()
    with record_function("speak.optimiser"):
        norm = nn.utils.clip_grad_norm_(system.parameters(), config.clip)
        trainer.optimiser.step()
        if kind in SAMPLED:
            assert isinstance(segmenter, Predictor)
            inferred = boundaries.detach() if segmenter.sampled else (logit.detach() > 0).float()
            move(system, inferred.mean(), schedule(trainer.step, config), ranks)
    trainer.step += 1
    closed = boundaries.detach() > 0.5
    matched = (closed & targets).sum() if kind in SUPERVISED else closed.new_zeros(())
    n_targets = targets.sum() if kind in SUPERVISED else closed.new_zeros(())
    means = torch.stack([value.detach().double() for value in (model_loss, auxiliary, norm)]) / ranks.world
    counts = torch.stack([closed.sum(), matched, n_targets]).double()
    lm, extra, gradient, n_closed, n_matched, n_target = ranks.sum(torch.cat([means, counts])).tolist()
    record = {
        "step": trainer.step,
        "loss_lm": lm,
        "loss_boundary": extra,
        "bpc": lm / math.log(2),
        "sf": closed.numel() * ranks.world / max(n_closed, 1.0),
        "gradient_norm": gradient,
        "learning_rate": trainer.optimiser.learning_rate,
    }
    if kind in SUPERVISED:
        record["target_f1"] = 2 * n_matched / max(n_closed + n_target, 1.0)
    return record
