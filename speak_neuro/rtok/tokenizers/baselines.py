"""The tokenizers of the comparison by the names of `--tokenizer`, and the embeddings by those of `--embedder`.

speak               the boundary neuron, trained beside the encoder
zett-original       XLM-R's own tokens at byte level, punctuation apart
zett-sentencepiece  a Unigram model of the language's own text: of the run's splits in that language
dytok-word          words, numbers and signs
dytok-PERCENT       the batch's most frequent neighbours merged, PERCENT of what merging can save
dytok-sampled       trained with a random share of merges in each batch, evaluated on words
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.tasks.examples import Example, units_of
from speak_neuro.rtok.text.segmenter import Segmenter

if TYPE_CHECKING:
    from speak_neuro.rtok.pretrained.byte_unigram import ByteUnigram
    from speak_neuro.rtok.tokenizers.sentencepiece import SentencePieceSegmenter

NAMES = "speak, zett-original, zett-sentencepiece, dytok-word, dytok-PERCENT (0 to 100), dytok-sampled"
PERCENT = re.compile(r"dytok-(\d{1,3}(?:\.\d+)?)")


@dataclass(frozen=True)
class Baseline:
    """A tokenizer that does not learn: the one that trains the encoder, and the one that is evaluated."""

    training: Segmenter
    evaluation: Segmenter
    merges: int | None = None
    """Merges of a batch, for dytok-PERCENT."""


def check_name(name: str) -> str:
    """`name`, if there is such a tokenizer."""
    percent = PERCENT.fullmatch(name)
    known = ("speak", "zett-original", "zett-sentencepiece", "dytok-word", "dytok-sampled")
    if name not in known and not (percent and float(percent[1]) <= 100):
        raise SpeakError(f"--tokenizer is {name!r}; allowed: {NAMES}")
    return name


def check_embedder(name: str) -> str | None:
    """The hypernetwork's source of `zett:SOURCE`, None for `fvt`."""
    kind, colon, source = name.partition(":")
    if name != "fvt" and not (kind == "zett" and colon and source):
        raise SpeakError(f"--embedder is {name!r}; allowed: fvt, zett:FOLDER_OR_HUB_ID")
    return source or None


def language_models(texts: Iterable[tuple[str, Sequence[Example]]]) -> SentencePieceSegmenter:
    """For `zett-sentencepiece`: a model for each language, of all examples in it."""
    from speak_neuro.rtok.tokenizers.sentencepiece import SentencePieceSegmenter

    units: dict[str, list[str]] = {}
    for language, examples in texts:
        units.setdefault(language, []).extend(unit for example in examples for unit in units_of(example))
    return SentencePieceSegmenter.train(units)


def baseline(
    name: str,
    model: ByteUnigram,
    select: Sequence[Example],
    batch: int,
    seed: int,
    unigrams: SentencePieceSegmenter | None = None,
) -> Baseline:
    """The tokenizer `name`; shares of merges are measured on the batches of the split `select`. `unigrams` are the
    models of `zett-sentencepiece`.
    """
    from speak_neuro.rtok.tokenizers.dytok import (
        DytokSegmenter,
        OriginalSegmenter,
        SampledDytokSegmenter,
        WordSegmenter,
        merge_curve,
        merges_for,
    )

    if name == "zett-original":
        original = OriginalSegmenter(model)
        return Baseline(original, original)
    if name == "zett-sentencepiece":
        if unigrams is None:
            raise ValueError("unigrams is None; allowed with zett-sentencepiece: the models of language_models")
        return Baseline(unigrams, unigrams)
    if name == "dytok-word":
        words = WordSegmenter(model)
        return Baseline(words, words)
    parts = [[units_of(example) for example in select[start : start + batch]] for start in range(0, len(select), batch)]
    if name == "dytok-sampled":
        sampled = SampledDytokSegmenter(model, merge_curve(model, parts), np.random.default_rng(seed))
        return Baseline(sampled, WordSegmenter(model))
    percent = PERCENT.fullmatch(check_name(name))
    if percent is None:
        raise SpeakError(f"--tokenizer is {name!r}; allowed here: {NAMES}")
    merges = merges_for(merge_curve(model, parts), float(percent[1]))
    merged = DytokSegmenter(model, merges, name)
    return Baseline(merged, merged, merges)
