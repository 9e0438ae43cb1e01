"""DyTok's tokenizers: XLM-R's byte-level tokens, and the batch's most frequent neighbours merged.

    `merges` times:  (a, b) = argmax over valid neighbours of their count in the batch;  replace each a b by ab
    valid(a, b): ab has no white space but in front, and is one pre-token (or not whole characters)

Equal counts: the pair that occurs first. So a text's tokens depend on its batch and on the order in it. With enough
merges each pre-token is one token: `WordSegmenter`. Neighbours in different units never merge.

A share of percent is a share of what merging can save at all. With `curve[m]` the mean length after m merges on
validation text, the merges for p percent are the fewest with

    curve[0] - curve[m] >= p / 100 (curve[0] - curve[-1])
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from speak_neuro.common.array_types import Float64Array
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.byte_unigram import ByteUnigram, join_characters, to_bytes
from speak_neuro.rtok.tokenizers.merging import Merger, Pair
from speak_neuro.text.byte_alphabet import raw_bytes

Batch = Sequence[Sequence[str]]
"""Sentences, each a list of units: normalised strings."""

BINS = 30
"""Equal parts of 0 to 100 percent, for training with sampled merges."""
_KEPT = 500_000
"""Different units whose tokens are remembered."""
_WHITE = frozenset(to_bytes(" \t\n"))


class DytokSegmenter:
    """Byte-level tokens with so many merges in each batch; 0 gives the original ones."""

    def __init__(self, model: ByteUnigram, merges: int, name: str | None = None) -> None:
        if merges < 0:
            raise ValueError(f"merges is {merges}; allowed: 0 or more")
        self.model = model
        self.merges = merges
        self.name = name or f"dytok-{merges}-merges"
        self._validity: dict[Pair, bool] = {}
        self._base: dict[str, list[str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without what it remembers of units that it has seen: the same segmenter is the same bytes."""
        return {**self.__dict__, "_validity": {}, "_base": {}}

    def segment(self, batch: Batch, language: str) -> list[list[list[str]]]:
        """Tokens of each unit; byte-level tokens that end within a character are joined up to its end."""
        del language
        return [[join_characters(unit) for unit in sentence] for sentence in self.byte_tokens(batch)]

    def byte_tokens(self, batch: Batch) -> list[list[list[str]]]:
        """The tokens in the alphabet of bytes: those that DyTok counts."""
        units, merger = self._merger(batch)
        for _ in range(self.merges):
            if not merger.merge():
                break
        found = dict(zip(units, merger.units, strict=True))
        return [[found[unit] for unit in sentence] for sentence in batch]

    def lengths(self, batch: Batch) -> list[int]:
        """Tokens of the batch after 0, 1, 2, ... merges, as long as any is possible; specials are not counted."""
        _, merger = self._merger(batch)
        found = [len(merger)]
        while saved := merger.merge():
            found.append(found[-1] - saved)
        return found

    def _merger(self, batch: Batch) -> tuple[list[str], Merger]:
        times = collections.Counter(unit for sentence in batch for unit in sentence)
        units = list(times)
        new = [unit for unit in units if unit not in self._base]
        if len(self._base) + len(new) > _KEPT:
            self._base, new = {}, units
        self._base.update(zip(new, self.model.segment(new), strict=True))
        return units, Merger([self._base[unit] for unit in units], list(times.values()), self._valid)

    def _valid(self, pair: Pair) -> bool:
        found = self._validity.get(pair)
        if found is None:
            found = self._validity[pair] = self._one_pre_token(pair[0] + pair[1])
        return found

    def _one_pre_token(self, merged: str) -> bool:
        white = [sign in _WHITE for sign in merged]
        if any(white[1:]) and (not all(white) or merged == to_bytes("\n\n")):
            return False
        try:
            return len(self.model.pre_tokens(raw_bytes(merged).decode("utf-8"))) == 1
        except UnicodeDecodeError:
            return True


class OriginalSegmenter(DytokSegmenter):
    """XLM-R's pieces at byte level, punctuation apart: what ZeTT's hypernetwork gets without any change."""

    def __init__(self, model: ByteUnigram) -> None:
        super().__init__(model, merges=0, name="zett-original")


class WordSegmenter:
    """Pre-tokens: words, numbers and signs."""

    name = "dytok-word"

    def __init__(self, model: ByteUnigram) -> None:
        self.model = model

    def segment(self, batch: Batch, language: str) -> list[list[list[str]]]:
        """Pre-tokens of each unit."""
        del language
        return [[self.model.pre_tokens(unit) for unit in sentence] for sentence in batch]


class SampledDytokSegmenter:
    """For training: each batch draws one of 30 parts of 0 to 100 percent, a percentage in it, and merges as much."""

    name = "dytok-sampled"

    def __init__(
        self, model: ByteUnigram, curve: Sequence[float] | Float64Array, generator: np.random.Generator
    ) -> None:
        self.curve = np.asarray(curve, dtype=np.float64)
        self.generator = generator
        self.drawn = 0
        """Merges of the last batch."""
        self._segmenter = DytokSegmenter(model, 0)
        merges_for(self.curve, 100.0)  # refuses a curve that is none

    def segment(self, batch: Batch, language: str) -> list[list[list[str]]]:
        """Tokens of each unit, after as many merges as this batch draws."""
        part = int(self.generator.integers(BINS))
        percent = 100.0 * (part + self.generator.random()) / BINS
        self.drawn = self._segmenter.merges = merges_for(self.curve, percent)
        return self._segmenter.segment(batch, language)


def merge_curve(model: ByteUnigram, batches: Iterable[Batch]) -> Float64Array:
    """(m + 1,) mean tokens of a sentence after 0, ..., m merges in each batch, without specials; the last is the least.

    A batch that has nothing left to merge keeps its length.
    """
    segmenter = DytokSegmenter(model, 0)
    found = []
    sentences = 0
    for batch in batches:
        found.append(segmenter.lengths(batch))
        sentences += len(batch)
    if not sentences:
        raise SpeakError("there is no sentence to measure merges on; give a validation text")
    longest = max(map(len, found))
    total = sum(np.pad(np.array(lengths), (0, longest - len(lengths)), mode="edge") for lengths in found)
    return np.asarray(total / sentences, dtype=np.float64)


def merges_for(curve: Sequence[float] | Float64Array, percent: float) -> int:
    """The fewest merges that save `percent` of what merging can save."""
    if not 0 <= percent <= 100:
        raise SpeakError(f"percent is {percent:g}; allowed: 0 to 100")
    lengths = np.asarray(curve, dtype=np.float64)
    if lengths.ndim != 1 or not lengths.size or not np.isfinite(lengths).all() or (np.diff(lengths) > 0).any():
        raise ValueError("the curve has to be mean lengths by merges, none longer than the one before")
    saved = lengths[0] - lengths
    return int(np.argmax(saved >= percent / 100 * saved[-1]))
