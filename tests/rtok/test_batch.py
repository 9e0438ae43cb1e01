"""Batches: where tokens, special tokens, labels and cuts go."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rtok_task_fixtures import HashEmbedder

from speak_neuro.rtok.tasks.examples import IGNORED, Example
from speak_neuro.rtok.training.batch import BEGIN, END, PAD, build, room

WORDS = Example(0, (("▁ab", "▁c", "▁def"),), (1, 0, 2))
PAIR = Example(0, (("▁a▁b",), ("▁c",)), (2,))


def test_one_text() -> None:
    embedder = HashEmbedder()
    batch = build([[[["▁a", "b"], ["▁c"], ["▁d", "e", "f"]]]], [WORDS], embedder, "en", per_word=True)
    names = [BEGIN, "▁a", "b", "▁c", "▁d", "e", "f", END]
    rows = [embedder.special(n) if n in (BEGIN, END) else embedder.embed([n], "en")[0] for n in names]
    assert torch.equal(batch.embeddings[0], torch.stack(rows))
    assert batch.mask.tolist() == [[1] * 8]
    assert batch.labels.tolist() == [[IGNORED, 1, IGNORED, 0, 2, IGNORED, IGNORED, IGNORED]]
    assert (batch.words, batch.starts, batch.kept, batch.lengths) == ([[1, 3, 4]], [[1]], [[6]], [8])


def test_a_pair_has_two_ends_between() -> None:
    embedder = HashEmbedder()
    batch = build([[[["▁a", "▁b"]], [["▁c"]]]], [PAIR], embedder, "en", per_word=False)
    end = embedder.special(END)
    assert [bool(torch.equal(row, end)) for row in batch.embeddings[0]] == [*[False] * 3, True, True, False, True]
    assert batch.labels.tolist() == [2]
    assert (batch.starts, batch.kept, batch.lengths) == ([[1, 5]], [[2, 1]], [7])


def test_padding_and_unique_tokens() -> None:
    embedder = HashEmbedder()
    two = [WORDS, Example(1, (("▁c",),), (0,))]
    batch = build([[[["▁c"], ["▁c"], ["▁c"]]], [[["▁c"]]]], two, embedder, "en", per_word=True)
    assert embedder.asked == [["▁c"]]
    assert batch.mask.tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert torch.equal(batch.embeddings[1, 4], embedder.special(PAD))
    assert batch.labels[1].tolist() == [IGNORED, 0, IGNORED, IGNORED, IGNORED]


def test_the_cut_keeps_the_last_special_token() -> None:
    embedder = HashEmbedder()
    batch = build([[[["▁a", "b"], ["▁c"], ["▁d", "e"]]]], [WORDS], embedder, "en", per_word=True, longest=4)
    assert torch.equal(batch.embeddings[0, -1], embedder.special(END))
    assert batch.labels.tolist() == [[IGNORED, 1, IGNORED, IGNORED]]
    assert (batch.words, batch.kept, batch.counts, batch.lengths) == ([[1, -1, -1]], [[2]], [[5]], [7])


@pytest.mark.parametrize(
    ("counts", "longest", "expected"),
    [
        ([3], 9, [3]),
        ([9], 9, [7]),
        ([3, 4], 11, [3, 4]),
        ([9, 2], 10, [4, 2]),
        ([2, 9], 10, [2, 4]),
        ([9, 9], 11, [4, 3]),
    ],
)
def test_room(counts: list[int], longest: int, expected: list[int]) -> None:
    assert room(counts, longest) == expected


@given(st.lists(st.integers(0, 40), min_size=2, max_size=2), st.integers(8, 40))
def test_room_takes_from_the_longer_text(counts: list[int], longest: int) -> None:
    kept = list(counts)
    while sum(kept) > longest - 4:
        kept[0 if kept[0] > kept[1] else 1] -= 1
    assert room(counts, longest) == kept


def test_a_label_too_few() -> None:
    with pytest.raises(ValueError, match=r"example 0 has 3 labels for 1 words"):
        build([[[["▁a"]]]], [WORDS], HashEmbedder(), "en", per_word=True)
