"""The proxy of a large text: the same store, and every snapshot can be gone back to."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speak_neuro.errors import SpeakError
from speak_neuro.supervision import proxy_file
from speak_neuro.supervision.proxy import HEADER, ProxyStore
from speak_neuro.supervision.proxy_file import RECORD, FileProxy, ProxyCopy, write_bits

N = 77
BITS = np.arange(N) % 3 == 0


@pytest.fixture
def proxy(tmp_path: Path) -> FileProxy:
    write_bits(tmp_path / "initial.bits", N, [BITS])
    return FileProxy.begin(tmp_path / "proxy.bits", tmp_path / "initial.bits")


def planes(store: ProxyStore) -> np.ndarray:
    return ProxyStore.snapshot(store)


def change(store: ProxyStore, seed: int) -> None:
    random = np.random.default_rng(seed)
    starts = random.integers(0, N, 3)
    store.write(starts, random.random((3, 20)) < 0.5, random.random(3) < 0.7)
    store.mark_visited(starts[:1], 20)


@given(st.lists(st.integers(0, 30), max_size=6))
def test_blocks_of_any_size_make_the_file_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("bits")
    ends = np.cumsum([0, *cuts]).clip(max=N)
    blocks = [BITS[a:b] for a, b in pairwise(ends)] + [BITS[ends[-1] :]]
    write_bits(folder / "blocks", N, blocks)
    write_bits(folder / "whole", N, [BITS])
    assert (folder / "blocks").read_bytes() == (folder / "whole").read_bytes()
    assert np.array_equal(planes(ProxyStore.open(folder / "whole")), planes(ProxyStore.create(BITS)))


def test_it_is_the_same_store(proxy: FileProxy) -> None:
    memory = ProxyStore.create(BITS)
    for seed in range(20):
        change(proxy, seed)
        change(memory, seed)
    assert np.array_equal(planes(proxy), planes(memory))


@pytest.mark.parametrize("saved", [0, 1, 2, 3])
@pytest.mark.parametrize("taken", [0, 1])
def test_back_to_the_checkpoint_after_a_kill(proxy: FileProxy, tmp_path: Path, saved: int, taken: int) -> None:
    """The checkpoint on disk is the last snapshot's, or, when the run was killed while it saved, the one's before."""
    states = [(np.array([0]), planes(proxy))]
    for seed in range(saved + taken):
        change(proxy, 10 * seed)
        change(proxy, 10 * seed + 1)
        states.append((proxy.snapshot(), planes(proxy)))
    change(proxy, 999)
    del proxy  # as a kill leaves it: the file is ahead of the checkpoint
    number, wanted = states[saved]
    for _ in range(2):  # the second time as after a kill during the first
        again = FileProxy.open(tmp_path / "proxy.bits")
        again.restore(number)
        assert np.array_equal(planes(again), wanted)
        change(again, 1234)


def test_a_run_after_a_resume_can_be_resumed(proxy: FileProxy, tmp_path: Path) -> None:
    change(proxy, 1)
    first = proxy.snapshot()
    change(proxy, 2)
    proxy.restore(first)
    change(proxy, 3)
    second, wanted = proxy.snapshot(), planes(proxy)
    change(proxy, 4)
    again = FileProxy.open(tmp_path / "proxy.bits")
    again.restore(second)
    assert np.array_equal(planes(again), wanted)


def test_journals_do_not_pile_up(proxy: FileProxy, tmp_path: Path) -> None:
    for seed in range(6):
        change(proxy, seed)
        proxy.snapshot()
    # Of the two checkpoints that are kept, and of the one that is being written.
    assert sorted(file.name for file in tmp_path.glob("proxy.bits.*")) == [f"proxy.bits.{n}" for n in (4, 5, 6)]


def test_a_record_cut_off(proxy: FileProxy, tmp_path: Path) -> None:
    wanted = planes(proxy)
    change(proxy, 1)
    with (tmp_path / "proxy.bits.0").open("ab") as journal:
        journal.write(b"\0\1")
    again = FileProxy.open(tmp_path / "proxy.bits")
    again.restore(np.array([0]))
    assert np.array_equal(planes(again), wanted)


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte[0] ^ 16]))


def test_a_flipped_bit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the file or in a journal, when a run goes back to its checkpoint; in the file also where a run changes it."""
    monkeypatch.setattr(proxy_file, "BLOCK", 4)
    write_bits(tmp_path / "initial.bits", N, [BITS])
    path = tmp_path / "proxy.bits"
    proxy = FileProxy.begin(path, tmp_path / "initial.bits")
    change(proxy, 1)
    saved, wanted = proxy.snapshot(), planes(proxy)
    assert saved.shape == (1 + 2 * 3,)
    change(proxy, 2)
    kept = {file: file.read_bytes() for file in tmp_path.glob("proxy.bits*")}
    journal = tmp_path / "proxy.bits.1"
    assert len(kept[journal]) > RECORD.size
    size = len(kept[path])
    for file, at in [(path, at) for at in range(HEADER.size, size)] + [(journal, RECORD.size)]:
        flip(file, at)
        again, refused = FileProxy.open(path), ""
        try:
            again.restore(saved)
        except SpeakError as error:
            refused = str(error)
        if refused:
            assert "the CRC-32 is not the checkpoint's" in refused
        else:  # the journal had the byte's old value
            assert np.array_equal(planes(again), wanted), f"{file.name} {at}"
        for name, content in kept.items():
            name.write_bytes(content)
    again = FileProxy.open(path)
    again.restore(saved)
    for at in range(HEADER.size, size):  # it runs on, and the disk changes beneath it
        flip(path, at)
    with pytest.raises(SpeakError, match="the CRC-32 is not the checkpoint's"):
        change(again, 3)


def test_refusals(proxy: FileProxy, tmp_path: Path) -> None:
    with pytest.raises(SpeakError, match=r"proxy.bits.7: the journal since the checkpoint is missing"):
        proxy.restore(np.array([7]))
    with pytest.raises(SpeakError, match="holds proxy spikes of a text in memory"):
        proxy.restore(np.zeros((2, 10), dtype=np.uint8))
    with pytest.raises(ValueError, match="blocks hold 3 positions"):
        write_bits(tmp_path / "x", 4, [np.ones(3, dtype=bool)])
    with pytest.raises(ValueError, match="not begun"):
        change(FileProxy.open(tmp_path / "proxy.bits"), 0)
    with pytest.raises(ValueError, match="in memory"):
        FileProxy(np.zeros((2, 1), dtype=np.uint8), 8)


def test_a_copy_makes_the_same_changes_and_leaves_the_file_alone(proxy: FileProxy, tmp_path: Path) -> None:
    change(proxy, 1)
    proxy.flush()
    copy = ProxyCopy.of(tmp_path / "proxy.bits")
    copy.restore(proxy.snapshot())
    assert np.array_equal(planes(copy), planes(proxy))
    before = (tmp_path / "proxy.bits").read_bytes()
    for seed in range(5):
        change(copy, seed)
        copy.release()
    assert (tmp_path / "proxy.bits").read_bytes() == before
    for seed in range(5):
        change(proxy, seed)
    assert np.array_equal(planes(copy), planes(proxy))
