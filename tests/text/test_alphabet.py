"""Alphabet: order, unknown characters, exact round trips, odd code points."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speak_neuro.text.alphabet import REPLACEMENT, Alphabet, code_points, text_of

# st.text() leaves lone surrogates out unless they are asked for.
any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)


def test_order_is_by_frequency_then_code_point() -> None:
    alphabet = Alphabet.learn("bbbaaacdc")
    assert alphabet.characters == "abcd"
    assert alphabet.encode("abcd?").tolist() == [1, 2, 3, 4, 0]
    assert len(alphabet) == 5
    assert alphabet.unknown == 0


def test_unknown_characters_are_replaced() -> None:
    alphabet = Alphabet.learn("aaabb")
    assert alphabet.characters == "ab"
    assert alphabet.decode_lossy(alphabet.encode("cab")) == REPLACEMENT + "ab"


def test_pieces_give_the_same_alphabet_as_the_whole() -> None:
    text = "the quick 🦊 ünïcode\n\x00 fox"
    assert Alphabet.learn([text[:3], "", text[3:]]) == Alphabet.learn(text)


@given(any_text)
def test_round_trip_over_every_code_point(text: str) -> None:
    alphabet = Alphabet.learn(text)
    ids = alphabet.encode(text)
    assert ids.dtype == np.int32
    assert ids.shape == (len(text),)
    assert ids.size == 0 or ids.min() >= 1
    assert alphabet.decode_lossy(ids) == text
    assert text_of(code_points(text)) == text
    assert sorted(alphabet.characters) == sorted(set(text))


@given(any_text, any_text)
def test_unknown_characters_are_zero_and_nothing_else_is(known: str, text: str) -> None:
    alphabet = Alphabet.learn(known)
    assert [i != 0 for i in alphabet.encode(text)] == [c in known for c in text]
    assert all((c in alphabet) == (c in known) for c in text)


@given(any_text)
def test_json_round_trip_through_a_file(text: str) -> None:
    alphabet = Alphabet.learn(text)
    written = json.dumps(alphabet.to_json(), ensure_ascii=False).encode("utf-8")
    assert Alphabet.from_json(json.loads(written)) == alphabet


def test_the_largest_code_point_and_those_above_the_table() -> None:
    assert Alphabet("a\U0010ffff").encode("\U0010ffff\U0010fffe").tolist() == [2, 0]
    assert Alphabet("a").encode("bc\U0010ffff").tolist() == [0, 0, 0]
    assert Alphabet("").encode("abc").tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Alphabet("aba"), "'a' more than once"),
        (lambda: Alphabet("a").decode_lossy([2]), "ids run from 2 to 2"),
        (lambda: Alphabet("a").decode_lossy([-1]), "ids run from -1"),
        (lambda: Alphabet("a").decode_lossy([0.5]), "integers"),
        (lambda: Alphabet.from_json({"schema": 2, "code_points": ""}), "schema is 2"),
        (lambda: Alphabet.from_json({"schema": 1, "code_points": "zz"}), "cannot be read"),
        (lambda: Alphabet.from_json({"schema": 1, "code_points": "110000"}), "cannot be read"),
        (lambda: Alphabet.from_json({"schema": 1}), "code_points are a NoneType"),
        (lambda: Alphabet.from_json({"schema": True, "code_points": ""}), "schema is True"),
        (lambda: Alphabet.from_json([]), "an alphabet is a list"),
    ],
)
def test_refusals_name_the_field(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
