"""Lines of any length in pieces: the same bytes out as in one piece, flat memory, linear time."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from speak_neuro import cli
from speak_neuro.cli import main
from speak_neuro.inference.engine import Trace
from speak_neuro.inference.speak import Speak
from speak_neuro.table import long_lines
from speak_neuro.table.vocabulary import Vocabulary
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.text.lines import FORMATS

TEXT = (
    'A "line" of text with\ttabs, a \\ and \x00 control signs.\r\n\nÄ short one, 字字字 and 👩\u200d👧.\n'
    + "the long line " * 40
    + "é" * 90
    + "\n"
    + "no line feed at the end, 字"
)


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    tokens = [b"the ", b"line ", b"long ", "字".encode(), b"A ", "éé".encode()]
    Vocabulary(tuple(tokens), np.ones(len(tokens), dtype=np.int64)).save(tmp_path / "v.safetensors")
    return tmp_path / "v.safetensors"


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize(("long", "piece"), [(16, 5), (40, 64), (8, 1)])
def test_pieces_give_the_same_bytes(
    tiny_run: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str, long: int, piece: int
) -> None:
    source = tmp_path / "text"
    source.write_bytes(TEXT.encode())
    found = []
    for name in ("whole", "pieces"):
        command = [str(source), "--run", str(tiny_run), "--format", style, "--out", str(tmp_path / name), "--quiet"]
        assert main([*command, "--vocabulary", str(vocabulary), "--json", str(tmp_path / "counts")]) == 0
        counts = (tmp_path / "counts").read_text(encoding="utf-8").partition('"metrics"')[2]
        found.append(((tmp_path / name).read_bytes(), counts))
        monkeypatch.setattr(cli, "LONG", long)
        monkeypatch.setattr(long_lines, "PIECE", piece)
    assert found[0] == found[1]


@pytest.mark.parametrize("wrong", [b"\xff", b"\xe5\xad", b"\xe5\xadx"])
def test_bytes_that_are_no_text_are_named_by_their_place(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, wrong: bytes
) -> None:
    source = tmp_path / "text"
    source.write_bytes(b"short\n" + "é字".encode() * 20 + wrong + b"\nmore")
    errors = []
    for _ in range(2):
        assert main([str(source), "--run", str(tiny_run), "--out", str(tmp_path / "out"), "--quiet"]) == 2
        errors.append(capsys.readouterr().err)
        monkeypatch.setattr(cli, "LONG", 16)
        monkeypatch.setattr(long_lines, "PIECE", 7)
    assert "invalid UTF-8 at byte 106" in errors[0]
    assert errors[0] == errors[1]


def test_memory_of_a_long_line(tiny_run: Path, tmp_path: Path) -> None:
    """Largest resident size for lines of 0.6 and of 2.6 million bytes: less than five bytes more for each."""
    pytest.importorskip("resource", reason="resident sizes are read with the resource module, Unix only")
    sizes = (600_000, 2_600_000)
    assert sizes[0] > cli.LONG
    for size in sizes:
        (tmp_path / str(size)).write_bytes(b"A line of some words, more or less. " * (size // 36))
    # A forked child for each, which begins with the memory that the imports take.
    code = f"""
import os, resource, sys
import speak_neuro.inference.speak
from speak_neuro.cli import main
for size in {sizes}:
    if os.fork():
        assert os.wait()[1] == 0
        continue
    path = os.path.join({str(tmp_path)!r}, str(size))
    assert main([path, "--run", {str(tiny_run)!r}, "--out", "/dev/null", "--quiet"]) == 0
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024), flush=True)
    os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peaks = [int(line) for line in done.stdout.split()]
    assert len(peaks) == 2
    assert peaks[1] < peaks[0] + 10_000_000, peaks


class Silent:
    """A cursor that never spikes."""

    def advance(self, ids: Any) -> Trace:
        none = np.zeros((len(ids),), dtype=np.float32)
        return Trace(none[:, None], none, none, none, np.zeros(len(ids), dtype=np.bool_))


def test_a_stream_takes_as_long_for_a_character_however_long_its_token_is() -> None:
    engine: Any = SimpleNamespace(start=Silent)
    stream = Speak(engine, Alphabet("a")).stream()

    def seconds() -> float:
        began = time.process_time()
        for _ in range(1000):
            assert stream.feed("a") == []
        return time.process_time() - began

    seconds()
    first = min(seconds() for _ in range(3))
    stream.feed("a" * 20_000_000)
    assert min(seconds() for _ in range(3)) < 5 * first
    assert stream.flush() == ["a" * 20_007_000]
