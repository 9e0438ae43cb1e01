"""SPEAK's training step: the language model and the tokenizer together (paper section 3, appendix B and C).

On a batch of windows c with proxy spikes p:

    h = pre(c)                     I, e, u, s = tokenizer(c, h)          logits = decode(h, s)
    L = L_LM(logits) + w_mem * L_mem(u, I, p) + w_reset * L_reset(e, top entropy of logits)
    accept s as the new p, window by window, by comparing L_LM under s and under p (Eq. 13, 15, 16)

With `neuron_loss = "spike"` the likelihood of the proxy's spikes takes the place of L_mem. With `drive = "information"`
there is no proxy and no acceptance: the current learns the model's own entropy at t, the gate where it is highest.

The language model sees spikes without gradient, so L_LM does not train the tokenizer; the two have their own learning
rates and gradient clips. The proxy from before the decision supervises the step, or an accepted window would be its own
teacher.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from speak_neuro.supervision.acceptance import acceptance
from speak_neuro.supervision.entropy import character_entropy, reset_targets
from speak_neuro.supervision.losses import (
    contextual,
    current_loss,
    information_targets,
    membrane_loss,
    membrane_targets,
    rate_hinge,
    reset_loss,
    rise,
    spike_loss,
)
from speak_neuro.tokenizer.module import Boundaries
from speak_neuro.training.optimiser import schedule, tokenizer_parameters
from speak_neuro.training.rate import held, move
from speak_neuro.training.sliding import default_stride
from speak_neuro.training.trainer import (
    Trainer,
    language_model_precision,
    next_character_nats,
    read_batch,
)

CURRENT_WEIGHT = 10.0


def speak_step(trainer: Trainer) -> dict[str, float]:
    """SPEAK's step. Its parts carry names for torch.profiler, `speak.*` (experiments/bench/profile_step.py)."""
    system, config, ranks = trainer.system.train(), trainer.config, trainer.ranks
    trainer.optimiser.set_rates(trainer.step)
    with record_function("speak.data"):
        starts, ids, following, proxy = read_batch(trainer)

    with record_function("speak.pre"), language_model_precision(trainer):
        hidden = system.language_model.pre(ids)
    with record_function("speak.tokenizer"):
        found = system.tokenizer(ids, hidden.detach() if system.tokenizer.needs_hidden else None)
        given = trainer.step < config.proxy_steps
        # The language model learns on as many tokens as it will be read with; the neuron's losses are of `found`.
        taken = held(system, found, ranks) if config.target_sf and not given else found
        spikes = taken.spikes.detach()
        fired = spikes.bool()
    with record_function("speak.decode"), language_model_precision(trainer):
        read = proxy if given else fired
        logits = system.language_model.decode(hidden, read, None if given else system.tokenizer.confidence(taken))
    if given and trainer.proxy is not None:  # the language model has read these windows, with the proxy's boundaries
        trainer.proxy.mark_visited(starts, config.window)
    with record_function("speak.losses"):
        nats = next_character_nats(logits, following)
        model_loss = nats.mean()
        if config.drive == "information":
            neuron_loss, gate_loss, proxy = information_losses(trainer, found, logits.detach())
        else:
            neuron_loss = proxy_loss(trainer, found, proxy)
            gate_loss = opening_loss(trainer, found, logits.detach(), spikes)
        loss = model_loss + config.membrane_weight * neuron_loss + config.reset_weight * gate_loss
        if config.rate_limit:
            loss = loss + rate_hinge(ranks.mean(found.spikes.mean()), config.rate_limit)

    with record_function("speak.backward"):
        trainer.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average = ranks.start_average(system.parameters())  # the gradients travel while acceptance is decided
    decision: dict[str, float] = {}
    if config.drive == "proxy" and not given:
        with record_function("speak.acceptance"):
            decision = decide(trainer, starts, ids, following, hidden.detach(), fired, proxy, nats.detach().sum(1))
    with record_function("speak.optimiser"):
        average()
        model_norm = nn.utils.clip_grad_norm_(system.language_model.parameters(), config.clip)
        nn.utils.clip_grad_norm_(tokenizer_parameters(system), config.tokenizer_clip)
        trainer.optimiser.step()
        system.mixes.project()
        move(system, found.spikes.mean(), schedule(trainer.step, config), ranks)
    trainer.step += 1
    with record_function("speak.metrics"):
        # Everything that the device computed comes over in one transfer.
        hard = system.tokenizer.effective_gate(found.gate_logit.detach()) > 0
        counts = torch.stack([fired.sum(), (fired & hard).sum(), proxy.sum(), (fired & proxy).sum()])
        losses = (model_loss, neuron_loss, gate_loss, system.mixes.fire_mix, system.mixes.rest_mix, model_norm)
        means = torch.stack([value.detach().float() for value in losses]).double() / ranks.world
        measured = ranks.sum(torch.cat([means, counts.double()]))
        lm, mem, gate, fire_mix, rest_mix, norm, n_fired, n_hard, n_proxy, matched = measured.tolist()
    return {
        "step": trainer.step,
        "loss_lm": lm,
        "loss_mem": mem,
        "loss_reset": gate,
        "bpc": lm / math.log(2),
        "sf": spikes.numel() * ranks.world / max(n_fired, 1.0),
        "gate_rate": n_hard / max(n_fired, 1.0),
        "proxy_f1": 2 * matched / max(n_fired + n_proxy, 1.0),
        "fire_mix": fire_mix,
        "rest_mix": rest_mix,
        "gradient_norm": norm,
        "learning_rate": trainer.optimiser.learning_rate,
        **decision,
    }


def proxy_loss(trainer: Trainer, found: Boundaries, proxy: Tensor) -> Tensor:
    """L_mem (Eq. 14) or the spikes' likelihood; its mean over processes is the batch's."""
    system, config = trainer.system, trainer.config
    neuron, unit = system.tokenizer.neuron, system.tokenizer.unit
    threshold = neuron.threshold.detach() / unit
    if config.neuron_loss == "spike":
        price = 0.0 if system.rate is None else system.rate.value
        return spike_loss(found.membrane / unit, proxy, threshold, neuron.surrogate_slope * unit, price)
    targets = membrane_targets(
        found.current / unit,
        proxy,
        system.mixes.fire_mix,
        system.mixes.rest_mix,
        decay=neuron.decay.detach(),
        gain=neuron.gain.detach(),
        threshold=threshold,
        reset_potential=neuron.reset_potential.detach() / unit,
    )
    return membrane_loss(
        found.membrane / unit, targets, proxy, rest_term=config.rest_term, rest_weight=config.rest_weight
    )


def opening_loss(trainer: Trainer, found: Boundaries, logits: Tensor, spikes: Tensor) -> Tensor:
    """L_reset (Eq. 12); its mean over processes is the batch's."""
    config, ranks = trainer.config, trainer.ranks
    # The tokens of highest entropy are those of the whole batch.
    entropy, opened = ranks.gather(character_entropy(logits)), ranks.gather(spikes)
    gate_targets = ranks.own(reset_targets(entropy, opened, config.entropy_share, config.entropy))
    gate_loss = reset_loss(
        found.gate_logit / trainer.system.tokenizer.unit,
        gate_targets,
        spikes,
        on=config.reset_loss_on,
        positive_weight=config.reset_positive_weight,
    )
    if config.reset_loss_on == "spikes" and ranks.together:
        # A mean over spikes, of which this process may have more or fewer than its share.
        gate_loss = gate_loss * (spikes.sum() * ranks.world / opened.sum().clamp(min=1))
    return gate_loss


def information_losses(trainer: Trainer, found: Boundaries, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """L_info and L_reset of the information drive, and the contextual boundaries (B, L) that the gate learns.

    `entropy_share` of the wanted tokens open with one: the positions of highest entropy of the whole batch.
    """
    system, config, ranks = trainer.system, trainer.config, trainer.ranks
    tokenizer, knob = system.tokenizer, system.rate
    assert knob is not None  # `check_settings` refuses the drive without a target
    entropy = character_entropy(logits)
    height = entropy if config.contextual == "entropy" else rise(entropy)
    opens = ranks.own(contextual(ranks.gather(height), config.entropy_share / knob.target))
    threshold = tokenizer.neuron.threshold.detach() / tokenizer.unit
    targets = information_targets(entropy, opens, knob.value.exp() * threshold, threshold)
    # In units of thresholds squared; of the size of L_reset, which shares its gradient clip.
    drive_loss = CURRENT_WEIGHT * current_loss(found.current / tokenizer.unit / threshold, targets / threshold)
    if config.neuron_loss == "spike":
        neuron = tokenizer.neuron
        with torch.no_grad():  # the spikes of the same neuron if its current and gate were the targets themselves
            ideal, _, _ = neuron(targets * tokenizer.unit, opens.float() - 0.5)
        slope = neuron.surrogate_slope * tokenizer.unit
        drive_loss = drive_loss + spike_loss(found.membrane / tokenizer.unit, ideal, threshold, slope)
    gate_loss = reset_loss(found.gate_logit / tokenizer.unit, opens.float(), opens.float())
    return drive_loss, gate_loss, opens


def decides(step: int, share: float) -> bool:
    """Whether acceptance is decided at this step: at `share` of the steps, as evenly spread as can be.

    Whole steps, since on a GPU a pass costs nearly as much for few windows as for all.
    """
    return math.floor((step + 1) * share) > math.floor(step * share)


@torch.no_grad()
def decide(
    trainer: Trainer,
    starts: npt.NDArray[np.int64],
    ids: Tensor,
    following: Tensor,
    hidden: Tensor,
    spikes: Tensor,
    proxy: Tensor,
    candidate_nats: Tensor,
) -> dict[str, float]:
    """Accept the neuron's spikes as proxy, window by window, after a window's first visit.

    A window's first half is context alone: its characters were decided without what lies before the window, from the
    reset potential. There both segmentations are the neuron's, and nothing is written; in the second half they are s
    and p, and that half of s becomes the proxy. Another epoch's windows begin elsewhere, so that every position has its
    turn.

    Both losses come from the same weights and no dropout. Without dropout in the model the training pass already gave
    the candidate's, and its pre-layers serve the proxy. At the steps between those of `decides` nothing is computed.
    """
    config, model, store, ranks = trainer.config, trainer.system.language_model, trainer.proxy, trainer.ranks
    assert store is not None  # `Trainer.create` refuses SPEAK without one
    judged = store.visited(starts, config.window)
    store.mark_visited(starts, config.window)
    if not (decides(trainer.step, config.acceptance_share) and judged.any()):
        return {}
    context = config.window - default_stride(config.window)  # as in evaluation
    proxy = torch.cat([spikes[:, :context], proxy[:, context:]], dim=1)
    # Only windows whose two segmentations differ, and that may be accepted, cost a forward pass.
    differ = (spikes != proxy).any(1).cpu().numpy() & ranks.own(judged)
    # A compiled pass is for a whole batch.
    rows = torch.from_numpy(np.flatnonzero(differ) if config.compile == "no" else np.arange(len(ids))).to(ids.device)
    candidate, current = candidate_nats.clone(), candidate_nats.clone()
    if len(rows):
        with language_model_precision(trainer):
            if model.config.dropout or model.config.attention_dropout:
                model.eval()
                clean = model.pre(ids[rows])
                logits = model.decode(torch.cat([clean, clean]), torch.cat([spikes[rows], proxy[rows]]))
                model.train()
                nats = next_character_nats(logits, torch.cat([following[rows]] * 2)).sum(1)
                candidate[rows], current[rows] = nats[: len(rows)], nats[len(rows) :]
            else:
                logits = model.decode(hidden[rows], proxy[rows])
                current[rows] = next_character_nats(logits, following[rows]).sum(1)
    # From here on it is about the whole batch, and every process comes to the same decisions.
    price = config.token_price
    scores = [candidate.double(), current.double(), price * spikes.sum(1).double(), price * proxy.sum(1).double()]
    nats_candidate, nats_proxy, cost, proxy_cost = ranks.gather(torch.stack(scores, dim=1).cpu()).numpy().T
    differ = ranks.gather(torch.from_numpy(differ)).numpy()
    accepted = judged & acceptance(
        nats_candidate + cost,
        nats_proxy + proxy_cost,
        rule=config.acceptance,  # type: ignore[arg-type]
        temperature=config.temperature,
        uniform=np.random.default_rng((config.seed, trainer.step)).random(len(starts)),
    )
    changed = accepted & differ
    places = (starts + context) % store.n_positions
    store.write(places, ranks.gather(spikes.cpu()).numpy()[:, context:], changed)
    # Where the two are equal there is nothing to accept: the rule's share is that of the windows with a choice.
    choice = {"accepted": float(changed.sum() / differ.sum())} if differ.any() else {}
    return {
        "changed": float(changed.sum() / judged.sum()),
        **choice,
        "nats_candidate": float(nats_candidate[judged].mean()),
        "nats_proxy": float(nats_proxy[judged].mean()),
    }
