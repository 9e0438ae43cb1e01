"""Files and folders whose names are not UTF-8, as old disks have them: all works, JSON has escapes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import EXPERIMENTS, load
from tiny import TINY_FLAGS, run_gtok

from speak_neuro import cli
from speak_neuro.common.files import atomic_write, legible, utf8_path, write_json
from speak_neuro.export.cli import main as export

ODD = os.fsdecode(b"na\xefve")
"""In Latin-1 a word, in UTF-8 an error."""


@pytest.fixture
def odd(tmp_path: Path, tiny_run: Path) -> Path:
    """A folder of such a name with a run and a text."""
    folder = tmp_path / ODD
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    shutil.copytree(tiny_run, folder / "run\udcef")
    (folder / "text\udcef.txt").write_text("A line of text.\nAnother, é.\n", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def own_output() -> Iterator[None]:
    """What is printed holds the bytes of the names, which pytest's capture does not take."""
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")):
        yield


def command(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, env=environment, timeout=300)


def held(path: Path) -> tuple[bytes, dict[str, object]]:
    return path.read_bytes(), json.loads(path.read_text(encoding="utf-8"))


def test_tokenizing(odd: Path) -> None:
    run, text = odd / "run\udcef", odd / "text\udcef.txt"
    assert cli.main(["--run", str(run), str(text), "--out", str(odd / "o\udcef"), "--json", str(odd / "j\udcef")]) == 0
    raw, record = held(odd / "j\udcef")
    assert b"na\\udcefve" in raw, "JSON's own escape"
    assert str(text) in str(record["command"]), "and what it stands for is the name"
    assert (odd / "o\udcef").read_text(encoding="utf-8").count("\n") == 2


def test_the_export_and_its_table(odd: Path) -> None:
    run, text = odd / "run\udcef", odd / "text\udcef.txt"
    assert export(["--run", str(run), "--text", str(text), "--json", str(odd / "e.json")]) == 0
    from speak_neuro.export.files.neuron_file import read_neuron

    assert read_neuron(run / "boundary.nir").metadata["run"] == r"run\udcef"


def test_training_says_where_its_run_is_in_the_bytes_of_the_name(odd: Path, excerpt: Path) -> None:
    data = odd / "long\udcef.txt"
    shutil.copy(excerpt, data)
    flags = ["--data", str(data), "--out", str(odd / "new\udcef"), "--steps", "4"]
    done = command(EXPERIMENTS / "gtok.py", *TINY_FLAGS, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b"run folder " + os.fsencode(odd / "new\udcef") + b"\n")
    assert run_gtok(*flags[:-1], "6", "--resume", curves=True) == 0
    assert (odd / "new\udcef" / "curves.png").is_file()
    _, record = held(odd / "new\udcef" / "results.json")
    assert record["metrics"]["data"]["source"] == str(data)  # type: ignore[index]


def test_tables_and_pictures_of_such_runs(odd: Path) -> None:
    run = odd / "run\udcef"
    for file in ("config.json", "results.json"):
        content = (run / file).read_text(encoding="utf-8").replace("excerpt", "text\\udcef")
        (run / file).write_text(content, encoding="utf-8")
    assert load("compare/collect").main([str(run), "--json", str(odd / "c\udcef")]) == 0
    assert load("compare/tables").main([str(odd / "c\udcef"), "--out", str(odd / "t\udcef")]) == 0
    assert r"text\udcef" in (odd / "t\udcef").read_text(encoding="utf-8")
    assert load("compare/plot").main([str(odd / "c\udcef"), "--out", str(odd / "p")]) == 0


def test_errors_name_the_file_in_a_line(odd: Path) -> None:
    done = command("-m", "speak_neuro.cli", "--run", odd / "run\udcef", odd / "nothing")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"na\\udcefve/nothing: no such file" in done.stderr


def test_libraries_that_open_utf8_names_only_get_one(odd: Path) -> None:
    with utf8_path(odd / "text\udcef.txt") as name:
        assert name == legible(name)
        assert Path(name).read_bytes() == (odd / "text\udcef.txt").read_bytes()
    assert not Path(name).exists()
    with utf8_path("plain") as name:
        assert name == "plain"


def test_text_files_are_utf8_whatever_they_say(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "x.md", "w") as stream:
        stream.write(f"# {ODD} é\n")
    assert (tmp_path / "x.md").read_bytes() == rb"# na\udcefve " + "é\n".encode()
    write_json(tmp_path / "x.json", {ODD: [ODD]})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {ODD: [ODD]}
