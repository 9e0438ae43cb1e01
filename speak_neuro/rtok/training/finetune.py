"""Tuning an encoder on a task with any tokenizer: one step, an epoch's order, scores, and what a resume needs.

    tokens = segment(units of the batch)     logits = model(embed(tokens))     L = cross-entropy(logits, labels)
    AdamW on LoRA and classifier, rate falling linearly to 0, gradient norm clipped

The order of the examples is a function of (seed, epoch), so a resumed run sees what an uninterrupted one sees. The
tokenizer may be SPEAK, which learns in the same steps (speak_neuro.rtok.training.joint).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from speak_neuro.common.extras import extra
from speak_neuro.common.tensors import optimiser_tensors, restore_optimiser
from speak_neuro.rtok.config import TaskTraining
from speak_neuro.rtok.pretrained.lora import load_trained, trained_tensors
from speak_neuro.rtok.tasks.examples import IGNORED, Example, units_of
from speak_neuro.rtok.tasks.task import Task
from speak_neuro.rtok.text.segmenter import Segmenter
from speak_neuro.rtok.training.batch import Batch, Units, build

if TYPE_CHECKING:
    from speak_neuro.rtok.pretrained.embedder import TokenEmbedder
    from speak_neuro.rtok.training.joint import JointTokenizer

T = TypeVar("T")

OUTSIDE = 0
"""UNER's label O: the guess for a word that was cut off."""


@dataclass
class FineTuner:
    """A run in progress."""

    task: Task
    model: Any
    """The PeftModel, wrapped by accelerate."""
    embedder: TokenEmbedder
    segmenter: Segmenter
    examples: Sequence[Example]
    language: str
    config: TaskTraining
    optimiser: Any
    accelerator: Any
    joint: JointTokenizer | None = None
    step: int = 0
    saved_step: int | None = None
    """Step of the newest checkpoint on disk."""

    @classmethod
    def create(
        cls,
        task: Task,
        model: nn.Module,
        embedder: TokenEmbedder,
        segmenter: Segmenter,
        examples: Sequence[Example],
        language: str,
        config: TaskTraining,
        device: torch.device,
        joint: JointTokenizer | None = None,
    ) -> FineTuner:
        """A run at step 0."""
        accelerate = extra("accelerate", "speak-neuro[hf]")
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        accelerator = accelerate.Accelerator(cpu=device.type == "cpu")
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        groups = [
            {"params": [p for name, p in trained.items() if ("classifier" in name) == head], "peak": peak}
            for head, peak in ((False, config.learning_rate), (True, config.head_learning_rate or config.learning_rate))
        ]
        optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
        model, optimiser = accelerator.prepare(model, optimiser)
        return cls(task, model, embedder, segmenter, examples, language, config, optimiser, accelerator, joint)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.examples) // self.config.batch)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.config.epochs

    @property
    def epoch(self) -> int:
        """Epochs that are over."""
        return self.step // self.steps_per_epoch

    def rows(self, step: int) -> list[Example]:
        """The examples of a step; one batch of each epoch may be smaller."""
        epoch, part = divmod(step, self.steps_per_epoch)
        return [self.examples[index] for index in self.order(epoch)[part]]

    def order(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch, as indices: a permutation, in parts. With a length window the examples of so many
        batches are sorted by characters, and the batches shuffled.
        """
        generator = np.random.default_rng((self.config.seed, epoch))
        size, window = self.config.batch, self.config.length_window
        order = generator.permutation(len(self.examples)).tolist()
        if window == 1:
            return [order[start : start + size] for start in range(0, len(order), size)]
        parts = []
        for start in range(0, len(order), window * size):
            some = sorted(order[start : start + window * size], key=self.characters.__getitem__)
            parts += [some[at : at + size] for at in range(0, len(some), size)]
        return [parts[index] for index in generator.permutation(len(parts))]

    @cached_property
    def characters(self) -> list[int]:
        """Characters of each example."""
        return [sum(map(len, units_of(example))) for example in self.examples]

    def precision(self) -> Any:
        """Autocast to the configured precision."""
        if self.config.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.accelerator.device.type, torch.bfloat16)

    def tokens(self, examples: Sequence[Example], segmenter: Segmenter, language: str) -> list[list[Units]]:
        """Tokens by example, text and unit."""
        return self.by_text(segmenter.segment([units_of(example) for example in examples], language), examples)

    def by_text(self, tokens: Sequence[Units], examples: Sequence[Example]) -> list[list[Units]]:
        """Tokens by example and unit, as tokens by example, text and unit."""
        found: list[list[Units]] = []
        for units, example in zip(tokens, examples, strict=True):
            rest = iter(units)
            found.append([[next(rest) for _ in text] for text in example.texts])
        return found

    def batch(self, tokens: Any, examples: Sequence[Example], language: str) -> Batch:
        """The encoder's input."""
        return build(tokens, examples, self.embedder, language, self.task.per_word, self.config.longest)

    def nats(self, logits: Tensor, batch: Batch) -> Tensor:
        """Summed cross-entropy of each example's labels, (B,)."""
        return example_nats(logits, batch, self.task.per_word)[0]

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a resume needs."""
        tensors = {f"model.{name}": value for name, value in trained_tensors(self.bare).items()}
        tensors.update(optimiser_tensors(self.optimiser))
        tensors["random.cpu"] = torch.get_rng_state()
        if self.accelerator.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        if self.joint is not None:
            tensors.update(self.joint.tensors())
        return tensors, {"step": self.step}

    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, Any], where: Any = "checkpoint") -> None:
        """The inverse of `snapshot`."""
        load_trained(self.bare, {n[6:]: t for n, t in tensors.items() if n.startswith("model.")}, where)
        restore_optimiser(self.optimiser, tensors)
        torch.set_rng_state(tensors["random.cpu"])
        if self.accelerator.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])
        if self.joint is not None:
            self.joint.restore(tensors)
        self.step = int(metadata["step"])

    @property
    def bare(self) -> Any:
        """The model without accelerate's wrapper."""
        return self.accelerator.unwrap_model(self.model)


def train_step(tuner: FineTuner) -> dict[str, Any]:
    """One optimiser step; returns what it measured."""
    config = tuner.config
    left = 1 - tuner.step / tuner.steps
    for group in tuner.optimiser.param_groups:
        group["lr"] = group["peak"] * left
    examples = tuner.rows(tuner.step)
    if hasattr(tuner.segmenter, "generator"):  # draws are a function of (seed, step), as the order is
        tuner.segmenter.generator = np.random.default_rng((config.seed, tuner.step))
    proposal = None if tuner.joint is None else tuner.joint.propose(examples)
    if proposal is None:
        tokens = tuner.tokens(examples, tuner.segmenter, tuner.language)
    else:
        tokens = tuner.by_text(proposal.tokens, examples)
    batch = tuner.batch(tokens, examples, tuner.language)
    tuner.model.train()
    with tuner.precision():
        logits = tuner.model(batch.embeddings, batch.mask)
    nats, counts = example_nats(logits, batch, tuner.task.per_word)
    loss = nats.sum() / counts.sum().clamp(min=1)
    tuner.optimiser.zero_grad(set_to_none=True)
    tuner.accelerator.backward(loss)
    norm = tuner.accelerator.clip_grad_norm_((p for p in tuner.model.parameters() if p.requires_grad), config.clip)
    tuner.optimiser.step()
    found = {}
    if tuner.joint is not None and proposal is not None:
        found = tuner.joint.step(tuner, examples, proposal, batch)
    tuner.step += 1
    return {
        "step": tuner.step,
        "loss": float(loss.detach()),
        "average_length": sum(batch.lengths) / len(batch.lengths),
        "gradient_norm": float(norm),
        "learning_rate": config.learning_rate * left,
        **found,
    }


def example_nats(logits: Tensor, batch: Batch, per_word: bool) -> tuple[Tensor, Tensor]:
    """For each example the summed cross-entropy of its labels in nats, and how many labels there are: (B,), (B,)."""
    if not per_word:
        nats = nn.functional.cross_entropy(logits[:, 0], batch.labels, reduction="none")
        return nats, torch.ones_like(batch.labels)
    flat = nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), reduction="none", ignore_index=IGNORED
    )
    return flat.view_as(batch.labels).sum(1), (batch.labels != IGNORED).sum(1)


def predictions(logits: Tensor, batch: Batch, per_word: bool) -> list[list[int]]:
    """The likeliest label of each word, or of the pair; O for a word that was cut off."""
    if not per_word:
        return [[label] for label in logits[:, 0].argmax(-1).tolist()]
    best = logits.argmax(-1).tolist()
    return [
        [row[position] if position >= 0 else OUTSIDE for position in positions]
        for row, positions in zip(best, batch.words, strict=True)
    ]


@torch.no_grad()
def evaluate(
    tuner: FineTuner, examples: Sequence[Example], language: str, segmenter: Segmenter | None = None
) -> dict[str, float]:
    """Scores over a split, and its average sequence length.

    The split is cut into tokens in batches in its own order, as DyTok's merges depend on it; the encoder then reads it
    by length, which changes nothing but the padding.
    """
    segmenter = segmenter or tuner.segmenter
    tuner.model.eval()
    tokens = [cut for part in batches(examples, tuner.config.batch) for cut in tuner.tokens(part, segmenter, language)]
    counts = [sum(len(unit) for units in cut for unit in units) for cut in tokens]
    predicted: list[list[int]] = [[]] * len(examples)
    nats = labels = tokens_in_all = cut_off = 0.0
    for rows in batches(sorted(range(len(examples)), key=counts.__getitem__), tuner.config.batch):
        some = [examples[row] for row in rows]
        batch = tuner.batch([tokens[row] for row in rows], some, language)
        with tuner.precision():
            logits = tuner.model(batch.embeddings, batch.mask)
        found, counted = example_nats(logits, batch, tuner.task.per_word)
        nats, labels = nats + float(found.sum()), labels + float(counted.sum())
        for row, guess in zip(rows, predictions(logits, batch, tuner.task.per_word), strict=True):
            predicted[row] = guess
        tokens_in_all += sum(batch.lengths)
        cut_off += sum(position < 0 for positions in batch.words for position in positions)
    return {
        **tuner.task.scores([example.labels for example in examples], predicted),
        "loss": nats / max(labels, 1),
        "average_length": tokens_in_all / len(examples),
        "examples": len(examples),
        "words_cut_off": int(cut_off),
    }


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Parts of `size` in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
