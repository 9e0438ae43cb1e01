"""The paper's data sets from small local files of the hub's shape, and one clear line for each kind of bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from speak_neuro.corpus.named_sets import LIMITS, NAMED, check_name, local_files, named_parts
from speak_neuro.corpus.splits import read_splits
from speak_neuro.errors import SpeakError

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pytest.importorskip("datasets", reason="datasets is not installed")

FINNISH = {
    "train": [
        "\n_START_ARTICLE_\nTurku\n_START_PARAGRAPH_\nKaupunki, 1229._NEWLINE_Åbo",
        "",
        "\n_START_ARTICLE_\nOulu",
    ],
    "validation": ["\n_START_ARTICLE_\nPori\n_START_PARAGRAPH_\nSatakunta"],
    "test": ["\n_START_ARTICLE_\nRauma\n_START_SECTION_\nHistoria"],
}
TRAIN = "turku\nkaupunki yksi kaksi kaksi yhdeksän\nåbo\noulu"


def parquet(path: Path, texts: list[str], column: str = "text") -> None:
    from pyarrow import parquet as files

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"wikidata_id": [f"Q{i}" for i in range(len(texts))], column: texts, "version_id": ["1"] * len(texts)}
    files.write_table(pyarrow.table(rows), path)


def wiki(folder: Path) -> Path:
    """As the hub's parquet branch has it, the train split in two files."""
    parquet(folder / "fi" / "train" / "0000.parquet", FINNISH["train"][:1])
    parquet(folder / "fi" / "train" / "0001.parquet", FINNISH["train"][1:])
    parquet(folder / "fi" / "validation" / "0000.parquet", FINNISH["validation"])
    parquet(folder / "fi" / "test" / "0000.parquet", FINNISH["test"])
    return folder


def test_wiki40b_from_parquet(tmp_path: Path) -> None:
    folder = named_parts("wiki40b:fi", tmp_path / "cache", wiki(tmp_path / "files"))
    assert tuple(read_splits(folder)) == (TRAIN, "pori\nsatakunta", "rauma\nhistoria")
    recipe = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert recipe["dataset"] == "wiki40b:fi"
    assert recipe["characters_before_cleaning"] == LIMITS


def test_wiki40b_from_json_lines_named_by_split(tmp_path: Path) -> None:
    for split, texts in FINNISH.items():
        lines = "".join(json.dumps({"text": text, "wikidata_id": "Q1"}) + "\n" for text in texts)
        (tmp_path / f"{split}-00000-of-00001.jsonl").write_text(lines, encoding="utf-8")
    assert read_splits(named_parts("wiki40b:fi", tmp_path / "cache", tmp_path)).train == TRAIN


def test_json_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    """U+2028, U+2029 and U+0085 stand in a JSON string as they are."""
    for split, texts in FINNISH.items():
        rows = [{"text": text.replace("Turku", "Turku\u2028\u2029\x85")} for text in texts]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    assert read_splits(named_parts("wiki40b:fi", tmp_path / "cache", tmp_path)).train == TRAIN


def test_the_cut_is_before_cleaning(tmp_path: Path) -> None:
    limits = {"train": 30, "valid": 25, "test": 1000}
    folder = named_parts("wiki40b:fi", tmp_path / "cache", wiki(tmp_path / "files"), limits=limits)
    # The cut goes through the second marker of each article, the beginning of which is no text.
    assert tuple(read_splits(folder)) == ("turku", "pori", "rauma\nhistoria")


def test_made_once(tmp_path: Path) -> None:
    files = wiki(tmp_path / "files")
    folder = named_parts("wiki40b:fi", tmp_path / "cache", files)
    (folder / "train.txt").write_text("as it was", encoding="utf-8")
    assert read_splits(named_parts("wiki40b:fi", tmp_path / "cache", files)).train == "as it was"
    parquet(files / "fi" / "train" / "0001.parquet", ["\n_START_ARTICLE_\nVaasa"])
    assert read_splits(named_parts("wiki40b:fi", tmp_path / "cache", files)).train.endswith("vaasa")


def test_hebrew_digits_as_in_dtp(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        parquet(tmp_path / f"{split}.parquet", ["\n_START_ARTICLE_\nשנת 19"])
    cache = tmp_path / "cache"
    ours = named_parts("wiki40b:he", cache, tmp_path)
    theirs = named_parts("wiki40b:he", cache, tmp_path, points_to_spaces=True)
    assert read_splits(ours).train == "שנת אחד תשעה"
    assert read_splits(theirs).train == "שנת א ח ד ת ש ע ה"
    with pytest.raises(SpeakError, match="is for Hebrew, dataset is 'wiki40b:fi'"):
        named_parts("wiki40b:fi", cache, tmp_path, points_to_spaces=True)


PRINTED = {
    "as the set has it": str,
    "printed bytes": lambda text: str(text.encode()),
    "printed bytes in the other quotes": lambda text: 'b"' + str(text.encode())[2:-1] + '"',
    "printed string": repr,
}


@pytest.mark.parametrize("form", PRINTED)
def test_rows_in_their_printed_form_are_read_back(tmp_path: Path, form: str) -> None:
    for split, texts in FINNISH.items():
        parquet(tmp_path / f"{split}.parquet", [PRINTED[form](text) if text else text for text in texts])
    assert read_splits(named_parts("wiki40b:fi", tmp_path / "cache", tmp_path)).train == TRAIN


def test_rows_of_bytes_are_decoded(tmp_path: Path) -> None:
    for split, texts in FINNISH.items():
        parquet(tmp_path / f"{split}.parquet", [text.encode() for text in texts])  # type: ignore[misc]
    assert read_splits(named_parts("wiki40b:fi", tmp_path / "cache", tmp_path)).train == TRAIN


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Turku on kaupunki", "row 2 of train: holds no marker such as _START_ARTICLE_ .'Turku on"),
        ("\\n_START_ARTICLE_\\nTurku", "row 2 of train: holds line ends in their printed form"),
        ("b'\\n_START_ARTICLE_\\nTurku", "row 2 of train: holds line ends in their printed form"),
        (str("\n_START_ARTICLE_\nÄ".encode("latin-1")), "row 2 of train: byte 17 is not UTF-8"),
        ("b'_START_ARTICLE_ isn't bytes'", "row 2 of train: begins like printed bytes and is none"),
    ],
)
def test_rows_that_are_no_article_are_refused(tmp_path: Path, row: str, message: str) -> None:
    for split, texts in FINNISH.items():
        parquet(tmp_path / f"{split}.parquet", [texts[0], row])
    with pytest.raises(SpeakError, match=message):
        named_parts("wiki40b:fi", tmp_path / "cache", tmp_path)


def test_cc100_has_one_split(tmp_path: Path) -> None:
    """Rows are lines that end with a newline; the parts follow one another."""
    rows = [f"Line number {i}.\n" for i in range(12)]
    parquet(tmp_path / "en" / "partial-train" / "0000.parquet", rows)
    limits = {"train": 100, "valid": 30, "test": 30}
    found = read_splits(named_parts("cc100:en", tmp_path / "cache", tmp_path, limits=limits))
    assert found.train.splitlines()[4:] == ["line number four", "line number five", "line"]
    assert found.valid.splitlines() == ["line number seven", "line number eight"]
    assert found.test.splitlines() == ["line number nine", "line number one zero"]


SIZES = {"train": 90, "valid": 5, "test": 5}
TEXT8 = ("the quick brown fox jumps over the lazy dog " * 3)[:100]


@pytest.mark.parametrize("shape", ["file", "folder", "zip", "parquet"])
def test_text8(tmp_path: Path, shape: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    if shape == "zip":
        with zipfile.ZipFile(source / "text8.zip", "w") as archive:
            archive.writestr("text8", TEXT8)
    elif shape == "parquet":
        for split, (start, end) in {"train": (0, 90), "validation": (90, 95), "test": (95, 100)}.items():
            parquet(source / "data" / f"{split}-00000-of-00001.parquet", [TEXT8[start:end]])
    else:
        (source / "text8").write_text(TEXT8, encoding="utf-8")
    files = source / "text8" if shape == "file" else source
    found = read_splits(named_parts("text8", tmp_path / "cache", files, limits=SIZES))
    assert tuple(found) == (TEXT8[:90], TEXT8[90:95], TEXT8[95:])


def bad_files(tmp_path: Path, kind: str) -> tuple[str, Path]:
    if kind == "short text8":
        (tmp_path / "text8").write_text("too short", encoding="utf-8")
    elif kind == "other text8":
        (tmp_path / "text8").write_text(TEXT8[:-1] + "É", encoding="latin-1")
    elif kind == "no column":
        for split in ("train", "validation", "test"):
            parquet(tmp_path / f"{split}.parquet", ["text"], column="content")
    elif kind == "no test":
        for split in ("train", "validation"):
            parquet(tmp_path / f"{split}.parquet", ["text"])
    elif kind == "empty":
        for split in ("train", "validation", "test"):
            parquet(tmp_path / f"{split}.parquet", ["\n_START_ARTICLE_\n...", ""])
    elif kind == "damaged":
        for split in ("train", "validation", "test"):
            (tmp_path / f"{split}.parquet").write_bytes(b"PAR1 and no more")
    elif kind == "missing":
        return "wiki40b:en", tmp_path / "nowhere"
    return ("text8" if "text8" in kind else "wiki40b:en"), tmp_path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("short text8", "has 9 bytes, text8 has 100; give the original"),
        ("other text8", "holds 'É', text8 has a to z and spaces only"),
        (
            "no column",
            "row 1 of train has columns wikidata_id, content, version_id; a column text with strings is needed",
        ),
        ("no test", "holds no file of the test split; it needs train"),
        ("empty", "the train part of wiki40b:en has no text"),
        ("damaged", r"train.parquet: cannot be read .*; give the hub's Parquet or JSON lines"),
        ("missing", "nowhere: no such file or folder; --dataset-files"),
    ],
)
def test_bad_files(tmp_path: Path, kind: str, message: str) -> None:
    name, files = bad_files(tmp_path, kind)
    limits: dict[str, Any] = {"limits": SIZES} if name == "text8" else {}
    with pytest.raises(SpeakError, match=message):
        named_parts(name, tmp_path / "cache", files, **limits)
    assert not list((tmp_path / "cache").rglob("dataset.json"))


def test_the_libraries_say_nothing_beside_the_one_line(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("not JSON\n", encoding="utf-8")
    program = (
        "from pathlib import Path\nfrom speak_neuro.corpus.named_sets import SpeakError, named_parts\n"
        "try: named_parts('wiki40b:fi', Path('cache'), Path('.'))\nexcept SpeakError as error: print(error)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert found.stdout.startswith("train.jsonl: cannot be read (JSON parse error")
    assert found.stdout.count("\n") == 1
    assert found.stderr == ""


def test_a_cache_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SpeakError, match="file is not a folder; choose another place"):
        named_parts("wiki40b:fi", tmp_path / "file", tmp_path)


def test_unknown_names() -> None:
    with pytest.raises(SpeakError, match=r"dataset is 'wiki40b:xx'; allowed: cc100:en, text8, wiki40b:en, "):
        check_name("wiki40b:xx")


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process that may not use the network prints when it asks for each set."""
    folder = tmp_path_factory.mktemp("offline")
    program = (
        "from pathlib import Path\nfrom speak_neuro.corpus.named_sets import NAMED, SpeakError, named_parts\n"
        "for name in sorted(NAMED):\n    print('==', name)\n"
        "    try: named_parts(name, Path('cache'))\n    except SpeakError as error: print(error)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    parts = [part.partition("\n") for part in told.split("== ")[1:]]
    return {name: said for name, _, said in parts}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_without_network_the_message_names_what_local_files_would_do(offline: dict[str, str], name: str) -> None:
    found = offline[name]
    assert found.startswith(f"{NAMED[name].hub}: cannot be had from the hub")
    assert "--dataset-files FOLDER with " in found
    assert found.count("\n") == 1


def test_a_folder_without_files(tmp_path: Path) -> None:
    with pytest.raises(SpeakError, match="no such folder"):
        local_files(tmp_path / "nowhere", NAMED["wiki40b:en"])
