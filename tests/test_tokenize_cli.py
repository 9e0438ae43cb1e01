"""speak-tokenize: lossless lines in every format, one clear line for bad input."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from speak_neuro.text import Speak
from speak_neuro.tokenize_cli import main, read_lines

LINES = ["plain text here", "", "tab\tand\rreturn", "שלום 👩\u200d👧 e\u0301", "nul\x00inside", '"quotes" \\ back|bar']


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "some.txt"
    path.write_bytes(("\n".join(LINES) + "\n").encode())
    return path


def run(tiny_run: Path, text: Path, out: Path, *flags: str) -> list[str]:
    assert main([str(text), "--run", str(tiny_run), "--out", str(out), *flags]) == 0
    return out.read_bytes().decode().removesuffix("\n").split("\n")


def test_json_lines_are_lossless(tiny_run: Path, text: Path, tmp_path: Path) -> None:
    found = run(tiny_run, text, tmp_path / "out")
    assert ["".join(json.loads(line)) for line in found] == LINES
    speak = Speak.load(tiny_run)
    assert [json.loads(line) for line in found] == [speak.tokens(line) for line in LINES]


def test_spans_and_bytes(tiny_run: Path, text: Path, tmp_path: Path) -> None:
    tokens = [json.loads(line) for line in run(tiny_run, text, tmp_path / "json")]
    spans = [json.loads(line) for line in run(tiny_run, text, tmp_path / "spans", "--format", "spans")]
    byte = [json.loads(line) for line in run(tiny_run, text, tmp_path / "bytes", "--format", "bytes")]
    for line, expected, characters, offsets in zip(LINES, tokens, spans, byte, strict=True):
        assert [line[a:b] for a, b in characters] == expected
        assert [line.encode()[a:b].decode() for a, b in offsets] == expected


def test_marked_is_for_eyes(tiny_run: Path, text: Path, tmp_path: Path) -> None:
    found = run(tiny_run, text, tmp_path / "out", "--format", "marked")
    assert found[0].replace("|", "") == LINES[0]


def test_counts(tiny_run: Path, text: Path, tmp_path: Path) -> None:
    lines = run(tiny_run, text, tmp_path / "out", "--json", str(tmp_path / "counts.json"))
    metrics = json.loads((tmp_path / "counts.json").read_text(encoding="utf-8"))["metrics"]
    tokens = sum(len(json.loads(line)) for line in lines)
    assert metrics == {"lines": len(LINES), "characters": sum(map(len, LINES)), "tokens": tokens}


def test_standard_input_and_output(tiny_run: Path) -> None:
    command = [sys.executable, "-m", "speak_neuro.tokenize_cli", "--run", str(tiny_run)]
    done = subprocess.run(command, input=b"a line\nno line feed at the end", capture_output=True, check=True)
    lines = done.stdout.decode().splitlines()
    assert ["".join(json.loads(line)) for line in lines] == ["a line", "no line feed at the end"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.txt", None, "gone.txt: no such file"),
        ("bad.txt", b"fine\nbad \xc3( here\n", "invalid UTF-8 at byte 9 (0xc3)"),
        (".", None, "is a folder"),
    ],
)
def test_bad_text(
    tiny_run: Path,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    out = tmp_path / "out.txt"
    assert main([str(path), "--run", str(tiny_run), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_device_that_is_none(tiny_run: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(text), "--run", str(tiny_run), "--device", "toaster"]) == 2
    assert capsys.readouterr().err == (
        "speak-tokenize: error: --device is 'toaster'; allowed: auto, cpu, cuda, cuda:N\n"
    )


def test_nothing_is_begun_when_the_counts_cannot_be_written(
    tiny_run: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--run", str(tiny_run), "--out", str(tmp_path / "out"), "--json", str(tmp_path)]
    assert main([str(text), *flags]) == 2
    assert f"{tmp_path}: is a folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_run(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(text), "--run", str(tmp_path / "none")]) == 2
    assert "no such run folder; train one with" in capsys.readouterr().err


def test_an_unwritable_output(tiny_run: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    assert main([str(text), "--run", str(tiny_run), "--out", str(tmp_path / "file" / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_debug_shows_the_traceback(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(text), "--run", str(tmp_path / "none"), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_lines_end_at_line_feeds_alone() -> None:
    raw = "one\rstill one\u2028and still\x0b\nthree".encode()
    assert list(read_lines(io.BytesIO(raw), "x")) == ["one\rstill one\u2028and still\x0b", "three"]
