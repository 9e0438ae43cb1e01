"""Ids: by frequency, lossless for every text, exact whatever the hashes do."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_fixtures import make_table

from speak_neuro.common.arrays import write_arrays
from speak_neuro.errors import SpeakError
from speak_neuro.table.scanner import padded
from speak_neuro.table.slots import LONGEST
from speak_neuro.table.token_counter import TokenCounter
from speak_neuro.table.tokenizer import TableTokenizer
from speak_neuro.table.vocabulary import BYTES, SCHEMA_VERSION, Vocabulary

COUNTS = {b"the": 9, b"and": 9, "é".encode(): 3, b"a": 100, b"x" * 65: 50, b"once": 1, b"\xed\xa0\x80": 2, b"": 4}


def test_order_and_size() -> None:
    vocabulary = Vocabulary.build(COUNTS, 1000)
    assert vocabulary.tokens == (b"and", b"the", "é".encode(), b"\xed\xa0\x80", b"once")
    assert vocabulary.counts.tolist() == [9, 9, 3, 2, 1]
    assert len(vocabulary) == BYTES + 5
    assert Vocabulary.build(COUNTS, 258).tokens == (b"and", b"the")
    assert Vocabulary.build(COUNTS, 256).tokens == ()
    assert Vocabulary.build(dict(reversed(COUNTS.items())), 1000) == vocabulary
    with pytest.raises(ValueError, match="size is 255; allowed: at least 256"):
        Vocabulary.build(COUNTS, 255)


def test_encode() -> None:
    vocabulary = Vocabulary.build(COUNTS, 1000)
    assert vocabulary.encode(["the", "a", "xy", "é", "\ud800", ""]).tolist() == [257, 97, 120, 121, 258, 259]
    assert vocabulary.decode([257, 97, 120, 121, 258, 259]) == "theaxyé\ud800"
    assert vocabulary.decode([]) == ""


@given(st.lists(st.text(max_size=8), max_size=20), st.integers(0, 20))
def test_lossless(tokens: list[str], known: int) -> None:
    counts = {token.encode("utf-8", "surrogatepass"): 1 + i for i, token in enumerate(tokens[:known])}
    vocabulary = Vocabulary.build(counts, 300)
    assert vocabulary.decode(vocabulary.encode(tokens)) == "".join(tokens)


def test_bad_ids() -> None:
    vocabulary = Vocabulary.build({b"ab": 1}, 300)
    for ids, message in (([257], "ids run from 257 to 257; allowed: 0 to 256"), ([[1]], "shape"), ([1.5], "float64")):
        with pytest.raises(ValueError, match=message):
            vocabulary.decode(ids)
    with pytest.raises(ValueError):
        vocabulary.decode([0xC3])
    assert vocabulary.decode_bytes([0xC3, 256]) == b"\xc3ab"


def test_files(tmp_path: Path) -> None:
    vocabulary = Vocabulary.build(COUNTS, 1000)
    vocabulary.save(tmp_path / "one")
    vocabulary.save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert Vocabulary.load(tmp_path / "one") == vocabulary
    empty = Vocabulary.build({}, 256)
    empty.save(tmp_path / "empty")
    assert Vocabulary.load(tmp_path / "empty") == empty


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"bytes": [97] * 3, "lengths": [2], "counts": [1]}, "lengths add up to 2, bytes hold 3"),
        ({"bytes": [97] * 4, "lengths": [2, 2], "counts": [1, 1]}, "token b'aa' occurs twice"),
        ({"bytes": [97], "lengths": [1], "counts": [1]}, "token b'a' has 1 bytes; allowed: 2 to 64"),
        ({"bytes": [97] * 2, "lengths": [2], "counts": [1, 1]}, "counts have shape (2,); allowed: (1,)"),
        ({"bytes": [97] * 2, "lengths": [2]}, "counts is missing"),
    ],
)
def test_bad_files(tmp_path: Path, arrays: dict[str, list[int]], message: str) -> None:
    dtypes = {"bytes": np.uint8, "lengths": np.uint8, "counts": np.int64}
    typed = {name: np.array(value, dtype=dtypes[name]) for name, value in arrays.items()}
    write_arrays(tmp_path / "v", typed, Vocabulary.FORMAT, SCHEMA_VERSION, {})
    with pytest.raises(SpeakError) as caught:
        Vocabulary.load(tmp_path / "v")
    assert message in str(caught.value)
    write_arrays(tmp_path / "v", typed, "speak_neuro table", SCHEMA_VERSION, {})
    with pytest.raises(SpeakError, match="a safetensors file, but not a vocabulary"):
        Vocabulary.load(tmp_path / "v")


def many_tokens(n: int) -> list[bytes]:
    """Distinct tokens, many of which agree in their first eight bytes and their length."""
    source = random.Random(5)
    tokens = {b"prefixes" + source.randbytes(source.choice([1, 2, 8, 9, 30, 56])) for _ in range(n // 2)}
    tokens |= {source.randbytes(source.choice([2, 3, 7, 8])) for _ in range(n // 2)}
    return sorted(tokens)


def test_compiled_lookup_and_counter_are_exact() -> None:
    from speak_neuro.table.ids import look_up

    tokens = many_tokens(60000)
    known, unknown = tokens[::2], tokens[1:1000:2]
    vocabulary = Vocabulary(tuple(known), np.ones(len(known), np.int64))
    stream = [*known[::-1], *unknown, b"z", b"q" * LONGEST, b"q" * (LONGEST + 1)]
    data = padded(b"".join(stream))
    at = np.cumsum([len(token) for token in stream])
    ends = np.stack([at, at], axis=1).astype(np.int32)
    ids = np.empty(len(data), np.int32)  # with the padding of `data`
    count, start = look_up(data, 0, ends, len(ends), -1, False, *vocabulary.slots, ids, np.empty(0, np.int64))
    assert start == at[-1]
    assert np.array_equal(ids[:count], vocabulary.encode(stream))
    assert vocabulary.decode_bytes(ids[:count]) == b"".join(stream)

    counter = TokenCounter()
    for _ in range(2):  # grows several times on the way
        assert counter.add(data, 0, ends, -1) == at[-1]
    assert counter.counts() == dict.fromkeys(stream[:-1], 2)
    assert len(counter) == len(stream) - 1
    assert counter.vocabulary(300) == Vocabulary.build(counter.counts(), 300)


def test_the_hash_spreads() -> None:
    vocabulary = Vocabulary(tuple(many_tokens(60000)), np.ones(len(set(many_tokens(60000))), np.int64))
    slots = vocabulary.slots.slots
    used = slots[:, 1] != 0
    assert used.sum() == len(vocabulary.tokens)
    assert 2 * used.sum() <= len(slots)
    runs = np.diff(np.flatnonzero(~used))
    assert runs.max() < 64  # the longest walk over used slots


def test_use_changes_no_byte() -> None:
    """A pickled tokenizer is a cache's key: what it has seen is no part of it."""
    vocabulary = Vocabulary.build({b"the": 3, b" a": 2}, 300)
    tokenizer = TableTokenizer(make_table(), vocabulary, "auto")
    before = pickle.dumps(vocabulary), pickle.dumps(tokenizer)
    tokenizer.decode(tokenizer.encode("the cat and a dog"))
    tokenizer.encode_batch(["the cat"] * 3)
    assert tokenizer.scanner is not None
    assert vocabulary.slots is not None
    assert (pickle.dumps(vocabulary), pickle.dumps(tokenizer)) == before
    again = pickle.loads(before[1])
    assert again.encode("the cat and a dog").tolist() == tokenizer.encode("the cat and a dog").tolist()
