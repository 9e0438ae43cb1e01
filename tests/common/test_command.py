"""What every command promises: outputs that are whole or untouched, one-line errors, `--debug`, pipes that close."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from speak_neuro.common.command import run_command
from speak_neuro.common.device import choose_device
from speak_neuro.common.files import atomic_write, check_writable
from speak_neuro.errors import MissingExtra, ParityError, SpeakError


def temporaries(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.suffix == ".tmp"]


def _fail_after(stream: IO[str]) -> None:
    stream.write("half")
    raise KeyboardInterrupt


def test_a_failure_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), atomic_write(path, "w") as stream:
        _fail_after(stream)
    assert path.read_text(encoding="utf-8") == "before"
    assert temporaries(tmp_path) == []


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "file")


def test_an_input_that_fails_meanwhile_keeps_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "file"):
        (tmp_path / "input").read_bytes()
    assert caught.value.filename == str(tmp_path / "input")


def test_a_symbolic_link_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    for text in ("one", "two"):
        with atomic_write(tmp_path / "link", "w") as stream:
            stream.write(text)
        assert (tmp_path / "folder" / "file").read_text(encoding="utf-8") == text
    assert (tmp_path / "link").is_symlink()


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """The same rule keeps --out /dev/null from replacing the device by a file."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(tmp_path / "pipe") as stream:
        stream.write(b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_standard_output_by_name_keeps_what_is_in_it(tmp_path: Path) -> None:
    code = (
        "from speak_neuro.common.files import atomic_write\n"
        "with atomic_write('/dev/stdout', 'w') as s: s.write('second')"
    )
    with (tmp_path / "out").open("w", encoding="utf-8") as stream:
        stream.write("first ")
        stream.flush()
        subprocess.run([sys.executable, "-c", code], stdout=stream, check=True)
    assert (tmp_path / "out").read_text(encoding="utf-8") == "first second"


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SpeakError, match="is a folder; name a file"):
        check_writable(tmp_path)
    with pytest.raises(SpeakError, match="file is not a folder; choose another place"):
        check_writable(tmp_path / "file" / "deep" / "out")
    check_writable(tmp_path / "new" / "deep" / "out")
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SpeakError, match="no permission"):
        check_writable(tmp_path / "out")


def run(error: BaseException | None, argv: list[str], subcommands: bool = False) -> int:
    parser = argparse.ArgumentParser(prog="speak-test")
    if subcommands:
        parser.add_subparsers(required=True).add_parser("part")

    def action(arguments: argparse.Namespace) -> int:
        if error is not None:
            raise error
        print(arguments.command_line)
        return 0

    return run_command(parser, action, argv)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SpeakError("file: field is 1"), 2, "speak-test: error: file: field is 1\n"),
        (ValueError("two\nlines"), 2, "speak-test: error: two lines\n"),
        (FileNotFoundError(2, "No such file", "name"), 2, "speak-test: error: name: No such file\n"),
        (OSError(28, "No space left on device"), 2, "speak-test: error: No space left on device\n"),
        (ParityError("differs"), 1, "speak-test: error: differs\n"),
        (MissingExtra("pip install it"), 3, "speak-test: error: pip install it\n"),
        (KeyboardInterrupt(), 130, "speak-test: interrupted\n"),
        (KeyboardInterrupt("step 3 is saved"), 130, "speak-test: interrupted: step 3 is saved\n"),
    ],
)
def test_errors_are_one_line(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(error, []) == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--wings"], "speak-test: error: unrecognized arguments: --wings; speak-test --help lists what there is\n"),
        (["other"], "speak-test: error: argument {part}: invalid choice: 'other' "),
        (
            ["part", "--size", "x"],
            "speak-test part: error: argument --size: invalid int value: 'x'; speak-test part --help",
        ),
    ],
    ids=["unknown", "no such part", "of a part"],
)
def test_a_wrong_flag_is_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="speak-test")
    part = parser.add_subparsers().add_parser("part")
    for number in range(30):
        part.add_argument(f"--flag-{number}")
    part.add_argument("--size", type=int)
    with pytest.raises(SystemExit) as caught:
        run_command(parser, lambda arguments: 0, argv)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "subcommands"), [(["--debug"], False), (["--debug", "part"], True), (["part", "--debug"], True)]
)
def test_debug_shows_the_traceback(argv: list[str], subcommands: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ValueError("wrong"), argv, subcommands) == 2
    assert "Traceback" in capsys.readouterr().err
    assert run(ValueError("wrong"), [a for a in argv if a != "--debug"], subcommands) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_command_line_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="speak-test")
    parser.add_argument("--text")
    assert run_command(parser, lambda a: print(a.command_line) or 0, ["--text", "two words"]) == 0
    assert capsys.readouterr().out == "speak-test --text 'two words'\n"


@pytest.mark.parametrize("lines", [1, 100_000], ids=["fails at the end", "fails on the way"])
def test_a_reader_that_has_enough_is_no_error(lines: int) -> None:
    """`| head` closes the pipe: silence, and the exit code of what was done, if it was."""
    code = f"""
import argparse, sys
from speak_neuro.common.command import run_command

def action(arguments):
    sys.stdin.read()
    print("line\\\\n" * {lines})
    return 1

sys.exit(run_command(argparse.ArgumentParser(), action, []))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    assert child.stdout is not None
    child.stdout.close()
    child.stdout = None
    _, error = child.communicate(b"", timeout=60)
    assert error == b""
    assert child.returncode == (1 if lines == 1 else 141)


@pytest.mark.parametrize("name", ["toaster", "meta", "cuda:-1", "cpu:1", ""])
def test_devices_that_are_none(name: str) -> None:
    with pytest.raises(SpeakError, match=f"--device is '{name}'"):
        choose_device(name)


def test_devices() -> None:
    import torch

    assert choose_device("cpu") == torch.device("cpu")
    there = torch.cuda.is_available()
    assert choose_device("auto").type == ("cuda" if there else "cpu")
    if not there:
        with pytest.raises(SpeakError, match="torch finds no CUDA device; use --device cpu"):
            choose_device("cuda")
    else:
        with pytest.raises(SpeakError, match=r"allowed: cuda:0 to cuda:"):
            choose_device("cuda:99")
