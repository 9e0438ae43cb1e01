"""Segments: both conventions, exact joining, byte offsets against a slow reference, every kind of text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speak_neuro.text import segments

CONVENTIONS = ["closes", "opens"]
TEXTS = {
    "empty": "",
    "one": "a",
    "english": "a cat, a dog\r\n and a\x00zebra ",
    "spaces": "   \t\n\n  ",
    "finnish": "käyttöjärjestelmä",
    "hebrew with points": "שָׁלוֹם עוֹלָם",
    "arabic": "\u200fمرحبا بالعالم",
    "hindi": "नमस्ते दुनिया",
    "chinese": "自动分词没有空格。𠀀",
    "thai": "ภาษาไทยไม่มีช่องว่าง",
    "vietnamese, decomposed": "Tie\u0302\u0301ng Vie\u0323\u0302t",
    "emoji": "👩\u200d👩\u200d👧\u200d👦 🇫🇮 👍🏽",
    "lone surrogates": "a\ud800b\udfff",
    "marked": "\ufeffbyte order mark",
}
any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
spike_rows = st.lists(st.booleans(), max_size=40)


@st.composite
def text_and_spikes(draw):
    text = draw(any_text)
    return text, draw(st.lists(st.booleans(), min_size=len(text), max_size=len(text)))


def slow_tokens(text: str, spikes, convention: str) -> list[str]:
    found, current = [], ""
    for character, spike in zip(text, spikes, strict=True):
        if convention == "opens" and spike and current:
            found.append(current)
            current = ""
        current += character
        if convention == "closes" and spike:
            found.append(current)
            current = ""
    return found + ([current] if current else [])


def test_the_two_conventions_on_a_word() -> None:
    text = "a cat sat"
    closes = [c == " " for c in text]
    assert segments.tokens(text, closes) == ["a ", "cat ", "sat"]
    assert segments.spans(closes).tolist() == [[0, 2], [2, 6], [6, 9]]
    opens = [0, 0, 1, 0, 0, 0, 1, 0, 0]
    assert segments.tokens(text, opens, "opens") == ["a ", "cat ", "sat"]
    assert segments.lengths(closes).tolist() == [2, 4, 3]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_implied_ends(convention) -> None:
    assert segments.spans([], convention).shape == (0, 2)
    assert segments.spans([0, 0, 0], convention).tolist() == [[0, 3]]
    assert segments.spans([1, 1, 1], convention).tolist() == [[0, 1], [1, 2], [2, 3]]
    first, last = segments.spans([1, 0, 0], convention), segments.spans([0, 0, 1], convention)
    if convention == "closes":
        assert (first.tolist(), last.tolist()) == ([[0, 1], [1, 3]], [[0, 3]])
    else:
        assert (first.tolist(), last.tolist()) == ([[0, 3]], [[0, 2], [2, 3]])


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(text_and_spikes())
def test_tokens_join_to_the_text_and_match_a_loop(convention, case) -> None:
    text, spikes = case
    found = segments.tokens(text, spikes, convention)
    assert "".join(found) == text
    assert found == slow_tokens(text, spikes, convention)
    assert all(found)


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(spike_rows)
def test_spikes_and_spans_are_inverse(convention, spikes) -> None:
    cuts = segments.spans(spikes, convention)
    back = np.zeros(len(spikes), dtype=bool)
    back[cuts[:, 1] - 1 if convention == "closes" else cuts[:, 0]] = True
    implied = -1 if convention == "closes" else 0
    expected = np.array(spikes, dtype=bool)
    expected[implied:][:1] = True
    assert back.tolist() == expected.tolist()
    assert segments.spans(back, convention).tolist() == cuts.tolist()
    assert segments.lengths(spikes, convention).sum() == len(spikes)


@given(spike_rows)
def test_moving_between_conventions_keeps_the_tokens(spikes) -> None:
    opens = segments.closes_to_opens(spikes)
    assert segments.spans(opens, "opens").tolist() == segments.spans(spikes, "closes").tolist()


def test_batches_are_rows() -> None:
    rows = np.random.default_rng(0).random((5, 33)) < 0.3
    moved = segments.closes_to_opens(rows)
    assert np.array_equal(moved, np.stack([segments.closes_to_opens(row) for row in rows]))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_byte_spans_of_every_script(text: str) -> None:
    check_byte_spans(text, [i % 3 == 1 for i in range(len(text))])


@given(text_and_spikes())
def test_byte_spans_against_encoding_each_token(case) -> None:
    check_byte_spans(*case)


def check_byte_spans(text: str, spikes) -> None:
    encoded = text.encode("utf-8", "surrogatepass")
    cuts = segments.byte_spans(text, segments.spans(spikes))
    assert cuts.dtype == np.int64
    pieces = [encoded[a:b].decode("utf-8", "surrogatepass") for a, b in cuts]
    assert pieces == segments.tokens(text, spikes)
    assert b"".join(encoded[a:b] for a, b in cuts) == encoded


def test_a_long_line() -> None:
    text = "x" * 4_999_990 + "ö" * 10 + "長い" * 2_500_000
    spikes = np.zeros(len(text), dtype=bool)
    spikes[7::11] = True
    cuts = segments.byte_spans(text, segments.spans(spikes))
    assert cuts[-1, 1] == len(text.encode())
    assert len("".join(segments.tokens(text, spikes))) == len(text)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: segments.spans([0, 2]), "0 and 1"),
        (lambda: segments.spans([[0, 1]]), r"shape \(1, 2\)"),
        (lambda: segments.spans([0], "ends"), "convention is 'ends'"),
        (lambda: segments.tokens("abc", [0, 1]), "2 positions, text 3 characters"),
        (lambda: segments.tokens("abc", []), "0 positions"),
        (lambda: segments.byte_spans("abc", [[0, 4]]), "0 to 3"),
        (lambda: segments.byte_spans("abc", [0, 4]), r"\(n, 2\)"),
    ],
)
def test_refusals_name_the_field(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
