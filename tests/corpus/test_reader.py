"""Corpus: reading as a user expects, splits, windows, and the character store against the text."""

import hashlib
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speak_neuro.corpus import reader as corpus
from speak_neuro.corpus import splits, windows
from speak_neuro.corpus.character_store import CharacterStore
from speak_neuro.corpus.windows import WindowSampler
from speak_neuro.errors import SpeakError
from speak_neuro.text.alphabet import Alphabet

ODD = "\ufeffmark\r\nNUL \x00 tab\t\u2028 ünï 👩\u200d👧 नि\n\n"


def one_line(error: pytest.ExceptionInfo[SpeakError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_characters_are_kept_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(ODD.encode())
    assert corpus.read_text(tmp_path / "a.txt") == ODD


def test_a_folder_is_read_in_order_below_too(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, text in {"b/1.txt": "three", "a.txt": "two", "b/0.txt": "", "A.txt": "one", "c.md": "no"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert corpus.read_text(tmp_path) == "one\n\ntwo\n\nthree"


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1000])
def test_pieces_never_cut_a_character(tmp_path: Path, chunk: int) -> None:
    (tmp_path / "a.txt").write_bytes(ODD.encode())
    assert "".join(corpus.iterate_text(tmp_path / "a.txt", chunk)) == ODD


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 1000])
@pytest.mark.parametrize(
    ("data", "offset"),
    [(b"abc\xff", 3), ("ää".encode() + b"\xe2\x82(", 4), (b"ab\xf0\x9f\x98", 2), (b"\xed\xa0\x80", 0)],
)
def test_the_bad_byte_is_named(tmp_path: Path, data: bytes, offset: int, chunk: int) -> None:
    (tmp_path / "bad.txt").write_bytes(data)
    with pytest.raises(SpeakError) as error:
        list(corpus.iterate_text(tmp_path / "bad.txt", chunk))
    assert f"bad.txt: byte {offset} is not UTF-8 (0x{data[offset]:02x}" in one_line(error)


def test_unreadable_sources(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "folder").mkdir()
    for name, expected in {
        "missing.txt": "no such file or folder",
        "empty.txt": "the text is empty",
        "folder": "holds no .txt file",
    }.items():
        with pytest.raises(SpeakError) as error:
            corpus.read_text(tmp_path / name)
        message = one_line(error)
        assert expected in message
        assert name in message
    with pytest.raises(SpeakError, match="the text is empty"):
        corpus.read_text(tmp_path)


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("a")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may open everything, so chmod would prove nothing
    with pytest.raises(SpeakError, match=r"a.txt: cannot be read \(Permission denied\)"):
        corpus.read_text(tmp_path / "a.txt")


@given(st.text("ab \n\r", min_size=20, max_size=400))
def test_split_gives_the_text_back(text: str) -> None:
    parts = splits.split(text, 0.2, 0.1)
    assert "".join(parts) == text
    assert all(parts)
    assert splits.split(text, 0.2, 0.1) == parts


def test_split_prefers_the_best_border_nearby() -> None:
    lines = "".join(f"line {i:03d}\n" + ("\n" if i % 10 == 9 else "") for i in range(1000))
    train, valid, _ = splits.split(lines, 0.1, 0.1)
    assert train.endswith("\n\n")
    assert valid.endswith("\n\n")
    assert len(valid) == pytest.approx(0.1 * len(lines), rel=0.1)
    assert splits.split("word " * 1000).train.endswith(" ")
    unbroken = splits.split("x" * 1000, 0.1, 0.2)
    assert [len(part) for part in unbroken] == [700, 100, 200]


def test_split_shares_of_nothing() -> None:
    assert splits.split("abcd efgh", 0, 0) == ("abcd efgh", "", "")
    assert splits.split("ab" * 50, 0.1, 0).test == ""
    with pytest.raises(SpeakError, match=r"text has 5 characters, too few to split \(train 5, valid 0, test 0\)"):
        splits.split("abcde")
    for valid, test in ((-0.1, 0), (0.5, 0.5), (0, 1)):
        with pytest.raises(ValueError, match="allowed"):
            splits.split("abcde" * 10, valid, test)


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 3))
def test_an_epoch_covers_each_position_at_most_once(n: int, length: int, epoch: int) -> None:
    length = min(length, n)
    sampler = WindowSampler(n, length, 1, seed=3)
    steps = [sampler.starts(epoch, step) for step in range(sampler.steps_per_epoch)]
    starts = np.concatenate(steps)
    covered = np.bincount(windows.circular_positions(starts, length, n).ravel(), minlength=n)
    assert covered.max() == 1
    assert n - covered.sum() == n % length


def test_an_epoch_leaves_out_less_than_a_batch() -> None:
    sampler = WindowSampler(1000, 30, 8, seed=1)
    assert (sampler.n_windows, sampler.steps_per_epoch) == (33, 4)
    assert {len(sampler.starts(0, step)) for step in range(4)} == {8}
    left_out = [set(sampler.epoch_starts(epoch)[32:]) for epoch in range(3)]
    assert left_out[0] != left_out[1] != left_out[2]


def test_windows_are_a_function_of_seed_epoch_and_step() -> None:
    whole = WindowSampler(5000, 64, 4, seed=9)
    run = [whole.starts_at(step).tolist() for step in range(3 * whole.steps_per_epoch)]
    for step in (2 * whole.steps_per_epoch + 1, 0, whole.steps_per_epoch):
        assert WindowSampler(5000, 64, 4, seed=9).starts_at(step).tolist() == run[step]
    assert WindowSampler(5000, 64, 4, seed=8).starts_at(0).tolist() != run[0]
    offsets = {WindowSampler(5000, 64, 4, seed=9).epoch_starts(epoch).min() % 64 for epoch in range(4)}
    assert len(offsets) > 1


def test_the_order_is_the_same_in_every_version() -> None:
    assert WindowSampler(100, 10, 2, seed=5).epoch_starts(2).tolist() == [56, 86, 6, 76, 96, 26, 66, 16, 36, 46]


def test_windows_wrap_round() -> None:
    ids = np.arange(10, dtype=np.uint16)
    found = windows.windows(ids, [8, 0], 4)
    assert found.tolist() == [[8, 9, 0, 1], [0, 1, 2, 3]]
    assert found.dtype == np.uint16
    with pytest.raises(ValueError, match="starts run from 10"):
        windows.windows(ids, [10], 4)
    with pytest.raises(ValueError, match="starts have shape"):
        windows.windows(ids, [[1]], 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((120, 256, 1), "text has 120 characters, a window needs 256: give more text or --window 64"),
        ((20, 256, 1), "text has 20 characters, a window needs 256: give more text or --window 20"),
        ((0, 256, 1), "text has 0 characters, a window needs 256: give more text"),
        ((1000, 256, 8), "text has 3 windows of 256 characters, a batch needs 8: give more text or --batch 3"),
    ],
)
def test_too_little_text(arguments, message: str) -> None:
    with pytest.raises(SpeakError) as error:
        WindowSampler(*arguments)
    assert one_line(error) == message


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(0, 2**63))
def test_permuted_is_a_permutation(count: int, seed: int) -> None:
    keys = np.random.PCG64(seed).random_raw(4)
    found = windows.permuted(np.arange(count), count, keys)
    assert sorted(found.tolist()) == list(range(count))
    assert np.array_equal(windows.permuted(np.arange(count)[::-1], count, keys), found[::-1])


def test_a_permutation_looks_shuffled() -> None:
    count = 100_003
    found = windows.permuted(np.arange(count), count, np.random.PCG64(3).random_raw(4))
    assert abs(np.corrcoef(np.arange(count), found)[0, 1]) < 0.02
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.02
    assert np.abs(np.diff(found)).min() >= 1
    assert np.median(np.abs(np.diff(found))) > count / 5


def test_a_large_epoch_is_computed_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "LARGE_EPOCH", 10)
    sampler = windows.WindowSampler(1003, 10, 7, seed=5)
    starts = [sampler.starts(3, step) for step in range(sampler.steps_per_epoch)]
    assert np.array_equal(np.concatenate(starts), sampler.epoch_starts(3)[: 7 * len(starts)])
    covered = windows.circular_positions(sampler.epoch_starts(3), 10, 1003)
    assert len(np.unique(covered)) == covered.size == 1000
    assert not np.array_equal(sampler.epoch_starts(3), sampler.epoch_starts(4))


def test_the_parts_cut_off_a_long_text_are_bounded() -> None:
    length = 10**10
    first, second = splits.split_points(length, 0.05, 0.05, lambda start, end: "x" * (end - start))
    assert (second - first, length - second) == (splits.LONGEST_PART, splits.LONGEST_PART)


def test_sampler_refusals() -> None:
    for arguments in ((10, 0, 1), (10, 1, 0), (10, 1, 1, -1)):
        with pytest.raises(ValueError, match="allowed: at least"):
            WindowSampler(*arguments)
    sampler = WindowSampler(10, 2, 1)
    for epoch, step in ((0, 5), (0, -1), (-1, 0)):
        with pytest.raises(ValueError, match="allowed"):
            sampler.starts(epoch, step)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "1.txt").write_bytes((ODD * 30).encode())
    (folder / "2.txt").write_bytes(("second file\n\n" * 40).encode())
    return folder


def test_a_store_holds_the_ids_of_its_text(large: Path, tmp_path: Path) -> None:
    text = corpus.read_text(large)
    disk = CharacterStore.from_path(large, tmp_path / "cache")
    assert isinstance(disk.ids, np.memmap)
    assert disk.alphabet == Alphabet.learn(text)
    assert np.array_equal(disk.ids, disk.alphabet.encode(text))
    assert disk.text() == text
    assert disk.ids.dtype == np.uint8


@pytest.mark.parametrize(
    ("letters", "kind"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.uint32)]
)
def test_ids_take_the_smallest_type(letters: int, kind: type, tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + i) if i < 20000 else chr(0x20000 + i) for i in range(letters))
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    assert CharacterStore.from_path(tmp_path / "text.txt", tmp_path / "cache").ids.dtype == kind


@pytest.mark.parametrize("span", [(0, 10), (3, 20), (7, None), (5, 5)])
def test_store_of_a_span(large: Path, tmp_path: Path, span: tuple[int, int | None]) -> None:
    text = corpus.read_text(large)[span[0] : span[1]]
    alphabet = Alphabet.learn(text)
    assert CharacterStore.from_path(large, tmp_path / "cache", alphabet, span).text() == text


def test_store_is_written_once_and_again_when_the_source_changes(large: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = CharacterStore.from_path(large, cache)
    written = (cache / "ids.bin").stat().st_mtime_ns
    CharacterStore.from_path(large, cache)
    assert (cache / "ids.bin").stat().st_mtime_ns == written
    (large / "2.txt").write_text("other", encoding="utf-8")
    assert len(CharacterStore.from_path(large, cache)) < len(first)
    assert sorted(p.name for p in cache.iterdir()) == ["ids.bin", "store.json"]


def test_store_with_a_given_alphabet(large: Path, tmp_path: Path) -> None:
    given_alphabet = Alphabet("se")
    store = CharacterStore.from_path(large, tmp_path / "cache", alphabet=given_alphabet)
    assert set(np.unique(store.ids).tolist()) == {0, 1, 2}
    assert store.alphabet == given_alphabet


def test_damaged_stores(large: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    whole = CharacterStore.from_path(large, cache).text()
    with (cache / "ids.bin").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(SpeakError, match="bytes where"):
        CharacterStore.open(cache)
    assert CharacterStore.from_path(large, cache).text() == whole
    (cache / "store.json").write_text('{"schema": 99}')
    with pytest.raises(SpeakError, match="schema 99, this version reads 2"):
        CharacterStore.open(cache)
    with pytest.raises(SpeakError, match="not the index"):
        CharacterStore.open(tmp_path)


def test_embedded_texts_are_those_the_sources_describe() -> None:
    sources = resources.files("speak_neuro.data").joinpath("SOURCES.md").read_text(encoding="utf-8")
    checksums = {line[70:]: line[4:68] for line in sources.splitlines() if re.fullmatch(r" {4}[0-9a-f]{64}  \w+", line)}
    assert sorted(checksums) == corpus.embedded_names()
    for name, checksum in checksums.items():
        assert hashlib.sha256(corpus.embedded_text(name).encode()).hexdigest() == checksum
    with pytest.raises(SpeakError, match="no embedded text is called 'xx'; there are: ar, en, fi"):
        corpus.embedded_text("xx")


def test_embedded_english_is_prose() -> None:
    text = corpus.embedded_text("en")
    paragraphs = [line for line in text.split("\n") if line]
    assert 900_000 < len(text) < 1_300_000
    assert min(map(len, paragraphs)) >= 80
    assert len(set(text)) < 160
