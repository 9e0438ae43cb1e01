"""Lattice against enumeration; the Unigram exemplar on every script, in pieces, saved, and in other processes."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speak_neuro import corpus, segments
from speak_neuro.errors import SpeakError
from speak_neuro.exemplar import LONGEST_UNIT, UnigramExemplar, whitespace_boundaries
from speak_neuro.lattice import Lattice, Trie

PIECES = ["a", "b", "ab", "ba", "aba", "bb", "abab", "aaaa"]
SCORES = np.log(np.array([0.2, 0.1, 0.2, 0.1, 0.15, 0.1, 0.1, 0.05]))
units_of_ab = st.lists(st.text("ab", min_size=1, max_size=7), min_size=1, max_size=5)
any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)


def segmentations(unit: str) -> list[list[str]]:
    found = []
    for cuts in itertools.product([False, True], repeat=len(unit) - 1):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(unit)]
        tokens = [unit[a:b] for a, b in itertools.pairwise(edges)]
        if all(token in PIECES for token in tokens):
            found.append(tokens)
    return found


def score(tokens: list[str]) -> float:
    return float(sum(SCORES[PIECES.index(token)] for token in tokens))


@settings(deadline=None, max_examples=60)
@given(units_of_ab, st.integers(0, 9))
def test_expected_counts_are_those_of_all_segmentations(units: list[str], seed: int) -> None:
    weights = np.random.default_rng(seed).integers(1, 5, len(units)).astype(float)
    expected = np.zeros(len(PIECES))
    for unit, weight in zip(units, weights, strict=True):
        options = segmentations(unit)
        share = np.exp([score(tokens) for tokens in options])
        for tokens, part in zip(options, share / share.sum(), strict=True):
            for token in tokens:
                expected[PIECES.index(token)] += weight * part
    found = Lattice.build(units, Trie(PIECES)).expected_counts(SCORES, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@settings(deadline=None, max_examples=60)
@given(units_of_ab)
def test_best_segmentation_is_the_best_of_all(units: list[str]) -> None:
    lattice = Lattice.build(units, Trie(PIECES))
    cuts = lattice.best_ends(SCORES[lattice.piece])
    at = 0
    for unit in units:
        tokens = segments.tokens(unit, cuts[at : at + len(unit)])
        assert score(tokens) == pytest.approx(max(score(option) for option in segmentations(unit)))
        assert cuts[at + len(unit) - 1]
        at += len(unit)


def test_equal_scores_take_the_longest_last_piece() -> None:
    lattice = Lattice.build(["aab"], Trie(["a", "b", "aa", "ab"]))
    assert segments.tokens("aab", lattice.best_ends(np.full(lattice.piece.size, -1.0))) == ["a", "ab"]


@pytest.fixture(scope="module")
def text() -> str:
    return corpus.embedded_text("en")[:150_000]


@pytest.fixture(scope="module")
def exemplar(text: str) -> UnigramExemplar:
    return UnigramExemplar.train(text, vocabulary=1500)


def test_english_tokens_are_words_and_parts(text: str, exemplar: UnigramExemplar) -> None:
    assert len(exemplar.pieces) == 1500
    tokens = segments.tokens(text, exemplar.boundaries(text))
    assert 2.8 < len(text) / len(tokens) < 4
    assert segments.tokens("the first of the", exemplar.boundaries("the first of the")) == [
        "the ",
        "first ",
        "of ",
        "the",
    ]
    spaces = whitespace_boundaries(text)
    assert (exemplar.boundaries(text) >= spaces).all()


def test_more_pieces_make_longer_tokens(text: str, exemplar: UnigramExemplar) -> None:
    few = UnigramExemplar.train(text, vocabulary=200)
    assert len(few.pieces) == 200
    assert few.boundaries(text).sum() > 1.3 * exemplar.boundaries(text).sum()


def test_small_texts_get_fewer_pieces() -> None:
    text = corpus.embedded_text("fi")
    exemplar = UnigramExemplar.train(text)
    assert len(exemplar.pieces) == len(text) // 50


def test_training_repeats_in_other_processes() -> None:
    program = (
        "from speak_neuro.corpus import embedded_text; from speak_neuro.exemplar import UnigramExemplar; import json;"
        "print(json.dumps(UnigramExemplar.train(embedded_text('th') + embedded_text('vi'), 400).to_json()))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in (1, 2)
    }
    assert len(found) == 1
    assert len(json.loads(found.pop())["scores"]) == 400


@pytest.mark.parametrize("name", [name for name in corpus.embedded_names() if name != "en"])
def test_every_script(name: str) -> None:
    text = corpus.embedded_text(name)
    exemplar = UnigramExemplar.train(text)
    ends = exemplar.boundaries(text)
    tokens = segments.tokens(text, ends)
    assert "".join(tokens) == text
    assert ends[-1]
    assert ends.sum() == len(tokens) < len(text)
    known = set(exemplar.pieces)
    assert all(token.rstrip() in known for token in tokens)


def test_text_without_spaces_learns_pieces() -> None:
    text = corpus.embedded_text("zh") * 3
    exemplar = UnigramExemplar.train(text, vocabulary=700)
    tokens = segments.tokens(text, exemplar.boundaries(text))
    assert {"人人", "权利", "自由"} & set(tokens)
    assert len(text) / len(tokens) > 1.2


@pytest.mark.parametrize(
    ("odd", "tokens"),
    [
        ("", []),
        ("  \n", ["  \n"]),
        ("\n the  ", ["\n ", "the  "]),
        ("the\r\n\r\nthe", ["the\r\n\r\n", "the"]),
        ("the\x00the", ["the", "\x00", "the"]),
        ("字字 字", ["字", "字 ", "字"]),
        ("\ud800\udfff", ["\ud800", "\udfff"]),
        ("the,the", ["the", ",", "the"]),
        ("the\u0301", None),
        ("👩\u200d👧 🇫🇮", None),
        ("\u0301\u0302", None),
    ],
)
def test_odd_texts(exemplar: UnigramExemplar, odd: str, tokens: list[str] | None) -> None:
    found = segments.tokens(odd, exemplar.boundaries(odd))
    assert "".join(found) == odd
    assert tokens is None or found == tokens


@settings(deadline=None)
@given(any_text)
def test_any_text_is_cut_without_loss(exemplar: UnigramExemplar, text: str) -> None:
    ends = exemplar.boundaries(text)
    assert ends.shape == (len(text),)
    assert (ends >= whitespace_boundaries(text)).all()
    for token in segments.tokens(text, ends):
        core = token.rstrip()
        assert core in exemplar.pieces or len(core) <= 1 or token.isspace()


@settings(deadline=None)
@given(st.text("ab \n.", max_size=80), st.integers(1, 9))
def test_pieces_of_a_stream_give_the_whole(exemplar: UnigramExemplar, text: str, size: int) -> None:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    found = list(exemplar.boundaries_of_pieces(pieces))
    joined = np.concatenate(found) if found else np.zeros(0, dtype=bool)
    assert joined.tolist() == exemplar.boundaries(text).tolist()


def test_a_run_without_end(exemplar: UnigramExemplar) -> None:
    text = "the" * 700_000 + "字" * 10_000
    ends = exemplar.boundaries(text)
    assert len(segments.tokens(text, ends)) <= 700_000 + 10_000 + len(text) // LONGEST_UNIT * 2


def test_whitespace_boundaries() -> None:
    assert segments.tokens(" a  b\nc", whitespace_boundaries(" a  b\nc")) == [" ", "a  ", "b\n", "c"]
    assert whitespace_boundaries("").shape == (0,)


def test_save_and_load(exemplar: UnigramExemplar, tmp_path: Path) -> None:
    exemplar.save(tmp_path / "exemplar.json")
    assert UnigramExemplar.load(tmp_path / "exemplar.json") == exemplar
    odd = UnigramExemplar(("\ud800", "\x00", " \u2028"), (-1.0, -2.5, -1e-30))
    odd.save(tmp_path / "odd.json")
    assert UnigramExemplar.load(tmp_path / "odd.json") == odd


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 1, "kind": "unigram"}', '{"schema": 2, "kind": "unigram"}']
)
def test_damaged_files(content: str, tmp_path: Path) -> None:
    (tmp_path / "exemplar.json").write_text(content)
    with pytest.raises(SpeakError, match=r"exemplar.json: not an exemplar"):
        UnigramExemplar.load(tmp_path / "exemplar.json")
    with pytest.raises(SpeakError, match="not an exemplar"):
        UnigramExemplar.load(tmp_path / "missing.json")


def test_refusals() -> None:
    for text in ("", " \n"):
        with pytest.raises(SpeakError, match="nothing to learn"):
            UnigramExemplar.train(text)
    with pytest.raises(ValueError, match="vocabulary is 0"):
        UnigramExemplar.train("abc", 0)
    for pieces, scores in (
        ((), ()),
        (("a",), (1.0, 2.0)),
        (("a", "a"), (1.0, 2.0)),
        (("",), (1.0,)),
        (("a",), (np.nan,)),
    ):
        with pytest.raises(ValueError, match="allowed"):
            UnigramExemplar(pieces, scores)
