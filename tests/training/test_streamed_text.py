"""A text from a cache folder is the text in memory: same parts, alphabet, boundaries, training and resume."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speak_neuro.corpus.memory_map import trim
from speak_neuro.corpus.reader import read_text
from speak_neuro.corpus.splits import digest, read_splits, split
from speak_neuro.supervision.proxy import ProxyStore
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.metrics_log import read_metrics
from speak_neuro.training.streamed_text import StreamedText, boundaries, sample

Gtok = Callable[..., int]


def silent(what: str) -> None:
    pass


@pytest.fixture
def parts(tmp_path: Path, excerpt: Path) -> Path:
    text = excerpt.read_text(encoding="utf-8")
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, (start, end) in {"train": (0, 9000), "validation": (9000, 9700), "test": (9700, 10200)}.items():
        (folder / f"{name}.txt").write_text(text[start:end] + "é" * (name == "test"), encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", ["file", "parts"])
def test_the_same_as_in_memory(excerpt: Path, parts: Path, tmp_path: Path, kind: str) -> None:
    path = excerpt if kind == "file" else parts
    text = StreamedText.prepare(path, tmp_path / "cache", silent)
    wanted = split(read_text(path)) if kind == "file" else read_splits(path)
    alphabet = Alphabet.learn(wanted.train)
    assert text.sha256 == digest(wanted)
    exemplar = text.exemplar(300, silent)
    for store, part in zip((text.train, text.valid, text.test), wanted, strict=True):
        assert isinstance(store.ids, np.memmap)
        assert store.alphabet == alphabet
        assert np.array_equal(store.ids, alphabet.encode(part))
        known = "".join(c if c in alphabet else "\ufffd" for c in part)
        assert np.array_equal(boundaries(exemplar, store.ids, alphabet), exemplar.boundaries(known))
    bits = ProxyStore.open(text.train_boundaries(exemplar, silent))
    assert np.array_equal(bits.read([0], len(wanted.train))[0], exemplar.boundaries(wanted.train))
    assert not bits.visited([0], 1).any()


def test_made_once_and_again_when_the_text_changes(excerpt: Path, tmp_path: Path) -> None:
    path, said = tmp_path / "text.txt", []
    path.write_text(excerpt.read_text(encoding="utf-8"), encoding="utf-8")
    first = StreamedText.prepare(path, tmp_path / "cache", silent)
    bits = first.train_boundaries(first.exemplar(300, silent), silent)
    again = StreamedText.prepare(path, tmp_path / "cache", silent)
    again.train_boundaries(again.exemplar(300, said.append), said.append)
    assert said == []
    assert bits.exists()
    path.write_text(path.read_text(encoding="utf-8").upper(), encoding="utf-8")
    os.utime(path, (1, 1))
    changed = StreamedText.prepare(path, tmp_path / "cache", silent)
    assert changed.train.text() == split(path.read_text(encoding="utf-8")).train
    assert not bits.exists()
    changed.exemplar(300, said.append)
    assert said == ["learning the exemplar's pieces"]


def test_a_sample_of_a_long_text(excerpt: Path, tmp_path: Path) -> None:
    train = StreamedText.prepare(excerpt, tmp_path / "cache", silent).train
    assert sample(train) == train.text()
    found = sample(train, 1000, 10).split("\n" + "")
    assert 1000 <= sum(map(len, found)) + len(found) <= 1010 + 1
    assert sample(train, 1000, 10).startswith(train.text(0, 100))
    assert sample(train, 1000, 10).endswith(train.text()[-100:])


def test_training_is_the_same_and_resumes_after_a_kill(gtok: Gtok, excerpt: Path, tmp_path: Path) -> None:
    """The loss of every step, also of a run stopped, put ahead of its checkpoint and resumed."""
    flags = ["--data", str(excerpt), "--steps", "45", "--evaluate-every", "15", "--batch", "8"]
    assert gtok(*flags, "--out", str(tmp_path / "memory")) == 0
    assert gtok(*flags, "--stream", "--out", str(tmp_path / "runs" / "stream")) == 0
    assert gtok(*flags, "--stream", "--out", str(tmp_path / "runs" / "parts"), "--stop-after", "30") == 0
    proxy = ProxyStore.open(tmp_path / "runs" / "parts" / "proxy.bits")
    before = proxy.snapshot()
    from speak_neuro.supervision.proxy_file import FileProxy

    ahead = FileProxy.open(tmp_path / "runs" / "parts" / "proxy.bits")
    ahead._journal = max((tmp_path / "runs" / "parts").glob("proxy.bits.*"))  # the run's own, as it would go on
    ahead._sum_all()
    ahead.write([3], ~ahead.read([3], 500))
    ahead.mark_visited([5000], 500)
    ahead.flush()
    assert not np.array_equal(ProxyStore.snapshot(ahead), before)
    assert gtok(*flags, "--out", str(tmp_path / "runs" / "parts"), "--resume") == 0

    def losses(folder: str) -> list[tuple[float, ...]]:
        records = [r for r in read_metrics(tmp_path / folder) if "loss_lm" in r]
        return [(r["loss_lm"], r["proxy_f1"], r["sf"]) for r in records]

    assert losses("memory") == losses("runs/stream") == losses("runs/parts")
    results = [
        json.loads((tmp_path / f / "results.json").read_text(encoding="utf-8"))["metrics"]
        for f in ("memory", "runs/stream", "runs/parts")
    ]
    assert len({r["test_bpc"] for r in results}) == 1
    assert results[1]["data"] == {**results[0]["data"], "memory_mapped": True}
    assert (tmp_path / "runs" / "cache").is_dir()
    state = (tmp_path / "runs" / "stream" / "state.safetensors").stat().st_size
    assert state < (tmp_path / "memory" / "state.safetensors").stat().st_size


def test_a_run_killed_before_its_first_checkpoint_begins_anew(gtok: Gtok, excerpt: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ["--data", str(excerpt), "--out", str(run)]
    assert gtok(*flags, "--stream", "--steps", "6", "--stop-after", "3") == 0
    for name in ("state.safetensors", "model.safetensors"):
        (run / name).unlink()
    assert gtok(*flags, "--resume", "--steps", "4") == 0
    assert [r["step"] for r in read_metrics(run) if "loss_lm" in r] == [1, 2, 3, 4]


def test_refusals(gtok: Gtok, excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = tmp_path / "run", tmp_path / "other.txt"
    assert gtok("--data", str(excerpt), "--out", str(run), "--stream", "--steps", "4", "--stop-after", "2") == 0
    other.write_text(excerpt.read_text(encoding="utf-8")[:-100], encoding="utf-8")
    capsys.readouterr()
    cases = [
        (["--data", str(other), "--resume"], "give the same --data to resume it"),
        (["--stream", "--overwrite"], "--stream is for a text from --data or --dataset"),
    ]
    for flags, message in cases:
        assert gtok(*flags, "--out", str(run)) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    (run / "proxy.bits").unlink()
    assert gtok("--data", str(excerpt), "--out", str(run), "--resume", "--steps", "4") == 2
    assert "proxy.bits: cannot be read" in capsys.readouterr().err


def test_free_memory_is_given_back() -> None:
    """By arrays small enough to come from the heap, the last of which is kept."""
    status = Path("/proc/self/status")
    if not status.exists() or "RssAnon" not in status.read_text():
        pytest.skip("memory is read from /proc, on Linux")

    def held() -> int:
        return int(status.read_text().partition("RssAnon:")[2].split()[0])

    blocks = [np.ones(10_000) for _ in range(1000)]
    before, kept = held(), blocks[-1]
    del blocks
    trim()
    assert held() < before - 40_000
    assert kept.all()
