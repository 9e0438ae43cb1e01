"""Compiled code gives what plain numpy gives, whatever the text, the blocks, the threads and the cuts of a stream."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_fixtures import CHARACTERS, TEXTS, make_tables, oracle

from speak_neuro.errors import SpeakError
from speak_neuro.neuron.reference import NeuronParameters
from speak_neuro.table import tokenizer as table_text
from speak_neuro.table.files import LineTokenizer, count_tokens, pieces
from speak_neuro.table.slots import LONGEST
from speak_neuro.table.table import CompiledTable
from speak_neuro.table.token_counter import TokenCounter
from speak_neuro.table.tokenizer import TableTokenizer
from speak_neuro.table.vocabulary import Vocabulary
from speak_neuro.text import segments
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.text.lines import FORMATS, read_lines, render

TABLES = make_tables()
LONG = "".join(np.random.default_rng(3).choice(list(CHARACTERS), 3000))
SMALL = settings(max_examples=60)


def vocabulary_of(table: CompiledTable, *texts: str) -> Vocabulary:
    tokenizer = TableTokenizer(table, backend="numpy")
    counts = Counter(t.encode("utf-8", "surrogatepass") for text in texts for t in tokenizer.tokens(text))
    return Vocabulary.build(counts, 256 + 800)


VOCABULARY = vocabulary_of(TABLES["gated"], LONG)


@pytest.mark.parametrize("name", TABLES)
def test_spans_are_the_references(name: str) -> None:
    table = TABLES[name]
    tokenizer = TableTokenizer(table, backend="numba")

    @SMALL
    @given(TEXTS)
    def check(text: str) -> None:
        expected = segments.spans(oracle(table, text))
        assert np.array_equal(tokenizer.spans(text), expected)
        assert np.array_equal(tokenizer.spans(text, "byte"), segments.byte_spans(text, expected))
        assert "".join(tokenizer.tokens(text)) == text

    check()
    assert 0 < oracle(table, LONG).mean() < 1


@SMALL
@given(TEXTS)
def test_ids_of_both_backends(text: str) -> None:
    slow, fast = (TableTokenizer(TABLES["gated"], VOCABULARY, backend) for backend in ("numpy", "numba"))
    ids = fast.encode(text)
    assert ids.dtype == np.int32
    assert np.array_equal(ids, slow.encode(text))
    assert fast.decode(ids) == text


@pytest.mark.parametrize("threshold", [-1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0])
def test_spikes_at_the_threshold_itself(threshold: float) -> None:
    """Potentials equal to it, next to it, and zeros of both signs."""
    near = np.float32(threshold)
    values = [
        near,
        np.nextafter(near, np.float32(9)),
        np.nextafter(near, np.float32(-9)),
        -0.0,
        0.0,
        -1e-45,
        1e-45,
        9.0,
    ]
    alphabet = Alphabet("abcdefgh")
    current = np.array([[0, *values]], dtype=np.float32)
    neuron = NeuronParameters(decay=0, threshold=threshold, reset_potential=-2, mode="hard")
    table = CompiledTable(alphabet, current, np.ones_like(current), neuron)
    text = "abcdefgh" * 3 + "hgfedcba?"
    expected = oracle(table, text)
    assert np.array_equal(expected[:8], np.array(values, dtype=np.float32) >= near)
    assert np.array_equal(TableTokenizer(table, backend="numba").spans(text), segments.spans(expected))
    assert np.array_equal(TableTokenizer(table, backend="numpy").spans(text), segments.spans(expected))


def test_the_vocabulary_is_used() -> None:
    ids = TableTokenizer(TABLES["gated"], VOCABULARY, "numba").encode(LONG)
    assert 0.1 < (ids >= 256).mean() < 0.9


@pytest.mark.parametrize("name", ["gated", "two taps"])
@SMALL
@given(st.lists(TEXTS, max_size=12), st.integers(1, 3))
def test_batches(name: str, texts: list[str], threads: int) -> None:
    single = TableTokenizer(TABLES[name], VOCABULARY, "numpy")
    for backend in ("numpy", "numba"):
        many = TableTokenizer(TABLES[name], VOCABULARY, backend)
        for unit in table_text.UNITS:
            found = many.spans_batch(texts, unit, threads)
            assert len(found) == len(texts)
            for spans, text in zip(found, texts, strict=True):
                assert np.array_equal(spans, single.spans(text, unit))
        for ids, text in zip(many.encode_batch(texts, threads), texts, strict=True):
            assert np.array_equal(ids, single.encode(text))


@pytest.mark.parametrize("block", [5, 64, 1000])
def test_blocks_do_not_show(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also inside a character, and inside tokens that the vocabulary cannot hold."""
    gated = TABLES["gated"]
    quiet = CompiledTable(gated.alphabet, gated.current * np.float32(0.02), gated.gate)
    texts = [LONG, "é漢👩" * 200, "a" * 500, ""]
    for table in (gated, TABLES["leaky"], TABLES["five taps"], quiet):
        whole = TableTokenizer(table, VOCABULARY, "numpy")
        fast = TableTokenizer(table, VOCABULARY, "numba")
        with monkeypatch.context() as patched:
            patched.setattr(table_text, "BLOCK", block)
            spans, ids = fast.spans_batch(texts, threads=2), fast.encode_batch(texts, threads=2)
            for k, text in enumerate(texts):
                assert np.array_equal(fast.spans(text), whole.spans(text))
                assert np.array_equal(spans[k], whole.spans(text))
                assert np.array_equal(fast.encode(text), whole.encode(text))
                assert np.array_equal(ids[k], whole.encode(text))
    assert max(len(token.encode()) for token in whole.tokens("a" * 500)) > LONGEST


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", ["leaky", "five taps"])
@SMALL
@given(TEXTS, st.lists(st.integers(0, 30), max_size=10))
def test_streams(backend: str, name: str, text: str, cuts: list[int]) -> None:
    tokenizer = TableTokenizer(TABLES[name], backend=backend)
    stream, start, tokens = tokenizer.stream(), 0, []
    for cut in cuts:
        tokens += stream.feed(text[start : start + cut])
        start += cut
    tokens += [*stream.feed(text[start:]), *stream.flush()]
    assert tokens == tokenizer.tokens(text)
    assert list(stream.feed_all(iter(text))) == tokens


@pytest.mark.parametrize("name", ["leaky", "five taps"])
def test_a_stream_may_change_its_backend(name: str) -> None:
    tokenizer, tokens = TableTokenizer(TABLES[name]), []
    stream = tokenizer.stream()
    for k, start in enumerate(range(0, len(LONG), 3)):
        tokenizer.backend = ("numpy", "numba")[k % 2]
        tokens += stream.feed(LONG[start : start + 3])
    assert [*tokens, *stream.flush()] == tokenizer.tokens(LONG)


def by_line(table: CompiledTable, data: bytes, style: str) -> bytes:
    """What `speak-tokenize --run` does."""
    tokenizer, out = TableTokenizer(table, VOCABULARY, "numpy"), []
    for line in read_lines(io.BytesIO(data), "x"):
        if style == "ids":
            out.append(str(tokenizer.encode(line).tolist()))
        else:
            out.append(render(line, tokenizer.spans(line, "byte" if style == "bytes" else "character").tolist(), style))
    return "".join(line + "\n" for line in out).encode()


def whole_file(table: CompiledTable, data: bytes, style: str, block: int, threads: int = 1) -> bytes:
    from speak_neuro.table import files as table_lines

    out = bytearray()
    original = table_lines.pieces
    table_lines.pieces = lambda source, _=0: original(source, block)  # type: ignore[assignment]
    try:
        LineTokenizer(table, style, VOCABULARY).run(io.BytesIO(data), "x", out.extend, threads)
    finally:
        table_lines.pieces = original
    return bytes(out)


FILES = st.lists(
    st.sampled_from([*CHARACTERS[:-2], "\n", "\n", "\x08", "\x0c", "\t", '"', "\\", "\x7f", "|"]), max_size=80
)


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("name", ["gated", "two taps"])
@SMALL
@given(FILES.map("".join), st.integers(4, 40), st.integers(1, 3))
def test_files_in_any_blocks(style: str, name: str, text: str, block: int, threads: int) -> None:
    """A line longer than a block, a block that ends inside a character, a file without a last line feed."""
    data = text.encode()
    assert whole_file(TABLES[name], data, style, block, threads) == by_line(TABLES[name], data, style)


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("name", ["leaky", "none", "five taps"])
def test_files_with_long_tokens(style: str, name: str) -> None:
    data = (LONG[:-2].replace("\ud800", "").replace("\udfff", "") + "\n" + "q" * 400 + "\n\n" + "é" * 300).encode()
    for block in (7, 100):
        assert whole_file(TABLES[name], data, style, block) == by_line(TABLES[name], data, style)


@pytest.mark.parametrize("raw", [b"", b"\n", b"\n\n", b"a", b"a\n", b"\na", b"\r\n\r\n"])
@pytest.mark.parametrize("style", FORMATS)
def test_ends_of_files(raw: bytes, style: str) -> None:
    for block in (4, 100):
        assert whole_file(TABLES["gated"], raw, style, block) == by_line(TABLES["gated"], raw, style)


@SMALL
@given(st.binary(max_size=40), st.integers(4, 16), st.sampled_from(["", "fine\nlines\n", "é漢👩\n", "é漢👩é"]))
def test_invalid_bytes_are_named_by_their_place(raw: bytes, block: int, before: str) -> None:
    data = before.encode() + raw
    try:
        expected: str | bytes = by_line(TABLES["gated"], data, "json")
    except SpeakError as error:
        expected = str(error)
    try:
        found: str | bytes = whole_file(TABLES["gated"], data, "json", block)
    except SpeakError as error:
        found = str(error)
    assert found == expected


@pytest.mark.parametrize(
    "bad",
    [bytes.fromhex(h) for h in "ff c080 c1bf 80 e09fbf eda080 f08fbfbf f4908080 f5808080 e282 f09f91 c3".split()],
)
@pytest.mark.parametrize("block", [4, 5, 6, 7, 100])
def test_what_is_not_utf8(bad: bytes, block: int) -> None:
    out = bytearray()
    for after in (b"", b"\n", b"xyz\nmore"):
        with pytest.raises(SpeakError, match=f"x: invalid UTF-8 at byte 8 \\(0x{bad[0]:02x}\\)"):
            whole_file(TABLES["gated"], b"one\ntwo " + bad + after, "spans", block)
    with pytest.raises(SpeakError):
        LineTokenizer(TABLES["gated"], "marked").run(io.BytesIO(b"one\ntwo\n" + bad), "x", out.extend)
    assert out.replace(b"|", b"") == b"one\ntwo\n"  # what came before is not lost


@SMALL
@given(FILES.map("".join), st.integers(4, 40))
def test_pieces_lose_nothing(text: str, block: int) -> None:
    data = text.encode()
    found = list(pieces(io.BytesIO(data), block))
    joined = b"".join(piece.raw for piece in found)
    assert joined == data if data.endswith(b"\n") or not data else joined == data + b"\n"
    assert all(len(piece.raw) < 2 * block + 1 for piece in found)
    offset = 0
    for piece in found:
        assert piece.offset == offset
        assert piece.continues or piece.raw.endswith(b"\n")
        piece.raw.decode()  # whole characters
        offset += len(piece.raw)


@SMALL
@given(FILES.map("".join), st.integers(4, 60), st.integers(1, 2))
def test_counts_of_tokens(text: str, block: int, threads: int) -> None:
    from speak_neuro.table import files as table_lines

    tokenizer = TableTokenizer(TABLES["gated"], backend="numpy")
    expected = Counter(t.encode() for line in text.split("\n") for t in tokenizer.tokens(line))
    counter, original = TokenCounter(), table_lines.pieces
    table_lines.pieces = lambda source, _=0: original(source, block)  # type: ignore[assignment]
    try:
        count_tokens(TABLES["gated"], io.BytesIO(text.encode()), "x", counter, threads)
    finally:
        table_lines.pieces = original
    assert counter.counts() == {token: n for token, n in expected.items() if len(token) <= LONGEST}


def test_ten_megabytes_in_one_line() -> None:
    text = (LONG * 4000)[:10_000_000]
    tokenizer = TableTokenizer(TABLES["hard"], VOCABULARY, "numba")
    spans = tokenizer.spans(text)
    assert spans[0, 0] == 0
    assert spans[-1, 1] == len(text)
    assert np.array_equal(spans[1:, 0], spans[:-1, 1])
    # After a hard reset the past is forgotten, so the last tokens are those of the text from any cut on.
    cut = int(spans[-500, 0])
    assert np.array_equal(TableTokenizer(TABLES["hard"], backend="numpy").spans(text[cut:]) + cut, spans[-500:])
    assert tokenizer.decode(tokenizer.encode(text[:2_000_000])) == text[:2_000_000]


def test_automatic_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "speak_neuro.table.scan")
    tokenizer = TableTokenizer(TABLES["gated"])
    assert not tokenizer.compiled(1000)
    assert tokenizer.compiled(table_text.PATIENCE)
    assert tokenizer.compiled(1)
    assert not TableTokenizer(TABLES["gated"], backend="numpy").compiled(1 << 40)
    with pytest.raises(ValueError, match="backend is 'c'; allowed: auto, numpy, numba"):
        TableTokenizer(TABLES["gated"], backend="c")
    with pytest.raises(ValueError, match="unit is 'word'"):
        tokenizer.spans("a", "word")
    with pytest.raises(ValueError, match="threads is 0"):
        TableTokenizer(TABLES["gated"], backend="numba").spans_batch(["a"], threads=0)
    with pytest.raises(SpeakError, match="no vocabulary"):
        tokenizer.encode("a")
