"""SPEAK learning beside the encoder: what one fine-tuning step does for the tokenizer (paper sections 3.2, 3.3).

    candidate  the neuron's tokens, on which the encoder trains        proxy  the tokens of the proxy spikes
    L_mem or L_spike towards the proxy, L_reset towards the batch's tokens of highest entropy, one AdamW step
    candidate spikes become the proxy where  L(candidate), L(proxy)  say so, example by example

Both losses come from the encoder's weights after its own step, in evaluation mode, without gradient. The entropy of a
token is that of a distribution at its position: the classifier's (`task_head`), or the masked-language head's over the
commonest pieces with LoRA switched off (`mlm_onepass`).

The tokenizer works on the CPU: a word has a dozen characters, and the compiled scan takes microseconds.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from speak_neuro.common.settings import to_dict
from speak_neuro.common.tensors import apply_tensors, optimiser_tensors, restore_optimiser
from speak_neuro.config import NeuronConfig, RunConfig, TokenizerConfig
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.config import SpeakTraining
from speak_neuro.rtok.tasks.examples import Example, units_of
from speak_neuro.rtok.text.characters import learn_characters
from speak_neuro.rtok.text.limits import Limits
from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer, SpeakSegmenter, rtok_config
from speak_neuro.rtok.training.batch import Batch, Units
from speak_neuro.rtok.training.learn import Proposal, accept, propose, train_tokenizer_step
from speak_neuro.rtok.training.length import TargetLength
from speak_neuro.rtok.training.proxies import ProxyBook, join_signs
from speak_neuro.supervision.entropy import character_entropy

Segment = Callable[[str], Sequence[str]]
PREFIX = "joint."
COUNTED = 1 << 17
"""Tokens whose pieces are remembered: those of the last batches, and of a bisection of their length."""


class Tuner(Protocol):
    """What the tokenizer's part of a step asks of the run that tunes the encoder; `finetune.FineTuner` is one."""

    model: Any
    language: str
    step: int

    @property
    def bare(self) -> Any:
        """The model without wrappers."""

    def precision(self) -> Any:
        """A context: the precision in which the model runs."""

    def by_text(self, tokens: Sequence[Units], examples: Sequence[Example]) -> list[list[Units]]:
        """Tokens by example and unit, as tokens by example, text and unit."""

    def batch(self, tokens: Any, examples: Sequence[Example], language: str) -> Batch:
        """The encoder's input."""

    def nats(self, logits: Tensor, batch: Batch) -> Tensor:
        """Summed cross-entropy of each example's labels, (B,)."""


PiecesEntropy = Callable[[Tuner, Batch], Tensor]
"""Entropy (B, T) in nats of a masked-language head."""


class JointTokenizer:
    """The tokenizer, its optimiser, the proxies of the training examples, and other texts that it only mimics."""

    def __init__(
        self,
        tokenizer: CharacterTokenizer,
        book: ProxyBook,
        limits: Limits,
        settings: SpeakTraining,
        seed: int,
        length: TargetLength,
        mimic: Sequence[Sequence[str]] = (),
        pieces_entropy: PiecesEntropy | None = None,
    ) -> None:
        self.length = length
        self.tokenizer, self.book, self.limits, self.settings, self.seed = tokenizer, book, limits, settings, seed
        self.mimic = mimic
        self.pieces_entropy = pieces_entropy
        self.optimiser = torch.optim.AdamW(
            tokenizer.parameters(), lr=settings.tokenizer_learning_rate, weight_decay=0.0
        )

    @classmethod
    def create(
        cls,
        examples: Sequence[Example],
        segment: Segment,
        neuron: NeuronConfig,
        settings: SpeakTraining,
        seed: int,
        mimic: Sequence[Sequence[str]] = (),
        pieces_entropy: PiecesEntropy | None = None,
        start: Path | None = None,
    ) -> JointTokenizer:
        """A fresh tokenizer over the characters of `examples` and `mimic`, or the one in the folder `start`; its
        proxies are the pieces of `segment`.
        """
        known: list[tuple[str, Sequence[str]]] = [(str(example.identifier), units_of(example)) for example in examples]
        known += [(_mimic_id(number), text) for number, text in enumerate(mimic)]
        exemplar: Segment = (lambda unit: join_signs(segment(unit))) if settings.join_signs else segment
        book = ProxyBook.from_pieces(known, exemplar)
        config = rtok_config(
            neuron,
            TokenizerConfig(
                encoder=settings.encoder,
                encoder_width=settings.encoder_width,
                context=settings.context,
                tanh=settings.tanh,
            ),
            settings.shared(),
        )
        if start is None:
            units = [unit for e in examples for unit in units_of(e)] + [unit for text in mimic for unit in text]
            tokenizer = CharacterTokenizer(learn_characters(units), config, settings.look_ahead)
        else:
            tokenizer = started(start, config, settings.look_ahead)
        limits = Limits(count_pieces=functools.lru_cache(COUNTED)(lambda token: len(segment(token))))
        length = TargetLength(settings.target_length, segment)
        return cls(tokenizer, book, limits, settings, seed, length, mimic, pieces_entropy)

    def segmenter(self) -> SpeakSegmenter:
        """The tokenizer as it is at each moment, behind the interface of the others."""
        return SpeakSegmenter(self.tokenizer, self.limits)

    def reload(self, folder: Path) -> SpeakSegmenter:
        """The tokenizer saved in `folder`, within the same limits."""
        return SpeakSegmenter(CharacterTokenizer.load(folder), self.limits)

    def at_target(self, examples: Sequence[Example]) -> contextlib.AbstractContextManager[None]:
        """The tokenizer with the target length on these examples, if there is one; afterwards as it was."""
        units = [unit for example in examples for unit in units_of(example)]
        return self.length.reached(self.tokenizer, self.limits, units, sum(len(e.texts) for e in examples))

    def begin(self, examples: Sequence[Example]) -> None:
        """After the warm-up: the target length on the training examples."""
        units = [unit for example in examples for unit in units_of(example)]
        self.length.begin(self.tokenizer, self.limits, units, sum(len(e.texts) for e in examples))

    def learn(
        self, proposal: Proposal, texts: int, entropies: Sequence[Sequence[float]] | None = None
    ) -> dict[str, float]:
        """One step of the tokenizer on its proposal for so many texts, then one of the price."""
        found = train_tokenizer_step(self.tokenizer, self.optimiser, proposal, entropies, self.length.price)
        units = [unit for sentence in proposal.batch for unit in sentence]
        self.length.move(sum(len(part) for parts in proposal.tokens for part in parts), units, texts)
        return {**found, "price": float(self.length.price)} if self.length.target else found

    def propose(self, examples: Sequence[Example]) -> Proposal:
        """The tokenizer's pass over a batch."""
        identifiers = [str(example.identifier) for example in examples]
        return propose(self.tokenizer, self.book, identifiers, [units_of(e) for e in examples], self.limits)

    def warm_up(self, examples: Sequence[Example], batch: int, report: Callable[[dict[str, Any]], None]) -> None:
        """Passes over all texts that only learn to spike where the pieces begin."""
        texts = [(str(example.identifier), units_of(example), len(example.texts)) for example in examples]
        texts += [(_mimic_id(number), list(text), 1) for number, text in enumerate(self.mimic)]
        for epoch in range(self.settings.tokenizer_warmup_epochs):
            order = np.random.default_rng((self.seed, epoch, 3)).permutation(len(texts))
            for start in range(0, len(texts), batch):
                part = [texts[index] for index in order[start : start + batch]]
                names, units, counts = zip(*part, strict=True)
                found = self.learn(propose(self.tokenizer, self.book, names, units, self.limits), sum(counts))
                report({"warmup_epoch": epoch + 1, "examples": len(part), **found})

    def step(self, tuner: Tuner, examples: Sequence[Example], proposal: Proposal, batch: Batch) -> dict[str, float]:
        """The tokenizer's part of a step, after the encoder's; `batch` is that of `proposal.tokens`."""
        tuner.model.eval()
        with torch.no_grad(), tuner.precision():
            logits = tuner.model(batch.embeddings, batch.mask)
            entropy = character_entropy(logits) if self.pieces_entropy is None else self.pieces_entropy(tuner, batch)
        candidate = tuner.nats(logits, batch).cpu().numpy()
        current = candidate.copy()
        judged = proposal.differs & np.array([self.book.visited(name) for name in proposal.examples], dtype=np.bool_)
        rows = np.flatnonzero(judged)
        if len(rows) and self.settings.acceptance not in ("always", "never"):
            some = [examples[row] for row in rows]
            proxies = tuner.batch(
                tuner.by_text([proposal.proxy_tokens[row] for row in rows], some), some, tuner.language
            )
            with torch.no_grad(), tuner.precision():
                current[rows] = tuner.nats(tuner.model(proxies.embeddings, proxies.mask), proxies).cpu().numpy()
        found = self.learn(proposal, sum(len(e.texts) for e in examples), token_entropies(entropy, batch))
        generator = np.random.default_rng((self.seed, tuner.step, 1))
        accepted = accept(self.tokenizer, self.book, proposal, candidate, current, generator)
        record = {f"tokenizer_{name}": value for name, value in found.items()}
        if len(rows):
            record["changed"] = float((accepted & judged).sum() / len(judged))
            record["accepted"] = float(accepted[judged].mean())
            record["nats_gain"] = float((current - candidate)[rows].mean())
        if self.mimic:
            chosen = np.random.default_rng((self.seed, tuner.step, 2)).integers(len(self.mimic), size=len(examples))
            names = [_mimic_id(number) for number in chosen.tolist()]
            other = propose(self.tokenizer, self.book, names, [self.mimic[n] for n in chosen], self.limits)
            record["mimic_spike_accuracy"] = self.learn(other, len(names))["spike_accuracy"]
        return record

    def tensors(self) -> dict[str, Tensor]:
        """What a resume needs."""
        own = {f"weights.{name}": value for name, value in self.tokenizer.state_dict().items()}
        found = {**own, **optimiser_tensors(self.optimiser), **self.book.tensors()}
        if self.length.target:
            found["price"] = self.length.knob.value
        return {PREFIX + name: value for name, value in found.items()}

    def restore(self, tensors: dict[str, Tensor], where: Any = "checkpoint") -> None:
        """The inverse of `tensors`."""
        found = {name[len(PREFIX) :]: value for name, value in tensors.items() if name.startswith(PREFIX)}
        weights = {name[8:]: value for name, value in found.items() if name.startswith("weights.")}
        apply_tensors(self.tokenizer, weights, where)
        restore_optimiser(self.optimiser, found)
        self.book = ProxyBook.from_tensors(found)
        if self.length.target:
            if "price" not in found:
                raise SpeakError(f"{where}: holds no price of a spike; the run began without --target-length")
            self.length.knob.value.copy_(found["price"])


def started(folder: Path, config: RunConfig, look_ahead: int) -> CharacterTokenizer:
    """The tokenizer of a run folder, to be trained as `config` says; another neuron or encoder is refused."""
    tokenizer = CharacterTokenizer.load(folder)
    for section in ("neuron", "tokenizer"):
        theirs, ours = to_dict(getattr(tokenizer.config, section)), to_dict(getattr(config, section))
        for name, value in theirs.items():
            if ours[name] != value:
                raise SpeakError(f"{folder}: its {name} is {value}, this run's {ours[name]}; start from its like")
    if tokenizer.look_ahead != look_ahead:
        raise SpeakError(f"{folder}: its look_ahead is {tokenizer.look_ahead}, this run's {look_ahead}")
    tokenizer.config = config
    return tokenizer


def token_entropies(entropy: Tensor, batch: Batch) -> list[list[float]]:
    """For each example the entropies (B, T) at its tokens, special tokens left out, those that were cut off missing.

    With two texts only the first can be given whole when it lost tokens, so the second text is then left out.
    """
    values = entropy.float().tolist()
    found = []
    for row, starts, kept, counts in zip(values, batch.starts, batch.kept, batch.counts, strict=True):
        own: list[float] = []
        for start, count, whole in zip(starts, kept, counts, strict=True):
            own += row[start : start + count]
            if count < whole:
                break
        found.append(own)
    return found


def _mimic_id(number: int) -> str:
    return f"text {number}"
