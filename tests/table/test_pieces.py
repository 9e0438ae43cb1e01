"""Pieces: the fewest in each unit, exact in plain and compiled code, lossless, never across a hard reset."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_fixtures import TEXTS, make_tables

from speak_neuro.errors import SpeakError
from speak_neuro.table.learn_pieces import fewest_others, joins, learn_pieces, merges, most_saving, saved_ids, usage
from speak_neuro.table.load_vocabulary import load_vocabulary
from speak_neuro.table.pieces import Pieces, cut_units
from speak_neuro.table.scanner import padded
from speak_neuro.table.slots import LONGEST_UNIT
from speak_neuro.table.tokenizer import TableTokenizer
from speak_neuro.table.vocabulary import Vocabulary
from speak_neuro.text.segments import grouped

WORDS = [b"ab", b"abc", b"bcd", b"cd", b"cdef", b"ef", b"\xc3\xa9", b"a" * 64, b"\x00\xff", b"d e", b"e a"]
PIECES = Pieces(tuple(WORDS), np.arange(len(WORDS)))
TABLES = make_tables()


def fewest(raw: bytes, known: frozenset[bytes]) -> int:
    """The number of pieces by another way: breadth first, from the beginning."""
    reached, steps = {0}, 0
    while len(raw) not in reached:
        reached = {j for i in reached for j in range(i + 1, len(raw) + 1) if j == i + 1 or raw[i:j] in known}
        steps += 1
    return steps


def compiled(pieces: Pieces, units: list[bytes]) -> list[int]:
    data = padded(b"".join(units))
    ends = np.zeros((len(units), 2), np.int32)
    ends[:, 0] = np.cumsum([len(unit) for unit in units])
    ids = np.empty(len(data), np.int32)
    count, start = pieces.look_up(data, 0, ends, len(ends), -1, False, ids, np.empty(0, np.int64))
    assert start == len(data) - 8
    return ids[:count].tolist()


@given(st.lists(st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f", b" ", b"\xc3\xa9"]), min_size=1)))
def test_fewest(units: list[list[bytes]]) -> None:
    raws = [b"".join(unit) for unit in units]
    ids = PIECES.encode(raws).tolist()
    assert PIECES.decode_bytes(ids) == b"".join(raws)
    assert len(ids) == sum(fewest(raw, frozenset(WORDS)) for raw in raws)
    assert compiled(PIECES, raws) == ids if raws else ids == []


def test_ties_take_the_longest_first() -> None:
    assert [PIECES.all[k] for k in PIECES.encode([b"abcd"])] == [b"abc", b"d"]
    assert [PIECES.all[k] for k in PIECES.encode([b"abcdef"])] == [b"ab", b"cdef"]
    assert [PIECES.all[k] for k in PIECES.encode([b"bcdd e"])] == [b"bcd", b"d e"]
    two = Pieces((b"abc", b"de", b"ab", b"cde"), np.zeros(4))
    assert [two.all[k] for k in two.encode([b"abcde"])] == [b"abc", b"de"]


@given(st.lists(st.sampled_from(["a", "é", "🙂", "\ud800"]), min_size=200, max_size=700).map("".join))
def test_long_units_are_cut_behind_characters(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    parts = cut_units(raw)
    assert b"".join(parts) == raw
    assert all(LONGEST_UNIT - 4 < len(part) <= LONGEST_UNIT for part in parts[:-1])
    assert 0 < len(parts[-1]) <= LONGEST_UNIT
    assert "".join(part.decode("utf-8", "surrogatepass") for part in parts) == text
    ids = PIECES.encode([raw])
    assert PIECES.decode_bytes(ids) == raw
    assert compiled(PIECES, [raw]) == ids.tolist()


def learned(name: str, unit: str) -> Pieces:
    """Pieces of a text cut by a table of the fixtures."""
    tokenizer = TableTokenizer(TABLES[name], backend="numpy")
    text = "the thing that the others think, בשלום של כל อ 的一是不了 " * 20
    raw = text.encode()
    spans = [tokenizer.spans(text, "byte", hard_only) for hard_only in (False, unit == "ranges")]
    return learn_pieces(grouped(raw, *spans), 400, unit)


learned = functools.cache(learned)


@pytest.mark.parametrize("unit", ["ranges", "tokens"])
@pytest.mark.parametrize("name", sorted(TABLES))
@settings(max_examples=20)
@given(text=TEXTS)
def test_backends_batches_and_streams_agree(name: str, unit: str, text: str) -> None:
    pieces = learned(name, unit)
    plain, fast = (TableTokenizer(TABLES[name], pieces, backend) for backend in ("numpy", "numba"))
    ids = plain.encode(text)
    assert plain.decode(ids) == text
    assert np.array_equal(fast.encode(text), ids)
    batch = fast.encode_batch([text, "", text[::-1], text], threads=2)
    assert [part.tolist() for part in batch] == [plain.encode(t).tolist() for t in (text, "", text[::-1], text)]
    # No id crosses the end of a unit.
    ends = plain.spans(text, "byte", unit == "ranges")[:, 1].tolist()
    places = np.cumsum([len(pieces.all[k]) for k in ids.tolist()]).tolist()
    assert set(ends) <= {0, *places}


def test_blocks_do_not_show() -> None:
    """A text of several blocks, with ranges longer than a unit may be, and a gate that never opens."""
    pieces = learned("soft", "ranges")
    text = ("the thing that the others think, בשלום " * 9 + "\n") * 1500
    for name in ("soft", "gated", "five taps"):
        fast = TableTokenizer(TABLES[name], pieces, "numba")
        ids = fast.encode(text)
        assert fast.decode(ids) == text
        assert np.array_equal(ids, TableTokenizer(TABLES[name], pieces, "numpy").encode(text))


def test_files_by_blocks_and_by_lines() -> None:
    from speak_neuro.table.files import LineTokenizer

    lines = ["the thing", "", "that the others think, " * 30, "שלום של כל", "x" * 5000, "end"]
    for name in ("gated", "soft"):
        pieces = learned(name, "ranges")
        tokenizer = TableTokenizer(TABLES[name], pieces, "numpy")
        out = io.BytesIO()
        counts = LineTokenizer(TABLES[name], "ids", pieces).run(
            io.BytesIO("\n".join(lines).encode()), "text", out.write
        )
        ids = [tokenizer.encode(line).tolist() for line in lines]
        assert out.getvalue().decode() == "".join(f"{part}\n" for part in ids)
        assert counts == (len(lines), sum(map(len, lines)), sum(map(len, ids)))


def test_learning() -> None:
    texts = [b"one two", b"one three", b"two three", b"\xed\xa0\x80\xed\xa0\x80", b"one two"] * 5
    units = [[text] for text in texts]
    pieces = learn_pieces(units, 300)
    assert pieces == learn_pieces(units, 300)
    assert pieces.unit == "ranges"
    uses = usage(pieces, texts)
    assert uses[256:].tolist() == pieces.counts.tolist()
    assert saved_ids(pieces) == len(b"".join(texts)) - uses.sum()
    assert sorted(pieces.counts.tolist(), reverse=True) == pieces.counts.tolist()
    assert {b"one two", b"one three", b"two three", b"\xed\xa0\x80\xed\xa0\x80"} <= set(pieces.tokens)
    small = learn_pieces(units, 258)
    assert len(small) == 258
    assert learn_pieces(units, 256).tokens == ()
    assert len(merges(texts, 2)) == 2
    with pytest.raises(ValueError, match="size is 255; allowed: at least 256"):
        learn_pieces(units, 255)
    with pytest.raises(SpeakError, match="is empty"):
        learn_pieces([[b""]], 300)


def test_joins_begin_and_end_where_the_neuron_cut() -> None:
    units = [[b"one ", b"two ", b"six "], [b"two ", b"six ", b"x"], [b"one ", b"two ", b"rare", b"six "]] * 4
    found = joins(units, [b"one ", b"two ", b"six "], 10)
    assert found[0] in (b"one two ", b"two six ")  # eight times each
    assert set(found) == {b"one two ", b"two six ", b"one two six ", b"two six x"}  # the byte x is known, "rare" is not
    long = [[b"a" * 40, b"b" * 40] * 40]
    assert joins(long, long[0], 10) == []  # no id is longer than 64 bytes


def test_what_saves_least_is_dropped() -> None:
    """Against the definition: each piece left out in turn, and its own text cut again by plain Python."""
    pieces = Pieces((b"ab", b"abc", b"bcd", b"abcde", b"de", b"xyzw", b"yz"), np.zeros(7))
    expected = []
    for piece in pieces.tokens:
        others = tuple(other for other in pieces.tokens if other != piece)
        expected.append(len(Pieces(others, np.zeros(6)).encode([piece])))
    assert fewest_others(pieces).tolist() == expected == [2, 2, 3, 2, 2, 3, 2]
    # "xyzw" is used as often as "ab" and saves twice as much, so it stays.
    kept = most_saving([b"ab", b"xyzw"], [b"ab", b"xyzw"] * 5, 257, "ranges")
    assert kept.tokens == (b"xyzw",)
    assert kept.counts.tolist() == [5]


def test_the_trie_holds_exactly_the_pieces() -> None:
    """Many pieces, many alike: each is one id, and none that is not there is found."""
    random = np.random.default_rng(0)
    many = {bytes(random.integers(97, 101, random.integers(2, 12)).astype(np.uint8)) for _ in range(20000)}
    many |= {bytes(random.integers(0, 256, 2).astype(np.uint8)) for _ in range(5000)}
    kept = sorted(many)[::2]
    pieces = Pieces(tuple(kept), np.zeros(len(kept)))
    assert compiled(pieces, kept) == list(range(256, 256 + len(kept)))
    others = sorted(many)[1::2]
    assert compiled(pieces, others) == pieces.encode(others).tolist()


def test_files(tmp_path: Path) -> None:
    pieces = Pieces((b"ab", b"cd"), np.array([3, 2]), "tokens")
    pieces.save(tmp_path / "one")
    pieces.save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    again = load_vocabulary(tmp_path / "one")
    assert isinstance(again, Pieces)
    assert again == pieces
    assert again != Pieces((b"ab", b"cd"), np.array([3, 2]))
    assert again != Vocabulary((b"ab", b"cd"), np.array([3, 2]))
    Vocabulary((b"ab", b"cd"), np.array([3, 2])).save(tmp_path / "whole")
    assert type(load_vocabulary(tmp_path / "whole")) is Vocabulary


def test_refusals() -> None:
    with pytest.raises(ValueError, match="unit is 'words'; allowed: ranges, tokens"):
        Pieces((b"ab",), np.array([1]), "words")
    with pytest.raises(ValueError, match="has 1 bytes"):
        Pieces((b"a",), np.array([1]))
