"""UNER from every kind of source: the sentences, and one clear line for each kind of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rtok_fixtures import UNER

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.tasks import uner

SAMPLES = Path(__file__).parents[1] / "golden" / "uner"


def test_iob2() -> None:
    sentences = uner.read(SAMPLES, "en_ewt", "train")
    assert len(sentences) == 12
    assert sentences[0].words == ("Anna", "Weber", "moved", "to", "Porto", "last", "spring", ".")
    assert [uner.LABELS[label] for label in sentences[0].labels[:5]] == ["B-PER", "I-PER", "O", "O", "B-LOC"]


def test_a_word_may_be_the_sign_of_a_comment() -> None:
    assert uner.read(SAMPLES, "en_ewt", "train")[1].words[1] == "#"


MARKED = """# newdoc id = d1
# sent_id = 1
# text = Ana\tcorre\tO
0.1\t_\tO\t-\tx
1\tVamos\tO\t-\tx
2-3\tdo\tO\t-\tx
2\tde\tO\t-\tx
3\to\tO\t-\tx
3.1\t_\tB-PER\t-\tx
4\t#\tO\t-\tx
5\tPorto\u2028\x85\tB-LOC\t-\tx

# text = two\tfields
1\t2-3\tO\t-\tx

"""


def conllu_words(text: str) -> list[list[tuple[str, str]]]:
    """Words and tags as the package conllu reads them: ranges and empty nodes have an id that is no number."""
    conllu = pytest.importorskip("conllu", reason="conllu is not installed")
    fields = ("id", "form", "tag", "misc", "annotator")
    parsers = {"tag": lambda line, i: line[i], "misc": lambda line, i: line[i], "form": lambda line, i: line[i]}
    sentences = conllu.parse(text, fields=fields, field_parsers=parsers)
    return [[(t["form"], t["tag"]) for t in s if isinstance(t["id"], int)] for s in sentences]


def test_words_are_those_of_conllu(tmp_path: Path) -> None:
    (tmp_path / "pt_pud-ud-test.iob2").write_bytes(MARKED.encode())
    found = uner.read(tmp_path, "pt_pud", "test")
    assert found[0].words == ("Vamos", "de", "o", "#", "Porto\u2028\x85")
    assert [s.words for s in found[1:]] == [("2-3",)]
    ours = [[(w, uner.LABELS[k]) for w, k in zip(s.words, s.labels, strict=True)] for s in found]
    assert ours == conllu_words(MARKED)


@pytest.mark.parametrize("file", sorted(SAMPLES.glob("*.iob2")) + sorted(UNER.glob("*.iob2")), ids=lambda p: p.name)
def test_whole_files_as_conllu_reads_them(file: Path) -> None:
    ours = [[(w, uner.LABELS[k]) for w, k in zip(s.words, s.labels, strict=True)] for s in uner.read_iob2(file)]
    assert ours == conllu_words(file.read_text(encoding="utf-8"))


def test_dev_and_validation_are_one_split(tmp_path: Path) -> None:
    for name in ("dev", "validation"):
        (tmp_path / f"en_ewt-ud-{name}.iob2").write_text("1\ta\tO\n", encoding="utf-8")
    with pytest.raises(SpeakError, match=r"validation.iob2: is the same split as en_ewt-ud-dev.iob2; leave one"):
        uner.read(tmp_path, "en_ewt", "dev")
    assert uner.read(SAMPLES, "en_ewt", "validation") == uner.read(SAMPLES, "en_ewt", "dev")


def test_windows_lines_and_no_last_blank_line(tmp_path: Path) -> None:
    (tmp_path / "de_pud-ud-test.iob2").write_bytes("# x\r\n1\tLübeck\tB-LOC\t-\tx\r\n\r\n1\tja\tO\t-\tx".encode())
    found = uner.read(tmp_path, "de_pud", "test")
    assert [s.words for s in found] == [("Lübeck",), ("ja",)]
    assert [s.labels for s in found] == [(5,), (0,)]


def as_rows(name: str, split: str) -> list[dict[str, object]]:
    return [
        {"idx": str(k), "text": " ".join(s.words), "tokens": list(s.words), "ner_tags": list(s.labels)}
        for k, s in enumerate(uner.read(SAMPLES, name, split))
    ]


def contents(sentences: list[uner.Tagged]) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    return [(s.words, s.labels) for s in sentences]


@pytest.mark.parametrize("place", ["en_ewt/train.jsonl", "en_ewt-train.jsonl"])
@pytest.mark.parametrize("names", [True, False])
def test_json_lines(tmp_path: Path, place: str, names: bool) -> None:
    rows = as_rows("en_ewt", "train")
    if names:
        for row in rows:
            row["ner_tags"] = [uner.LABELS[label] for label in row["ner_tags"]]  # type: ignore[attr-defined]
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    assert contents(uner.read(tmp_path, "en_ewt", "train")) == contents(uner.read(SAMPLES, "en_ewt", "train"))


@pytest.mark.parametrize("order", [uner.LABELS, tuple(reversed(uner.LABELS))], ids=["the usual order", "another order"])
def test_parquet_as_the_hub_stores_it(tmp_path: Path, order: tuple[str, ...]) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets: pip install 'speak-neuro[hf]'")
    rows = as_rows("en_ewt", "dev")
    for row in rows:
        row["ner_tags"] = [order.index(uner.LABELS[label]) for label in row["ner_tags"]]  # type: ignore[attr-defined]
    text = datasets.Value("string")
    labels = datasets.Sequence(datasets.ClassLabel(names=list(order)))
    features = datasets.Features(idx=text, text=text, tokens=datasets.Sequence(text), ner_tags=labels)
    (tmp_path / "en_ewt").mkdir()
    for shard in range(2):
        datasets.Dataset.from_list(rows[shard::2], features=features).to_parquet(
            tmp_path / "en_ewt" / f"validation-0000{shard}-of-00002.parquet"
        )
    found = contents(uner.read(tmp_path, "en_ewt", "dev"))
    expected = contents(uner.read(SAMPLES, "en_ewt", "dev"))
    assert found == expected[0::2] + expected[1::2]


def test_examples_are_normalised() -> None:
    example = uner.load(SAMPLES, "de_pud", "test")[0]
    assert example.texts == (("▁Jonas", "▁Ritter", "▁wohnt", "▁in", "▁Lübeck", "▁."),)
    assert example.labels == (1, 2, 0, 0, 5, 0)
    assert [e.identifier for e in uner.load(SAMPLES, "en_ewt", "train", limit=3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no sentence"),
        ("# sent_id = 1\n\n1\ta\tO\n", "the sentence at line 1: the sentence is empty"),
        ("1\tParis\tB-CITY\t-\tx\n", "line 1: label 'B-CITY' is outside the set; allowed: O, B-PER"),
        ("1\tParis\n", "line 1 has 2 columns; needed: index, word, tag"),
        ("1\t" + "a" * 100_000 + "\tO\t-\tx\n", "word 1 has 100,000 characters; allowed: at most 1,000"),
        ("1\t\tO\t-\tx\n", "the sentence at line 1: "),
        ("1\ta\tO\n  \n", "line 2 has 1 columns; needed: index, word, tag"),
        ("1\ta\tO\nwhat is this\n", "line 2 has 1 columns; needed: index, word, tag"),
        ("1\ta\tO\n3\tb\tO\n", "line 2 has index '3'; allowed here: 2, a range from 2 on, an empty node 1.1, or a"),
        ("1\ta\tO\nx\tb\tO\n", "line 2 has index 'x'; allowed here: 2"),
        ("1\ta\tO\n1-2\tb\tO\n", "line 2 has index '1-2'; allowed here: 2"),
        ("1\ta\tO\n3.1\tb\tO\n", "line 2 has index '3.1'; allowed here: 2"),
    ],
    ids=[
        "nothing",
        "empty sentence",
        "unknown label",
        "columns",
        "long word",
        "empty word",
        "white space",
        "prose",
        "a gap",
        "no index",
        "a range that is over",
        "an empty node to come",
    ],
)
def test_bad_iob2(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "en_ewt-ud-dev.iob2").write_text(content, encoding="utf-8")
    with pytest.raises(SpeakError) as caught:
        uner.load(tmp_path, "en_ewt", "dev")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a"]}, "column 'ner_tags' is missing, found tokens; needed: tokens, ner_tags"),
        ({"tokens": ["a"], "ner_tags": [7]}, "row 1: label 7 is outside the set; allowed: 0 to 6"),
        ({"tokens": ["a"], "ner_tags": ["B-CITY"]}, "row 1: label 'B-CITY' is outside the set"),
        ({"tokens": ["a"], "ner_tags": [True]}, "row 1: label True is no name and no number"),
        ({"tokens": ["a", "b"], "ner_tags": [0]}, "row 1: 2 tokens and 1 ner_tags"),
        ({"tokens": [], "ner_tags": []}, "row 1: the sentence is empty"),
        ({"tokens": "a", "ner_tags": [0]}, "row 1: tokens and ner_tags are not lists"),
    ],
)
def test_bad_rows(tmp_path: Path, row: dict[str, object], message: str) -> None:
    (tmp_path / "en_ewt-test.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(SpeakError) as caught:
        uner.read(tmp_path, "en_ewt", "test")
    assert message in str(caught.value)


def test_an_unknown_set_names_those_there_are() -> None:
    with pytest.raises(SpeakError, match=r"set is 'xx_none', unknown to UNER; allowed: ceb_gja"):
        uner.read(SAMPLES, "xx_none", "dev")


def test_a_missing_split_says_which_file_would_do() -> None:
    with pytest.raises(SpeakError, match=r"holds no split 'test' of 'sk_snk'; give a folder that holds sk_snk/test"):
        uner.read(SAMPLES, "sk_snk", "test")


@pytest.mark.skipif(not UNER.is_dir(), reason="no UNER files: SPEAK_UNER names no folder with them")
def test_counts_of_the_real_data() -> None:
    expected = {("en_ewt", "dev"): 2001, ("en_ewt", "test"): 2077, ("pt_bosque", "train"): 7018}
    expected |= {
        ("pt_bosque", "dev"): 1172,
        ("de_pud", "test"): 1000,
        ("ru_pud", "test"): 1000,
        ("pt_pud", "test"): 1000,
    }
    assert {key: len(uner.read(UNER, *key)) for key in expected} == expected
