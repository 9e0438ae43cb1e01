"""Proxy store against plain boolean arrays: wrap-round, overlap, shards, files, snapshots."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speak_neuro.errors import SpeakError
from speak_neuro.supervision.proxy import HEADER, ProxyStore
from speak_neuro.supervision.proxy_file import write_bits


def plain_read(bits: np.ndarray, start: int, length: int) -> list[bool]:
    return [bool(bits[(start + i) % len(bits)]) for i in range(length)]


@settings(max_examples=200)
@given(st.data())
def test_reads_and_writes_as_a_circular_array_does(data) -> None:
    n = data.draw(st.integers(1, 70))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    bits, seen = rng.random(n) < 0.4, np.zeros(n, dtype=bool)
    store = ProxyStore.create(bits)
    for _ in range(4):
        length = data.draw(st.integers(1, n))
        starts = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=4)), dtype=np.int64)
        new, accepted = rng.random((len(starts), length)) < 0.5, rng.random(len(starts)) < 0.6
        store.write(starts, new, accepted)
        store.mark_visited(starts[:1], length)
        for start, row, take in zip(starts, new, accepted, strict=True):
            if take:
                bits[(start + np.arange(length)) % n] = row
        for start in starts[:1]:
            seen[(start + np.arange(length)) % n] = True
        every = np.arange(n)
        assert store.read(every, length).tolist() == [plain_read(bits, s, length) for s in every]
        assert store.visited(every, length).tolist() == [all(plain_read(seen, s, length)) for s in every]


def test_accepted_rows_only_and_all_rows_by_default() -> None:
    store = ProxyStore.create(np.zeros(16))
    rows = np.ones((2, 4), dtype=bool)
    store.write([0, 8], rows, [False, True])
    assert np.flatnonzero(store.read([0], 16)[0]).tolist() == [8, 9, 10, 11]
    store.write([0, 8], rows)
    assert np.flatnonzero(store.read([0], 16)[0]).tolist() == [0, 1, 2, 3, 8, 9, 10, 11]


def test_a_file_keeps_its_bits(tmp_path: Path) -> None:
    path = tmp_path / "proxy.bin"
    bits = np.random.default_rng(0).random(1003) < 0.3
    write_bits(path, 1003, [bits[:600], bits[600:]])
    store = ProxyStore.open(path)
    store.write([1000], np.ones((1, 9), dtype=bool))  # wraps round: positions 1000..1002, 0..5
    store.mark_visited([10], 7)
    del store
    bits[-3:] = bits[:6] = True
    again = ProxyStore.open(path)
    assert again.n_positions == 1003
    assert again.read([0], 1003)[0].tolist() == bits.tolist()
    assert again.visited([10, 9, 11], 7).tolist() == [True, False, False]
    assert path.stat().st_size == HEADER.size + 2 * 126


def test_snapshot_and_restore(tmp_path: Path) -> None:
    bits = np.random.default_rng(1).random(101) < 0.5
    write_bits(tmp_path / "proxy.bin", 101, [bits])
    store = ProxyStore.open(tmp_path / "proxy.bin")
    store.mark_visited([0], 50)
    kept = store.snapshot()
    store.write([90], ~store.read([90], 40))
    store.mark_visited([0], 101)
    assert kept.dtype == np.uint8
    assert kept.shape == (2, 13)
    store.restore(kept)
    assert store.read([0], 101)[0].tolist() == bits.tolist()
    assert store.visited([0, 1], 50).tolist() == [True, False]
    other = ProxyStore.create(np.zeros(101))
    other.restore(kept)
    assert other.read([0], 101)[0].tolist() == bits.tolist()
    with pytest.raises(SpeakError, match="resume with the text the run began with"):
        ProxyStore.create(np.zeros(300)).restore(kept)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "proxy.bin"
    with pytest.raises(SpeakError, match="cannot be read"):
        ProxyStore.open(path)
    path.write_bytes(b"")
    with pytest.raises(SpeakError, match="not a proxy store"):
        ProxyStore.open(path)
    write_bits(path, 100, [np.zeros(100, dtype=bool)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(SpeakError, match="do not fit 100 positions"):
        ProxyStore.open(path)
    path.write_bytes(whole[:8] + b"\x02" + whole[9:])
    with pytest.raises(SpeakError, match="version 2"):
        ProxyStore.open(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.read([16], 4), "starts run from 16 to 16; allowed: 0 to 15"),
        (lambda s: s.read([-1], 4), "allowed: 0 to 15"),
        (lambda s: s.read([4], 17), "length is 17; allowed: 1 to 16"),
        (lambda s: s.write([4], np.ones(4)), r"starts have shape \(1,\)"),
        (lambda s: s.write([4], np.ones((1, 4)), [True, True]), "accepted has shape"),
        (lambda s: s.mark_visited([20], 1), "starts run from"),
        (lambda s: ProxyStore.create(np.ones((2, 2))), "bits have shape"),
        (lambda s: ProxyStore.create([]), "bits have shape"),
        (lambda s: ProxyStore(np.zeros((2, 3), dtype=np.uint8), 16), "planes have shape"),
    ],
)
def test_refusals_name_the_field(call, message: str) -> None:
    store = ProxyStore.create(np.zeros(16))
    with pytest.raises(ValueError, match=message):
        call(store)
