"""speak-tokenize: lossless lines in every format, one clear line for bad input."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from speak_neuro import cli as tokenize_cli
from speak_neuro.cli import main, read_lines
from speak_neuro.export.cli import main as export
from speak_neuro.inference.speak import Speak
from speak_neuro.table.load_vocabulary import load_vocabulary
from speak_neuro.text.lines import FORMATS

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


def test_standard_input_and_output(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a line\nno line feed at the end")))
    assert main(["--run", str(tiny_run)]) == 0
    lines = capsysbinary.readouterr().out.decode().splitlines()
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


class Linear(NamedTuple):
    """A run with the linear encoder, and what is made of it."""

    run: Path
    table: Path
    vocabulary: Path


@pytest.fixture(scope="module")
def linear(gtok: Callable[..., int], tmp_path_factory: pytest.TempPathFactory, excerpt: Path) -> Linear:
    folder = tmp_path_factory.mktemp("linear")
    made = Linear(folder / "run", folder / "some.table", folder / "some.vocabulary")
    assert gtok("--data", str(excerpt), "--out", str(made.run), "--steps", "20", "--encoder", "linear") == 0
    assert export(["--to", "table", "--run", str(made.run), "--out", str(made.table)]) == 0
    flags = ["--table", str(made.table), "--build-vocabulary", str(made.vocabulary), "--vocabulary-size", "400"]
    assert main([str(excerpt), *flags]) == 0
    return made


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("short", [True, False])
def test_table_and_run_write_the_same_bytes(
    linear: Linear, text: Path, excerpt: Path, tmp_path: Path, style: str, short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By plain numpy and by compiled code, two files, a line longer than a block."""
    monkeypatch.setattr(tokenize_cli, "SHORT", 1 << 18 if short else 100)
    from speak_neuro.table.files import LineTokenizer

    compiled, run_compiled = [], LineTokenizer.run
    monkeypatch.setattr(LineTokenizer, "run", lambda *given: compiled.append(given) or run_compiled(*given))
    monkeypatch.delitem(sys.modules, "speak_neuro.table.scan", raising=False)  # as if it had not been loaded yet
    giant = tmp_path / "giant.txt"
    giant.write_text("no line feed at the end, " * (20 if short else 25000) + "שלום", encoding="utf-8")
    flags = [str(text), str(excerpt), str(giant), "--format", style]
    if style == "ids":
        flags += ["--vocabulary", str(linear.vocabulary)]
    records = []
    for name, source in (("run", linear.run), ("table", linear.table)):
        more = ["--out", str(tmp_path / name), "--json", str(tmp_path / "counts")]
        assert main([*flags, f"--{name}", str(source), *more]) == 0
        records.append(json.loads((tmp_path / "counts").read_text(encoding="utf-8"))["metrics"])
    assert (tmp_path / "run").read_bytes() == (tmp_path / "table").read_bytes()
    assert records[0] == records[1]
    assert bool(compiled) == (not short)
    main([*flags, "--table", str(linear.table), "--out", str(tmp_path / "threads"), "--threads", "3"])
    assert (tmp_path / "threads").read_bytes() == (tmp_path / "run").read_bytes()


def test_ids_decode_to_the_lines(linear: Linear, text: Path, tmp_path: Path) -> None:
    flags = ["--table", str(linear.table), "--format", "ids", "--vocabulary", str(linear.vocabulary)]
    assert main([str(text), *flags, "--out", str(tmp_path / "out")]) == 0
    vocabulary = load_vocabulary(linear.vocabulary)
    assert len(vocabulary) == 400
    found = (tmp_path / "out").read_text(encoding="utf-8").splitlines()
    assert [vocabulary.decode(json.loads(line)) for line in found] == LINES


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "ids"], "--format ids needs --vocabulary FILE"),
        (["--threads", "0"], "--threads is 0; allowed: at least 1"),
        (["--build-vocabulary", "v", "--vocabulary-size", "255"], "--vocabulary-size is 255; allowed: at least 256"),
        (
            ["--build-vocabulary", "v", "--out", "o"],
            "--build-vocabulary writes a vocabulary and no tokens; leave --out",
        ),
        (["--vocabulary", "none"], "none: no such file; make one with speak-tokenize --build-vocabulary"),
    ],
)
def test_bad_flags(
    linear: Linear, text: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(text), "--table", str(linear.table), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("flag", ["--out", "--json", "--build-vocabulary"])
def test_an_input_is_not_written_over(
    linear: Linear, text: Path, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link.txt").symlink_to(text)
    before = text.read_bytes()
    assert main([str(text), "--table", str(linear.table), flag, str(tmp_path / "link.txt")]) == 2
    error = capsys.readouterr().err
    assert "link.txt: is an input of this command; name another file to write" in error
    assert error.count("\n") == 1
    assert text.read_bytes() == before


@pytest.mark.parametrize("unit", ["ranges", "tokens", "whole"])
def test_vocabularies_of_run_and_table(linear: Linear, tmp_path: Path, unit: str) -> None:
    """A run and its table give the same vocabulary, and the same ids by it, whichever unit the ids are fitted into."""
    text = tmp_path / "some.txt"
    text.write_text("a line of text and another line of text\n\nשלום של כל\n" * 30, encoding="utf-8")
    made = {}
    for flag, source in (("--run", linear.run), ("--table", linear.table)):
        vocabulary, out = tmp_path / f"v{flag}", tmp_path / f"ids{flag}"
        flags = [str(text), flag, str(source), "--quiet"]
        size = ["--vocabulary-unit", unit, "--vocabulary-size", "300"]
        assert main([*flags, "--build-vocabulary", str(vocabulary), *size]) == 0
        assert main([*flags, "--vocabulary", str(vocabulary), "--format", "ids", "--out", str(out)]) == 0
        made[flag] = vocabulary.read_bytes(), out.read_bytes()
    assert made["--run"] == made["--table"]
    ids = [json.loads(line) for line in made["--run"][1].decode().splitlines()]
    read = load_vocabulary(tmp_path / "v--run")
    assert read.fitted == unit
    assert "".join(read.decode(line) + "\n" for line in ids) == text.read_text(encoding="utf-8")
    assert max(map(max, filter(None, ids))) >= 256


def test_one_source(linear: Linear, text: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(text), "--run", str(linear.run), "--table", str(linear.table)])
    with pytest.raises(SystemExit):
        main([str(text)])


@pytest.mark.parametrize("size", [100, 1 << 18])
def test_table_with_bad_text(
    linear: Linear, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tokenize_cli, "SHORT", size)
    path = tmp_path / "bad.txt"
    path.write_bytes(b"fine\n" * 100 + b"bad \xc3( here\n")
    out = tmp_path / "out"
    assert main([str(path), "--table", str(linear.table), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"{path}: invalid UTF-8 at byte 504 (0xc3)" in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_line_needs_neither_torch_nor_numba(linear: Linear) -> None:
    """By the standard streams of a process."""
    code = (
        "import sys; from speak_neuro.cli import main\n"
        f"assert main(['--table', {str(linear.table)!r}]) == 0\n"
        "print([m for m in ('torch', 'numba', 'snntorch') if m in sys.modules])"
    )
    given = b"a line of text\nno line feed at the end"
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, check=True)
    *tokens, loaded = done.stdout.decode().splitlines()
    assert ["".join(json.loads(line)) for line in tokens] == given.decode().splitlines()
    assert loaded == "[]"


@pytest.mark.parametrize("style", ["json", "ids"])
def test_memory_does_not_depend_on_the_file_or_its_lines(linear: Linear, tmp_path: Path, style: str) -> None:
    """Largest resident size for 2 and 25 million bytes, in lines and in one line."""
    resource = pytest.importorskip("resource", reason="resident sizes are read with the resource module, Unix only")
    del resource
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == 'darwin' else 1024))"
    )
    peaks = []
    for size, separator in ((2_000_000, b"\n"), (25_000_000, b"\n"), (25_000_000, b" ")):
        path = tmp_path / "text"
        path.write_bytes((b"A line of some words, more or less." + separator) * (size // 36))
        flags = ["--table", str(linear.table), "--format", style, "--vocabulary", str(linear.vocabulary)]
        command = [sys.executable, "-m", "speak_neuro.cli", str(path), *flags, "--out", "/dev/null", "--quiet"]
        done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert max(peaks[1:]) < peaks[0] + 12_000_000, peaks
