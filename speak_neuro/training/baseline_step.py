"""The training step of the systems that SPEAK is compared with: one loss and one clip, as DTP's code has it.

    h = pre(c)      b = segmenter(c, h)      logits = decode(h, b)      L = L_LM(logits) + L_boundary

L_boundary is the system's own (`systems.segmenter`): nothing, the likelihood of boundaries that it is taught, or a
prior on boundaries that it draws.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.profiler import record_function

from speak_neuro.systems.segmenter import Lesson
from speak_neuro.training.draws import uniform_draws
from speak_neuro.training.optimiser import schedule
from speak_neuro.training.rate import highest, move
from speak_neuro.training.trainer import (
    Trainer,
    language_model_precision,
    next_character_nats,
    read_batch,
)


def baseline_step(trainer: Trainer) -> dict[str, float]:
    """One optimiser step of a system other than SPEAK; returns what it measured."""
    system, config, ranks = trainer.system.train(), trainer.config, trainer.ranks
    segmenter, knob, step = system.segmenter, system.rate, trainer.step
    trainer.optimiser.set_rates(step)
    with record_function("speak.data"):
        _, ids, following, exemplar = read_batch(trainer)
    with record_function("speak.model"), language_model_precision(trainer):
        hidden = system.language_model.pre(ids)
        # Drawn for the whole batch, so that a row's draws are the same in whichever process it is.
        uniform = ranks.own(uniform_draws(config, step, ids.device)) if segmenter.drawn(step) else None
        cut = segmenter.cut(ids, hidden, step, uniform)
        if segmenter.taught(step) and config.target_sf:
            cut = cut._replace(boundaries=highest(cut.logit, config.target_sf, ranks))
        logits = system.language_model.decode(hidden, cut.boundaries, cut.confidence)
    with record_function("speak.losses"):
        model_loss = next_character_nats(logits, following).mean()
        lesson = Lesson(ids, exemplar, logits.detach(), (lambda rows: rows) if knob is None else knob.priors)
        auxiliary, targets = segmenter.loss(cut, lesson, step)
    with record_function("speak.backward"):
        trainer.optimiser.zero_grad()
        (model_loss + auxiliary).backward()  # type: ignore[no-untyped-call]
        ranks.start_average(system.parameters())()
    with record_function("speak.optimiser"):
        norm = nn.utils.clip_grad_norm_(system.parameters(), config.clip)
        trainer.optimiser.step()
        if segmenter.drawn(step):
            inferred = cut.boundaries.detach() if segmenter.sampled else (cut.logit.detach() > 0).float()
            move(system, inferred.mean(), schedule(step, config), ranks)
    trainer.step += 1
    closed = cut.boundaries.detach() > 0.5
    matched = closed.new_zeros(()) if targets is None else (closed & targets).sum()
    n_targets = closed.new_zeros(()) if targets is None else targets.sum()
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
    if targets is not None:
        record["target_f1"] = 2 * n_matched / max(n_closed + n_target, 1.0)
    return record
