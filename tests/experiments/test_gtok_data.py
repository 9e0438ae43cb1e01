"""Which text gtok.py reads: data sets by name, parts, unseen characters, one clear line for each kind of bad input."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Gtok = Callable[..., int]


def write_parts(folder: Path, train: str, valid: str, test: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in (("train", train), ("valid", valid), ("test", test)):
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def metrics(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "results.json").read_text(encoding="utf-8"))["metrics"])


def test_unseen_characters_are_scored_as_unknown_and_counted(
    gtok: Gtok, tmp_path: Path, excerpt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = excerpt.read_text(encoding="utf-8")
    test = "字" + text[7000:7500] + "字ж"
    data = write_parts(tmp_path / "parts", text[:6000], text[6000:7000], test)
    unseen = sum(character not in text[:6000] for character in test)
    for flags in ([], ["--stream"]):
        run = tmp_path / f"run{len(flags)}"
        assert gtok("--data", str(data), "--out", str(run), "--steps", "3", *flags) == 0
        found = metrics(run)
        assert found["test_unknown_characters"] == unseen >= 3
        assert found["test_characters"] == 503
        assert f" tokens, {unseen} characters unknown to the alphabet)" in capsys.readouterr().out
        assert math.isfinite(float(str(found["test_bpc"])))


def test_an_exemplar_of_another_alphabet_is_refused(
    gtok: Gtok, tmp_path: Path, tiny_run: Path, excerpt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("съешь ещё этих мягких французских булок, да выпей же чаю\n" * 200, encoding="utf-8")
    assert gtok("--data", str(other), "--out", str(tmp_path / "run"), "--steps", "2") == 0
    for flags in (
        ["--data", str(other), "--exemplar", str(tiny_run / "exemplar.json")],
        ["--data", str(excerpt), "--exemplar", str(tmp_path / "run" / "exemplar.json"), "--stream"],
    ):
        capsys.readouterr()
        assert gtok(*flags, "--out", str(tmp_path / "new")) == 2
        assert "% of the characters at the text's start; give the exemplar of a run on such" in capsys.readouterr().err
        assert not (tmp_path / "new").exists()
    given = ["--exemplar", str(tiny_run / "exemplar.json")]
    assert gtok("--data", str(excerpt), "--out", str(tmp_path / "new"), "--steps", "2", *given) == 0
    assert gtok("--resume", "--out", str(tmp_path / "new"), "--steps", "3", *given) == 0
    given = ["--exemplar", str(tmp_path / "run" / "exemplar.json")]
    assert gtok("--resume", "--out", str(tmp_path / "new"), "--steps", "3", *given) == 2
    assert "has an exemplar of its own" in capsys.readouterr().err


def finnish(folder: Path, excerpt: Path) -> Path:
    """Local files of wiki40b's shape, as JSON lines, which need no further library to be written."""
    text = excerpt.read_text(encoding="utf-8")
    folder.mkdir()
    for split, (start, end) in {"train": (0, 9000), "validation": (9000, 9500), "test": (9500, 10000)}.items():
        rows = [{"text": f"\n_START_ARTICLE_\n{text[at : at + 250]}"} for at in range(start, end, 250)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}-00000-of-00001.jsonl").write_text(lines, encoding="utf-8")
    return folder


def test_a_data_set_by_name(gtok: Gtok, tmp_path: Path, excerpt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("datasets", reason="datasets is not installed")
    files, run = finnish(tmp_path / "files", excerpt), tmp_path / "runs" / "fi"
    flags = ["--dataset", "wiki40b:fi", "--dataset-files", str(files), "--out", str(run), "--steps", "4"]
    assert gtok(*flags, "--stop-after", "2") == 0
    assert gtok(*flags, "--resume") == 0
    assert metrics(run)["data"]["source"] == "wiki40b:fi"  # type: ignore[index]
    cleaned = (tmp_path / "runs" / "cache" / "wiki40b-fi-local" / "train.txt").read_text(encoding="utf-8")
    assert set(cleaned) <= set("abcdefghijklmnopqrstuvwxyzåäö \n")
    capsys.readouterr()
    assert gtok("--out", str(run), "--resume") == 2
    assert "was trained on the data set wiki40b:fi; resume it with" in capsys.readouterr().err


@pytest.mark.slow
def test_without_network_one_line_says_so(tmp_path: Path) -> None:
    """None for each of the client's retries, which take half a minute."""
    pytest.importorskip("datasets", reason="datasets is not installed")
    done = subprocess.run(
        [sys.executable, "experiments/gtok.py", "--dataset", "wiki40b:fi", "--out", str(tmp_path / "run"), "--quiet"],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "without network give local files of its shape: --dataset-files FOLDER" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "wiki40b:xx"], "dataset is 'wiki40b:xx'; allowed: cc100:en, text8, wiki40b:en, wiki40b:fi"),
        (["--dataset", "text9"], "dataset is 'text9'; allowed: "),
        (["--dataset", "text8", "--data", "x.txt"], "--data and --dataset exclude each other; give one"),
        (["--dataset", "text8", "--dataset-files", "nowhere"], "nowhere: no such file or folder"),
        (["--dataset", "wiki40b:fi", "--dtp-hebrew-digits"], "is for Hebrew, dataset is 'wiki40b:fi'"),
        (["--dataset-files", "x"], "--dataset-files belongs to --dataset"),
        (["--dtp-hebrew-digits"], "--dtp-hebrew-digits belongs to --dataset"),
        (["--stream"], "--stream is for a text from --data or --dataset"),
    ],
)
def test_bad_flags(
    gtok: Gtok, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gtok("--out", str(tmp_path / "run"), *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            ("x" * 900, "x" * 90, "x" * 90),
            "the training part has one distinct character, 'x'; give a text",
        ),
        (("a b " * 60, "a b", "a b"), "the training part has 240 characters, a batch of 4 windows needs 260"),
        (("a b " * 90, "a", "a b"), "the valid part has 1 characters, it needs 2"),
        (("a b " * 90, "a b", "é"), "the test part has 1 characters, it needs 2"),
        (("a b " * 90, "", "a b"), "valid.txt: the text is empty"),
        ((" \n" * 300, "a b", "a b"), "the text for the Unigram exemplar is empty or white space"),
    ],
    ids=["one character", "less than a batch", "valid", "test", "empty", "white space"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["memory", "stream"])
def test_bad_parts(
    gtok: Gtok,
    tmp_path: Path,
    parts: tuple[str, str, str],
    message: str,
    stream: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_parts(tmp_path / "parts", *parts)
    flags = ["--data", str(data), "--out", str(tmp_path / "run"), *(["--stream"] if stream else [])]
    assert gtok(*flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
