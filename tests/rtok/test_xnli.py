"""XNLI from local files and hub ids: the pairs, and one clear line for each kind of bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.tasks import xnli
from speak_neuro.rtok.text.normalise import normalise

SAMPLES = Path(__file__).parents[1] / "golden" / "xnli"


def test_json_lines() -> None:
    pairs = xnli.load(SAMPLES, "de", "validation")
    assert [p.labels for p in pairs] == [(0,), (1,), (2,)]
    assert pairs[0].texts == (("▁Der▁Zug▁fuhr▁zehn▁Minuten▁zu▁spät▁ab.",), ("▁Der▁Zug▁war▁unpünktlich.",))


def test_parquet_as_the_hub_stores_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets: pip install 'speak-neuro[hf]'")
    lines = (SAMPLES / "en" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    text = datasets.Value("string")
    features = datasets.Features(premise=text, hypothesis=text, label=datasets.ClassLabel(names=list(xnli.LABELS)))
    (tmp_path / "en").mkdir()
    data = datasets.Dataset.from_list([json.loads(line) for line in lines], features=features)
    data.to_parquet(tmp_path / "en" / "train-00000-of-00001.parquet")
    assert xnli.load(tmp_path, "en", "train") == xnli.load(SAMPLES, "en", "train")
    assert len(xnli.load(tmp_path, "en", "train", limit=5)) == 5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"premise": "a", "label": 0}, "column 'hypothesis' is missing, found label, premise"),
        ({"premise": "a", "hypothesis": "b", "label": 3}, "row 1: label 3 is outside the set; allowed: 0 to 2"),
        ({"premise": "a", "hypothesis": "b", "label": -1}, "row 1: label -1 is outside the set"),
        ({"premise": "a", "hypothesis": "b", "label": "maybe"}, "row 1: label 'maybe' is outside the set"),
        ({"premise": "a", "hypothesis": None, "label": 0}, "row 1: hypothesis is NoneType; allowed: a string"),
        ({"premise": " \t", "hypothesis": "b", "label": 0}, "row 1: premise: the sentence is empty"),
        ({"premise": "a " + "b" * 100_000, "hypothesis": "b", "label": 0}, "word 2 has 100,000 characters"),
        ("text", "line 1 holds str; allowed: an object"),
    ],
)
def test_bad_rows(tmp_path: Path, row: object, message: str) -> None:
    (tmp_path / "en-train.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(SpeakError) as caught:
        xnli.load(tmp_path, "en", "train")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("en-train.jsonl", b"{", "line 1: not valid JSON"),
        ("en-train.jsonl", b"\xff", "line 1, byte 0 is not UTF-8"),
        ("en-train.jsonl", b"", "holds no pair"),
        ("en-train.parquet", b"no parquet", "not a Parquet file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpeakError) as caught:
        xnli.load(tmp_path, "en", "train")
    assert message in str(caught.value)


def pair(premise: str, **more: object) -> dict[str, object]:
    return {"premise": premise, "hypothesis": "b", "label": 0, **more}


def test_line_separators_within_strings(tmp_path: Path) -> None:
    """Only a line feed ends a row; the standard library's reader of one value is the judge of what a row holds."""
    raw = "a\u2028b\u2029c\x85d"
    lines = [json.dumps(pair(raw), ensure_ascii=False), json.dumps(pair("x\x0by"), ensure_ascii=False)]
    assert "\u2028" in lines[0]
    (tmp_path / "en-train.jsonl").write_bytes(("\r\n".join(lines) + "\r\n\n").encode())
    found = xnli.load(tmp_path, "en", "train")
    assert [p.texts[0] for p in found] == [(normalise(json.loads(line)["premise"]),) for line in lines]
    assert found[0].texts[0] == ("▁a▁b▁c\x85d",)


def test_every_row_is_checked(tmp_path: Path) -> None:
    rows = [json.dumps(pair("a")), "", json.dumps({"premise": "a", "hypothesis": "b"})]
    (tmp_path / "en-train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(
        SpeakError, match=r"en-train.jsonl: line 3: column 'label' is missing, found hypothesis, premise"
    ):
        xnli.load(tmp_path, "en", "train")


@pytest.mark.parametrize("other", ["en/validation.jsonl", "en/dev.jsonl", "en-validation.jsonl"])
def test_a_split_that_is_there_twice(tmp_path: Path, other: str) -> None:
    """Its rows would be read twice."""
    (tmp_path / "en").mkdir()
    first = "en-dev.jsonl" if other.startswith("en/") else "en/validation.jsonl"
    for name in (first, other):
        (tmp_path / name).write_text(json.dumps(pair("a")), encoding="utf-8")
    with pytest.raises(SpeakError, match=r"holds split 'validation' of 'en' as .* and as .*; leave one of them there"):
        xnli.load(tmp_path, "en", "validation")


def test_files_with_labels_in_two_orders(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets: pip install 'speak-neuro[hf]'")
    text = datasets.Value("string")
    (tmp_path / "en").mkdir()
    for shard, order in enumerate((list(xnli.LABELS), list(reversed(xnli.LABELS)))):
        features = datasets.Features(premise=text, hypothesis=text, label=datasets.ClassLabel(names=order))
        data = datasets.Dataset.from_list([pair("a")], features=features)
        data.to_parquet(tmp_path / "en" / f"train-0000{shard}-of-00002.parquet")
    with pytest.raises(SpeakError, match=r"train-00001-of-00002.parquet: its labels are .*; give them one order"):
        xnli.load(tmp_path, "en", "train")


def test_an_unknown_language_names_those_there_are() -> None:
    with pytest.raises(SpeakError, match=r"language is 'xx', unknown to XNLI; allowed: ar, bg, de"):
        xnli.load(SAMPLES, "xx", "train")


def test_no_such_source() -> None:
    with pytest.raises(SpeakError, match=r"no such folder, and not a hub id owner/name; give a folder that holds en/"):
        xnli.load("./nowhere", "en", "train")


def test_without_network_a_local_folder_is_named(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs datasets: pip install 'speak-neuro[hf]'")
    program = (
        "from speak_neuro.rtok.tasks import xnli\nfrom speak_neuro.errors import SpeakError\n"
        "try:\n    xnli.load(xnli.HUB, 'en', 'validation')\nexcept SpeakError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("facebook/xnli: cannot be fetched ("), done.stderr
    assert done.stdout.endswith("give a folder that holds en/validation*.parquet, or .jsonl, or en-validation.jsonl\n")


def test_parquet_with_a_text_that_is_no_utf8(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'speak-neuro[hf]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "en" / "train.parquet"
    path.parent.mkdir()
    table = pyarrow.table({"premise": ["a plain text"], "hypothesis": ["b"], "label": [0]})
    parquet.write_table(table, path, compression="none", write_statistics=False)
    whole = path.read_bytes()
    assert b"a plain text" in whole
    path.write_bytes(whole.replace(b"a plain text", b"a \xff\xfeain text"))
    with pytest.raises(SpeakError, match=r"train\.parquet: a text is not UTF-8"):
        xnli.load(tmp_path, "en", "train")
