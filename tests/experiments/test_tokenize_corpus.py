"""A corpus of text and Parquet: the same bytes by any number of workers and by a cluster, and nothing done twice."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scripts import load as load_script
from table_fixtures import make_table

from speak_neuro.table import shards
from speak_neuro.table.tokenizer import load
from speak_neuro.table.vocabulary import Vocabulary
from speak_neuro.text import segments
from speak_neuro.text.lines import read_lines

pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install 'speak-neuro[scale]'")
parquet = pytest.importorskip("pyarrow.parquet")

LINES = [f"line {k}, שלום é 𝔸 " + "the end. " * (k % 7) for k in range(300)] + ["", "\r", "last\x00"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("tokenize_corpus")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, a vocabulary, and a folder with a text and a Parquet file."""
    folder = tmp_path_factory.mktemp("corpus")
    make_table().save(folder / "table")
    counts = {token.encode(): 5 for token in load(folder / "table").tokens(LINES[5] * 3)}
    Vocabulary.build(counts, 300).save(folder / "vocabulary")
    (folder / "in").mkdir()
    (folder / "in" / "a.txt").write_bytes("\n".join(LINES).encode())
    rows = pyarrow.table({"text": [*LINES[:200], None, ""], "other": list(range(202))})
    parquet.write_table(rows, folder / "in" / "b.parquet", row_group_size=37)
    (folder / "in" / "ignored.csv").write_text("not taken", encoding="utf-8")
    return folder


LAYOUTS = {
    "large_string": lambda: pyarrow.large_string(),
    "string_view": lambda: pyarrow.string_view(),
    "categories": lambda: pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_text_in_any_layout(script: ModuleType, corpus: Path, tmp_path: Path, layout: str) -> None:
    """Whatever pandas, polars or DuckDB choose to keep a string in: the same tokens as of plain strings."""
    found = []
    for kind in (pyarrow.string(), LAYOUTS[layout]()):
        column = pyarrow.array([*LINES[:60], None, "", *LINES[:60]], pyarrow.string()).cast(kind)
        folder = tmp_path / str(len(found))
        folder.mkdir()
        parquet.write_table(pyarrow.table({"text": column}), folder / "a.parquet", row_group_size=50)
        assert parquet.read_schema(folder / "a.parquet").field("text").type == kind
        flags = [str(folder), "--table", str(corpus / "table"), "--out", str(folder / "out"), "--quiet"]
        assert script.main(flags) == 0
        found.append(documents(folder / "out"))
    assert found[0] == found[1]
    assert len(found[0]) == 122


SMALL = ("--shard-bytes", "2000", "--shard-rows", "80", "--quiet")


def run(script: ModuleType, corpus: Path, out: Path, *flags: str) -> int:
    code = script.main([str(corpus / "in"), "--table", str(corpus / "table"), "--out", str(out), *SMALL, *flags])
    assert isinstance(code, int)
    return code


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def documents(folder: Path) -> list[dict[str, object]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def done(script: ModuleType, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done") / "out"
    assert run(script, corpus, out, "--workers", "1") == 0
    return out


def test_every_document_once(corpus: Path, done: Path) -> None:
    tokenizer = load(corpus / "table", backend="numpy")
    found = documents(done)
    texts: list[str | None] = [*LINES, *LINES[:200], None, ""]
    assert len(found) == len(texts)
    for row, text in zip(found, texts, strict=True):
        expected = None if text is None else tokenizer.spans(text)[:, 1].tolist()
        assert row["ends"] == expected
        assert row["tokens"] == len(expected or [])
        assert row["characters"] == len(text or "")
    starts = np.cumsum([0, *(len(line.encode()) + 1 for line in LINES)])[:-1]
    assert [row["row"] for row in found] == [*starts.tolist(), *range(202)]
    summary = json.loads((done / "summary.json").read_text(encoding="utf-8"))
    assert summary["documents"] == len(texts)
    assert summary["tokens"] == sum(row["tokens"] for row in found)  # type: ignore[misc]
    assert summary["shards"] == len(list(done.glob("*.parquet"))) > 5


def test_ids(script: ModuleType, corpus: Path, tmp_path: Path) -> None:
    flags = ("--output", "ids", "--vocabulary", str(corpus / "vocabulary"), "--workers", "1")
    assert run(script, corpus, tmp_path / "out", *flags) == 0
    vocabulary = Vocabulary.load(corpus / "vocabulary")
    found = documents(tmp_path / "out")
    assert [vocabulary.decode(row["ids"]) for row in found[: len(LINES)]] == LINES
    assert found[-2]["ids"] is None
    assert max(max(row["ids"] or [0]) for row in found) >= 256  # type: ignore[call-overload]


def test_byte_ends(script: ModuleType, corpus: Path, done: Path, tmp_path: Path) -> None:
    assert run(script, corpus, tmp_path / "out", "--unit", "byte", "--workers", "1") == 0
    for line, row, by_character in zip(LINES, documents(tmp_path / "out"), documents(done), strict=False):
        ends = np.array(by_character["ends"], dtype=np.int64)
        assert row["ends"] == segments.byte_spans(line, np.stack([ends, ends], 1))[:, 1].tolist()


def test_processes_write_the_same_bytes(script: ModuleType, corpus: Path, done: Path, tmp_path: Path) -> None:
    assert run(script, corpus, tmp_path / "out", "--workers", "2") == 0
    assert contents(tmp_path / "out") == contents(done)


def test_resume(script: ModuleType, corpus: Path, done: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(script, corpus, out, "--workers", "1") == 0
    kept = sorted(out.glob("*.parquet"))
    times = {path: path.stat().st_mtime_ns for path in kept}
    for path in (kept[1], kept[-1], out / "summary.json"):
        path.unlink()
    (out / ".shard-000001.parquet.abc.tmp").write_bytes(b"half")
    assert run(script, corpus, out, "--workers", "1") == 0
    assert contents(out) == contents(done)
    again = {path for path in kept if path.stat().st_mtime_ns != times[path]}
    assert again == {kept[1], kept[-1]}


def test_another_runs_shards_are_not_mixed(
    script: ModuleType, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(script, corpus, out, "--workers", "1") == 0
    before = contents(out)
    assert run(script, corpus, out, "--unit", "byte") == 2
    assert "holds the shards of another run" in capsys.readouterr().err
    assert contents(out) == before
    assert run(script, corpus, out, "--unit", "byte", "--overwrite", "--workers", "1") == 0
    assert contents(out).keys() == before.keys()
    assert contents(out)["plan.json"] != before["plan.json"]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_lines_across_shards(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.txt"
    for raw in (b"", b"\n", b"\n\n\n", b"one\ntwo", b"a\n\nlonger line\nb\n", "é\n漢字\n".encode()):
        path.write_bytes(raw)
        parts = shards.plan([path], tmp_path, "text", size, 1)
        found = [text for part in parts for _, text in shards._lines(part)]
        assert found == list(read_lines(io.BytesIO(raw), "x"))


@pytest.mark.parametrize(
    ("name", "content", "flags", "message"),
    [
        ("a.parquet", b"PAR1 but no more", (), "a.parquet: not a whole Parquet file"),
        ("a.parquet", None, ("--column", "body"), "no column 'body'; --column one of: text, number"),
        ("a.parquet", None, ("--column", "number"), "column 'number' is int64; allowed: string"),
        ("a.txt", b"fine\nbad \xc3( here\n", (), "a.txt: invalid UTF-8 at byte 9 (0xc3)"),
        ("a.txt", b"x", ("--output", "ids"), "--output ids needs --vocabulary"),
        ("a.txt", b"x", ("--json", "."), ".: is a folder; name a file to write"),
        ("a.txt", b"x", ("--workers", "-1"), "--workers is -1; allowed: at least 0"),
        ("a.txt", b"x", ("--shard-bytes", "0"), "--shard-bytes is 0; allowed: at least 1"),
        ("none.txt", b"", ("gone",), "gone: no such file or folder"),
    ],
)
def test_bad_input(
    script: ModuleType,
    corpus: Path,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    flags: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / name
    if content is None:
        parquet.write_table(pyarrow.table({"text": ["a"], "number": [1]}), path)
    else:
        path.write_bytes(content)
    arguments = [str(path), *flags, "--table", str(corpus / "table"), "--out", str(tmp_path / "out"), "--quiet"]
    if flags and not flags[0].startswith("-"):
        arguments = [*flags, *arguments]
    assert script.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_a_missing_extra(
    script: ModuleType,
    corpus: Path,
    tmp_path: Path,
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert run(script, corpus, tmp_path / "out", "--engine", "ray") == 3
    error = capsys.readouterr().err
    assert f"{missing} is not installed: pip install 'speak-neuro[scale]'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


class InTurn:
    """Rows of Ray Data, mapped one after the other in this process."""

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        self.rows = rows

    def map(self, change: Callable[[dict[str, Any]], dict[str, Any]], concurrency: int, num_cpus: int) -> InTurn:
        assert (concurrency, num_cpus) == (2, 1)
        return InTurn(map(change, self.rows))

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


def stand_in(calls: list[Any]) -> SimpleNamespace:
    """What is used of Ray; `calls` says where it was started, and that it was ended."""
    context = SimpleNamespace(get_current=lambda: SimpleNamespace())
    return SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda address, **_: calls.append(address),
        shutdown=lambda: calls.append("ended"),
        cluster_resources=lambda: {"CPU": 2.0},
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "here"),
        data=SimpleNamespace(DataContext=context, from_items=lambda rows, override_num_blocks: InTurn(rows)),
    )


def test_what_ray_is_given_and_gives(
    script: ModuleType,
    corpus: Path,
    done: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With something in Ray's place; the test with a cluster takes twenty seconds."""
    calls: list[Any] = []
    ray = stand_in(calls)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    assert run(script, corpus, tmp_path / "out", "--engine", "ray", "--ray-address", "auto") == 0
    assert contents(tmp_path / "out") == contents(done)
    assert calls == ["auto", "ended"]
    assert "Ray: 1 node(s) took part" in capsys.readouterr().out
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"bad \xc3( here\n" * 2000)
    arguments = ["--table", str(corpus / "table"), "--out", str(tmp_path / "b"), "--engine", "ray", *SMALL]
    assert script.main([str(bad), *arguments, "--workers", "2"]) == 2
    assert f"{bad}: invalid UTF-8 at byte 4 (0xc3)" in capsys.readouterr().err
    assert calls[2:] == [None, "ended"]


@pytest.fixture
def cluster() -> Iterator[None]:
    """Two Ray nodes of one core each."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'speak-neuro[scale]'")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        yield
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_cluster_of_two_nodes_writes_the_same_bytes(
    script: ModuleType, corpus: Path, done: Path, tmp_path: Path, cluster: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(script, corpus, tmp_path / "out", "--engine", "ray") == 0
    assert contents(tmp_path / "out") == contents(done)
    assert "Ray: 2 node(s) took part" in capfd.readouterr().out
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"bad \xc3( here\n")
    arguments = ["--table", str(corpus / "table"), "--out", str(tmp_path / "b"), "--engine", "ray", "--quiet"]
    assert script.main([str(bad), *arguments]) == 2
    assert (
        f"tokenize_corpus: error: {bad}: invalid UTF-8 at byte 4 (0xc3); convert it to UTF-8" in capfd.readouterr().err
    )
