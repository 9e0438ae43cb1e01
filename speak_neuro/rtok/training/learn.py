"""What a fine-tuning step asks of the tokenizer, in the order of the step (paper sections 3.2, 3.3).

    proposal = propose(tokenizer, book, ids, batch, limits)         tokens of the neuron, and of the proxy spikes
    ... the task embeds proposal.tokens, takes its optimiser step, and with the same weights, in evaluation mode and
        without gradients, the summed loss of each example under proposal.tokens and under proposal.proxy_tokens, and
        the entropy of each of its tokens ...
    train_tokenizer_step(tokenizer, optimiser, proposal, entropies)  L_mem + L_reset, one step
    accept(tokenizer, book, proposal, candidate, proxy, generator)   Eq. 15-16, one decision per example

The proxy spikes that supervise a step are those from before its decision, whichever of the last two comes first. The
tokenizer's losses reach its own weights only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speak_neuro.common.array_types import BoolArray
from speak_neuro.rtok.text.limits import Limits, tokens_of
from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer
from speak_neuro.rtok.training.proxies import ProxyBook
from speak_neuro.supervision.acceptance import AcceptanceRule, acceptance
from speak_neuro.supervision.entropy import reset_targets
from speak_neuro.supervision.losses import membrane_loss, membrane_targets, reset_loss, spike_loss
from speak_neuro.tokenizer.module import Boundaries

RATIO_MARGIN = 1e-6
"""Added to both losses of the literal rule's ratio, which is then defined for a loss of zero."""


@dataclass(frozen=True)
class Proposal:
    """One pass of the tokenizer over a batch of examples, and what the proxies say."""

    examples: list[str]
    """Ids, B of them."""
    batch: list[list[str]]
    """The units of each example."""
    tokens: list[list[list[str]]]
    """The neuron's tokens of each unit of each example, within the limits: what the encoder trains on."""
    proxy_tokens: list[list[list[str]]]
    """The proxy's tokens, within the same limits."""
    proxies: list[list[BoolArray]]
    """The proxy spikes of each unit before the decision."""
    spikes: list[list[BoolArray]]
    """The neuron's spikes of each unit."""
    boundaries: Boundaries
    """Of all units, one per row, (R, L); carries the gradient."""
    valid: Tensor
    """(R, L), False at padding."""

    @property
    def differs(self) -> BoolArray:
        """(B,) whether the neuron's tokens are not the proxy's: elsewhere both have the same loss."""
        return np.array([a != b for a, b in zip(self.tokens, self.proxy_tokens, strict=True)], dtype=np.bool_)

    def shortening_factor(self) -> float:
        """Characters per token of the neuron."""
        tokens = sum(len(parts) for units in self.tokens for parts in units)
        return sum(len(unit) for units in self.batch for unit in units) / max(1, tokens)


def propose(
    tokenizer: CharacterTokenizer,
    book: ProxyBook,
    examples: Sequence[str],
    batch: Sequence[Sequence[str]],
    limits: Limits | None = None,
) -> Proposal:
    """Run the tokenizer over the units of each example, and read their proxies.

    `examples` are the ids under which `book` knows them, `batch` their units, as long as when the book was made (clip
    texts before that, `speak_neuro.rtok.text.limits.clip`).
    """
    limits = limits or Limits()
    units = [unit for sentence in batch for unit in sentence]
    if not units or not all(units):
        raise ValueError("the batch holds no unit, or an empty one; allowed: units of one character at least")
    ids, valid = tokenizer.rows(units)
    boundaries = tokenizer(ids, valid)
    fired = boundaries.spikes.detach().cpu().numpy() > 0
    proxies = [book.read(example, sentence) for example, sentence in zip(examples, batch, strict=True)]
    spikes, tokens, proxy_tokens, row = [], [], [], 0
    for sentence, targets in zip(batch, proxies, strict=True):
        own = [fired[row + index, : len(unit)] for index, unit in enumerate(sentence)]
        spikes.append(own)
        tokens.append([tokens_of(unit, part, limits) for unit, part in zip(sentence, own, strict=True)])
        proxy_tokens.append([tokens_of(unit, part, limits) for unit, part in zip(sentence, targets, strict=True)])
        row += len(sentence)
    units_of_each = [list(sentence) for sentence in batch]
    return Proposal(list(examples), units_of_each, tokens, proxy_tokens, proxies, spikes, boundaries, valid)


def mimicry_loss(
    tokenizer: CharacterTokenizer, found: Boundaries, proxy: Tensor, counted: Tensor, price: Tensor | float = 0.0
) -> Tensor:
    """L_mem of units (N, L) against proxy spikes, or L_spike at a `price`, over the characters `counted`."""
    t, neuron = tokenizer.config.training, tokenizer.boundary.neuron
    if t.neuron_loss == "spike":
        return spike_loss(found.membrane, proxy, neuron.threshold.detach(), neuron.surrogate_slope, price, counted)
    targets = membrane_targets(
        found.current,
        proxy,
        tokenizer.mixes.fire_mix,
        tokenizer.mixes.rest_mix,
        decay=neuron.decay,
        gain=neuron.gain,
        threshold=neuron.threshold,
        reset_potential=neuron.reset_potential,
    )
    return membrane_loss(found.membrane, targets, proxy, counted, t.rest_term, t.rest_weight)


def gate_loss(tokenizer: CharacterTokenizer, found: Boundaries, value: Tensor, opened: Tensor, valid: Tensor) -> Tensor:
    """L_reset: the openings `opened` (N, L) whose token has one of the largest `value` (N, L) are to reset hard."""
    t = tokenizer.config.training
    return reset_loss(
        found.gate_logit,
        reset_targets(value, opened, t.entropy_share),
        opened,
        on=t.reset_loss_on,
        positive_weight=t.reset_positive_weight,
        valid=valid,
    )


def tokenizer_loss(
    tokenizer: CharacterTokenizer,
    proposal: Proposal,
    entropies: Sequence[Sequence[float]] | None = None,
    price: Tensor | float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    """L_mem or L_spike, and with `entropies` L_reset, weighted by the configuration; and what there is to log.

    `entropies` holds for each example the entropies in nats of its tokens (`proposal.tokens`, unit after unit, no
    special tokens). Fewer than tokens is allowed: the rest was cut off the encoder's input and does not count.
    L_mem and L_spike leave out the first character of each unit, which opens a token without a spike.
    """
    t, valid = tokenizer.config.training, proposal.valid
    proxy = padded([part for parts in proposal.proxies for part in parts], valid)
    counted = valid.clone()
    counted[:, 0] = False
    loss_membrane = mimicry_loss(tokenizer, proposal.boundaries, proxy, counted, price)
    loss = t.membrane_weight * loss_membrane
    fired = proposal.boundaries.spikes.detach() > 0
    agree = (fired == proxy) & counted
    record = {
        "loss_membrane": float(loss_membrane.detach()),
        "spike_accuracy": _share(agree & proxy, proxy & counted),
        "rest_accuracy": _share(agree & ~proxy, ~proxy & counted),
        "spike_rate": _share(fired & counted, counted),
        "shortening_factor": proposal.shortening_factor(),
    }
    if entropies is not None:
        value = _entropy_rows(proposal, entropies)
        loss_reset = gate_loss(tokenizer, proposal.boundaries, value, fired & value.isfinite(), valid)
        loss = loss + t.reset_weight * loss_reset
        hard = (tokenizer.boundary.effective_gate(proposal.boundaries.gate_logit) > 0) & fired
        record["loss_reset"] = float(loss_reset.detach())
        record["gate_rate"] = _share(hard, fired)
    return loss, record


def train_tokenizer_step(
    tokenizer: CharacterTokenizer,
    optimiser: torch.optim.Optimizer,
    proposal: Proposal,
    entropies: Sequence[Sequence[float]] | None = None,
    price: Tensor | float = 0.0,
) -> dict[str, float]:
    """One step of the tokenizer's own optimiser on `tokenizer_loss`; returns what there is to log."""
    loss, record = tokenizer_loss(tokenizer, proposal, entropies, price)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), tokenizer.config.training.tokenizer_clip)
    if not math.isfinite(float(norm)):
        raise FloatingPointError("the tokenizer's gradient is not finite; lower its learning rate")
    optimiser.step()
    tokenizer.mixes.project()
    return {**record, "gradient_norm": float(norm)}


def accept(
    tokenizer: CharacterTokenizer,
    book: ProxyBook,
    proposal: Proposal,
    candidate: npt.ArrayLike,
    proxy: npt.ArrayLike,
    generator: np.random.Generator,
) -> BoolArray:
    """Replace the proxies of the accepted examples by the neuron's spikes; returns which those are, (B,).

    `candidate` and `proxy` (B,) are the task's losses under `proposal.tokens` and `proposal.proxy_tokens` in nats,
    summed over the example's labels: cross-entropy of the pair in XNLI, summed over the labelled words in UNER. Both
    come from the same weights in evaluation mode, without gradients. The rule and its temperature are the
    configuration's: `metropolis` min(1, exp((proxy - candidate) / temperature)), `literal` min(1, (proxy + 1e-6) /
    (candidate + 1e-6)), `greedy`, `always`, `never`. An example's first visit only looks. The generator draws B numbers
    whatever is decided, so that a resume repeats the draws.
    """
    t = tokenizer.config.training
    uniform = generator.random(len(proposal.examples))
    margin = RATIO_MARGIN if t.acceptance == "literal" else 0.0
    losses = [np.asarray(value, dtype=np.float64) + margin for value in (candidate, proxy)]
    known = np.array([book.visited(example) for example in proposal.examples], dtype=np.bool_)
    rule = cast(AcceptanceRule, t.acceptance)
    accepted = acceptance(losses[0], losses[1], rule, t.temperature, uniform) & known
    for example, spikes, taken in zip(proposal.examples, proposal.spikes, accepted.tolist(), strict=True):
        if taken:
            book.write(example, spikes)
        book.mark_visited(example)
    return np.asarray(accepted)


def padded(parts: Sequence[npt.NDArray[np.generic]], valid: Tensor, fill: float = 0.0) -> Tensor:
    """The parts as rows (R, L) of the shape of `valid`, on its device."""
    rows = np.full(tuple(valid.shape), fill, dtype=parts[0].dtype)
    for row, part in enumerate(parts):
        rows[row, : len(part)] = part
    return torch.from_numpy(rows).to(valid.device)


def _entropy_rows(proposal: Proposal, entropies: Sequence[Sequence[float]]) -> Tensor:
    """Each token's entropy at its first character, (R, L); -inf elsewhere and for a unit's first token."""
    rows = np.full(tuple(proposal.valid.shape), -np.inf, dtype=np.float32)
    row = 0
    for sentence, values in zip(proposal.tokens, entropies, strict=True):
        count = sum(map(len, sentence))
        if len(values) > count or not np.isfinite(values).all():
            raise ValueError(f"{len(values)} entropies for {count} tokens; allowed: at most one for each, all finite")
        taken = iter(values)
        for tokens in sentence:
            start = 0
            for token, value in zip(tokens, taken, strict=False):
                if start:
                    rows[row, start] = value
                start += len(token)
            row += 1
    return torch.from_numpy(rows).to(proposal.valid.device)


def _share(part: Tensor, whole: Tensor) -> float:
    return float(part.sum()) / max(1.0, float(whole.sum()))
