"""The Unigram exemplar on every script, on odd texts, in pieces, saved, and in other processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speak_neuro.corpus import reader as corpus
from speak_neuro.errors import SpeakError
from speak_neuro.supervision.exemplar import LONGEST_RUN, UnigramExemplar, whitespace_boundaries
from speak_neuro.text import segments

any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)


@pytest.fixture(scope="module")
def text() -> str:
    return corpus.embedded_text("en")[:150_000]


@pytest.fixture(scope="module")
def exemplar(text: str) -> UnigramExemplar:
    return UnigramExemplar.train(text, vocabulary=1500)


def test_english_tokens_are_words_and_parts(text: str, exemplar: UnigramExemplar) -> None:
    tokens = segments.tokens(text, exemplar.boundaries(text))
    assert 2.5 < len(text) / len(tokens) < 5
    assert segments.tokens("the and in the", exemplar.boundaries("the and in the")) == [
        "the ",
        "and ",
        "in ",
        "the",
    ]
    assert (exemplar.boundaries(text) >= whitespace_boundaries(text)).all()


def test_more_pieces_make_longer_tokens(text: str, exemplar: UnigramExemplar) -> None:
    few = UnigramExemplar.train(text, vocabulary=200)
    assert len(few.pieces) <= 200 < len(exemplar.pieces) <= 1500
    assert few.boundaries(text).sum() > 1.2 * exemplar.boundaries(text).sum()


def test_boundaries_repeat_in_other_processes() -> None:
    program = (
        "import hashlib; from speak_neuro.corpus.reader import embedded_text;"
        "from speak_neuro.supervision.exemplar import UnigramExemplar;"
        "text = embedded_text('fi') + embedded_text('vi') + embedded_text('en')[:100000];"
        "print(hashlib.sha256(UnigramExemplar.train(text, 1000).boundaries(text).tobytes()).hexdigest())"
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


@pytest.mark.parametrize("name", [name for name in corpus.embedded_names() if name != "en"])
def test_every_script(name: str) -> None:
    text = corpus.embedded_text(name)
    exemplar = UnigramExemplar.train(text)
    ends = exemplar.boundaries(text)
    tokens = segments.tokens(text, ends)
    assert "".join(tokens) == text
    assert ends[-1]
    assert ends.sum() == len(tokens) < len(text)
    known = exemplar.pieces
    assert all(token.rstrip() in known or len(token.rstrip()) <= 1 for token in tokens)


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


@given(any_text)
def test_any_text_is_cut_without_loss(exemplar: UnigramExemplar, text: str) -> None:
    ends = exemplar.boundaries(text)
    assert ends.shape == (len(text),)
    assert (ends >= whitespace_boundaries(text)).all()
    for token in segments.tokens(text, ends):
        core = token.rstrip()
        assert core in exemplar.pieces or len(core) <= 1


def test_a_run_without_end(exemplar: UnigramExemplar) -> None:
    text = "the" * 100_000 + "字" * 10_000
    ends = exemplar.boundaries(text)
    assert ends[-10_000:].all()
    assert len(segments.tokens(text, ends)) <= 100_000 + 10_000 + len(text) // LONGEST_RUN * 2


def test_whitespace_boundaries() -> None:
    assert segments.tokens(" a  b\nc", whitespace_boundaries(" a  b\nc")) == [" ", "a  ", "b\n", "c"]
    assert whitespace_boundaries("").shape == (0,)


def test_save_and_load(exemplar: UnigramExemplar, text: str, tmp_path: Path) -> None:
    exemplar.save(tmp_path / "exemplar.json")
    again = UnigramExemplar.load(tmp_path / "exemplar.json")
    assert again.pieces == exemplar.pieces
    assert np.array_equal(again.boundaries(text), exemplar.boundaries(text))
    assert json.loads((tmp_path / "exemplar.json").read_text(encoding="utf-8"))["model"]["type"] == "Unigram"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": {"type": "Nothing"}}'])
def test_damaged_files(content: str, tmp_path: Path) -> None:
    (tmp_path / "exemplar.json").write_text(content, encoding="utf-8")
    with pytest.raises(SpeakError, match=r"exemplar.json: not an exemplar"):
        UnigramExemplar.load(tmp_path / "exemplar.json")
    with pytest.raises(SpeakError, match=r"missing\.json: no such file; give the exemplar\.json"):
        UnigramExemplar.load(tmp_path / "missing.json")


def test_refusals() -> None:
    for text in ("", " \n"):
        with pytest.raises(SpeakError, match="nothing to learn"):
            UnigramExemplar.train(text)
    with pytest.raises(ValueError, match="vocabulary is 0"):
        UnigramExemplar.train("abc", 0)
