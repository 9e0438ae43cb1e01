"""Tokens to the encoder's input: embeddings (B, T, D), mask (B, T), labels.

    one text    <s> a </s>                two texts    <s> a </s></s> b </s>

Every distinct token of the batch is embedded once; special tokens always have the encoder's own rows. A sequence longer
than `longest` loses tokens at the end of its longer text until it fits, and never a special token. Lengths count the
special tokens and are those before any cut, as the paper counts.

A word's label stands at its first token. A word that was cut off has no position, and `Batch.words` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speak_neuro.rtok.tasks.examples import IGNORED, Example

if TYPE_CHECKING:
    from speak_neuro.rtok.pretrained.embedder import TokenEmbedder

Units = Sequence[Sequence[str]]
"""Tokens of each unit of a text."""

PAD, BEGIN, END = "<pad>", "<s>", "</s>"
SPECIALS = (PAD, BEGIN, END)
LONGEST = 128


@dataclass(frozen=True)
class Batch:
    """B sequences of at most T tokens, with where everything went."""

    embeddings: Tensor
    """(B, T, D)."""
    mask: Tensor
    """(B, T) int64: 1 on tokens and special tokens, 0 on padding."""
    labels: Tensor
    """(B, T) int64 with IGNORED where no word begins, or (B,) for one label per sequence."""
    words: list[list[int]]
    """UNER: position of each word's first token, -1 for a word cut off. XNLI: empty lists."""
    starts: list[list[int]]
    """For each sequence and text the position of its first token."""
    kept: list[list[int]]
    """For each sequence and text how many of its tokens are there."""
    counts: list[list[int]]
    """For each sequence and text how many tokens it had before the cut."""
    lengths: list[int]
    """Tokens with special tokens, before the cut."""


def room(counts: Sequence[int], longest: int = LONGEST) -> list[int]:
    """How many tokens each text keeps: the longer text gives first, the later one at a tie."""
    allowed = longest - 2 * len(counts)
    kept = list(counts)
    if len(kept) == 1:
        return [min(kept[0], allowed)]
    if sum(kept) <= allowed:
        return kept
    first, second = kept
    if min(first, second) > allowed // 2:
        return [allowed - allowed // 2, allowed // 2]
    return [allowed - second, second] if first > second else [first, allowed - first]


def build(
    tokens: Sequence[Sequence[Units]],
    examples: Sequence[Example],
    embedder: TokenEmbedder,
    language: str,
    per_word: bool,
    longest: int = LONGEST,
) -> Batch:
    """The batch of `tokens[example][text][unit]`; labels per word (UNER) or per sequence (XNLI)."""
    rows: dict[str, int] = {}
    indices: list[list[int]] = []
    words: list[list[int]] = []
    starts: list[list[int]] = []
    kept: list[list[int]] = []
    whole: list[list[int]] = []
    for texts in tokens:
        flat = [[token for unit in units for token in unit] for units in texts]
        counts = room([len(text) for text in flat], longest)
        sequence, begins, first = [1], [], []
        for number, (text, count) in enumerate(zip(flat, counts, strict=True)):
            if number:
                sequence.append(2)
            begins.append(len(sequence))
            sequence += [len(SPECIALS) + rows.setdefault(token, len(rows)) for token in text[:count]]
            sequence.append(2)
        if per_word:
            at = 0
            for unit in texts[0]:
                first.append(begins[0] + at if at < counts[0] else -1)
                at += len(unit)
        indices.append(sequence)
        words.append(first)
        starts.append(begins)
        kept.append(counts)
        whole.append([len(text) for text in flat])
    width = max(map(len, indices))
    table = torch.stack([embedder.special(name) for name in SPECIALS])
    if rows:
        table = torch.cat([table, embedder.embed(list(rows), language)])
    index = torch.zeros(len(indices), width, dtype=torch.int64)
    for row, sequence in enumerate(indices):
        index[row, : len(sequence)] = torch.tensor(sequence)
    sizes = torch.tensor([len(sequence) for sequence in indices])
    mask = (torch.arange(width) < sizes[:, None]).long()
    device = table.device
    lengths = [sum(counts) + 2 * len(counts) for counts in whole]
    labels = _labels(examples, words, width) if per_word else torch.tensor([example.labels[0] for example in examples])
    return Batch(table[index.to(device)], mask.to(device), labels.to(device), words, starts, kept, whole, lengths)


def _labels(examples: Sequence[Example], words: Sequence[Sequence[int]], width: int) -> Tensor:
    labels = torch.full((len(words), width), IGNORED, dtype=torch.int64)
    for row, (example, positions) in enumerate(zip(examples, words, strict=True)):
        if len(example.labels) != len(positions):
            raise ValueError(
                f"example {example.identifier} has {len(example.labels)} labels for {len(positions)} words; allowed: "
                "one a word"
            )
        for label, position in zip(example.labels, positions, strict=True):
            if position >= 0:
                labels[row, position] = label
    return labels
