"""Where a text's parts come from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from speak_neuro.corpus.reader import embedded_text
from speak_neuro.corpus.splits import digest, part_files, read_splits, split
from speak_neuro.errors import SpeakError


def write(folder: Path, **parts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in parts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_a_folder_of_parts_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "texts", train="first ", test="last", other="not read", **{name: "second "})
    assert tuple(read_splits(folder)) == ("first ", "second ", "last")


def test_any_other_text_is_cut(tmp_path: Path) -> None:
    text = "a word and\nanother line of them\n\n" * 40
    whole = write(tmp_path / "one", a=text)
    assert read_splits(whole) == read_splits(whole / "a.txt") == split(text)
    assert read_splits(None) == split(embedded_text())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train", "test"), "holds train.txt and no valid.txt or validation.txt; give all three parts"),
        (("train", "valid"), "holds train.txt and no test.txt"),
        (("valid", "test"), "holds valid.txt and no train.txt; give all three parts, or one text's file"),
        (("validation", "other"), "holds validation.txt and no train.txt"),
        (("train", "valid", "validation", "test"), "holds both valid.txt and validation.txt"),
    ],
)
def test_a_folder_with_some_of_the_parts(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    folder = write(tmp_path / "texts", **dict.fromkeys(names, "text"))
    with pytest.raises(SpeakError, match=message):
        part_files(folder)


def test_a_folder_of_texts_with_parts(tmp_path: Path) -> None:
    """Languages in folders, as corpora/make.py writes them: joined, their test parts would be trained on."""
    (tmp_path / "ui").mkdir()
    for language in ("fi", "en"):
        write(tmp_path / "ui" / language, train="text", valid="text", test="text")
    with pytest.raises(SpeakError, match=r"in folders below; name one of them, such as /\S+/ui/en$"):
        part_files(tmp_path)
    assert part_files(tmp_path / "ui" / "fi") is not None


def test_digest_does_not_depend_on_the_pieces() -> None:
    text = "à la carte, ничего"
    assert digest([text]) == digest([text[:3], "", text[3:]]) == hashlib.sha256(text.encode()).hexdigest()
