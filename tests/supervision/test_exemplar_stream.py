"""The exemplar's boundaries from ids, block by block, are those of the whole text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speak_neuro.corpus import reader as corpus
from speak_neuro.supervision import exemplar_stream
from speak_neuro.supervision.exemplar import LONGEST_RUN, UnigramExemplar
from speak_neuro.supervision.exemplar_stream import stream_boundaries
from speak_neuro.text.alphabet import Alphabet


@pytest.fixture(scope="module")
def exemplar() -> UnigramExemplar:
    return UnigramExemplar.train(corpus.embedded_text("en")[:150_000], vocabulary=1500)


def streamed(exemplar: UnigramExemplar, text: str, chunk: int) -> np.ndarray:
    alphabet = Alphabet.learn(text)
    blocks = list(stream_boundaries(exemplar, alphabet.encode(text).astype(np.uint16), alphabet, chunk))
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=bool)


@pytest.mark.parametrize("name", corpus.embedded_names())
def test_every_script(name: str, exemplar: UnigramExemplar) -> None:
    text = corpus.embedded_text(name)[:100_000]
    model = exemplar if name == "en" else UnigramExemplar.train(text)
    assert np.array_equal(streamed(model, text, 5000), model.boundaries(text))


@settings(max_examples=60)
@given(st.text(st.sampled_from("the . ,\n字é"), max_size=200), st.integers(1, 50))
def test_any_text_in_any_blocks(exemplar: UnigramExemplar, text: str, chunk: int) -> None:
    assert np.array_equal(streamed(exemplar, text, chunk), exemplar.boundaries(text))


def test_runs_that_the_table_does_not_hold(exemplar: UnigramExemplar) -> None:
    """Longer than a table entry, longer than the library is asked for at once, and white space longer than a block."""
    text = "the " * 10 + "the" * 40 + "   " * 700 + "and" * (LONGEST_RUN + 7) + " end" + "the" * 30 + "\n" * 90
    for chunk in (100, 1500, 2001, 10**6):
        assert np.array_equal(streamed(exemplar, text, chunk), exemplar.boundaries(text))


def test_a_full_table_is_emptied(exemplar: UnigramExemplar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exemplar_stream, "RUNS", 700)
    monkeypatch.setattr(exemplar_stream, "CHARACTERS", 900)
    text = corpus.embedded_text("en")[:20_000]
    assert np.array_equal(streamed(exemplar, text, 500), exemplar.boundaries(text))


def test_unknown_characters(exemplar: UnigramExemplar) -> None:
    """Characters outside the alphabet are tokens, as U+FFFD is."""
    alphabet = Alphabet("the ")
    ids = alphabet.encode("thé thethé")
    found = np.concatenate(list(stream_boundaries(exemplar, ids, alphabet)))
    assert np.array_equal(found, exemplar.boundaries("th\ufffd theth\ufffd"))
