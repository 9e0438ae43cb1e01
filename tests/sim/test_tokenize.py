"""speak-sim tokenize: the whole tokenizer in Lava gives the tokens that the checkpoint gives, line by line."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from folded_fixtures import run_folder, scripts

from speak_neuro.cli import main as tokenize
from speak_neuro.corpus.reader import embedded_names, embedded_text
from speak_neuro.export.cli import main as export
from speak_neuro.export.files.folded_file import read_folded
from speak_neuro.sim import tokenize as module
from speak_neuro.sim.cli import main
from speak_neuro.sim.job import groups, total_steps
from speak_neuro.sim.tokenize import batches, simulate_lines
from speak_neuro.text.alphabet import Alphabet

NO_LAVA = "lava-nc is not installed"
needs_lava = pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason=NO_LAVA)
LINES = ["plain text here", "", "tab\tand\rreturn", "שלום 👩\u200d👧 e\u0301", "nul\x00inside", "x", "long " * 90]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "some.txt"
    path.write_bytes(("\n".join([*LINES, *scripts(600).values()]) + "\n").encode())
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, text: Path) -> dict[str, Path]:
    """Run folders, exported, by encoder."""
    folder = tmp_path_factory.mktemp("runs")
    alphabet = Alphabet(Alphabet.learn(text.read_bytes().decode()).characters[:500])
    made = {
        "linear": run_folder(folder / "linear", "linear", alphabet, threshold=0.7),
        "convolution": run_folder(folder / "convolution", "convolution", alphabet, 4, decay=0.9, reset_potential=-0.5),
    }
    for run in made.values():
        assert export(["--run", str(run), "--fold", "--rows", "20", "--row-length", "100", "--quiet"]) == 0
    return made


@pytest.mark.lava
@needs_lava
@pytest.mark.parametrize("encoder", ["linear", "convolution"])
def test_the_same_tokens_as_the_checkpoint(
    encoder: str, runs: dict[str, Path], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_LINES", 12)
    run = runs[encoder]
    bare = Path(shutil.copy(run / "folded.nir", tmp_path / "bare.nir"))
    with h5py.File(bare, "r+") as stream:
        del stream["node/metadata"]
    flags = ["--format", "spans", "--out"]
    graph = ["--graph", str(bare), "--alphabet", str(run / "folded.alphabet.json")]
    counts = tmp_path / "counts.json"
    assert main(["tokenize", *graph, str(text), *flags, str(tmp_path / "lava"), "--json", str(counts)]) == 0
    assert tokenize(["--run", str(run), str(text), *flags, str(tmp_path / "torch")]) == 0
    assert (tmp_path / "lava").read_bytes() == (tmp_path / "torch").read_bytes()
    metrics = json.loads(counts.read_text(encoding="utf-8"))["metrics"]
    assert metrics["lines"] == (tmp_path / "torch").read_bytes().count(b"\n")
    assert metrics["tokens"] > 1000


@pytest.mark.lava
@needs_lava
def test_every_format_is_lossless(runs: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes("\n".join(LINES).encode())
    for style in ("json", "bytes"):
        found = tmp_path / style
        flags = ["--format", style, "--out", str(found)]
        assert main(["tokenize", "--graph", str(runs["convolution"] / "folded.nir"), str(path), *flags]) == 0
        rows = [json.loads(row) for row in found.read_bytes().decode().removesuffix("\n").split("\n")]
        if style == "bytes":
            raw = [line.encode() for line in LINES]
            rows = [[line[a:b].decode() for a, b in spans] for line, spans in zip(raw, rows, strict=True)]
        assert ["".join(row) for row in rows] == LINES


@pytest.mark.lava
@needs_lava
def test_lanes_do_not_touch_each_other(runs: dict[str, Path]) -> None:
    """Texts of every length side by side, against the numpy reference one by one."""
    folded = read_folded(runs["convolution"] / "folded.nir")
    random = np.random.default_rng(0)
    ids = [random.integers(0, folded.characters, n, dtype=np.int32) for n in [*range(12), 300, 7, 0, 41]]
    found, steps = simulate_lines(folded, ids)
    assert steps == 300
    for text, spikes in zip(ids, found, strict=True):
        assert np.array_equal(spikes.astype(bool), folded.spikes(text)[:, 0])


@pytest.mark.lava
@needs_lava
def test_stock_dense_agrees_bit_for_bit(runs: dict[str, Path], tmp_path: Path) -> None:
    """Parity on the folded graph: one-hot rows through Lava's own Dense need no room for rounding."""
    run = runs["linear"]
    files = ["--graph", str(run / "folded.nir"), "--trace", str(run / "folded-trace.npz")]
    assert main(["parity", *files, "--strict-readout", "--out", str(tmp_path)]) == 0
    level = json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))["levels"]["readout"]
    assert level["mismatches"] == level["membrane_mismatches"] == 0
    assert level["spikes"] > 300


@pytest.mark.lava
@needs_lava
@pytest.mark.parametrize("encoder", ["linear", "convolution"])
def test_fixed_point_of_a_run_on_the_grid(encoder: str, tmp_path: Path) -> None:
    """Trained on the grid, the integers are the float run: nothing differs, from the characters or the parts on."""
    texts = scripts(300)
    (tmp_path / "t.txt").write_text("\n".join(texts.values()), encoding="utf-8")
    alphabet = Alphabet(Alphabet.learn("".join(texts.values())).characters[:300])
    run = run_folder(tmp_path / "run", encoder, alphabet, 1 if encoder == "linear" else 3, grid="loihi2")
    fold = ["--fold"] if encoder == "linear" else []
    assert export(["--run", str(run), *fold, "--text", str(tmp_path / "t.txt"), "--quiet"]) == 0
    graph, trace = ("folded.nir", "folded-trace.npz") if fold else ("boundary.nir", "trace.npz")
    files = ["--graph", str(run / graph), "--trace", str(run / trace)]
    assert main(["parity", *files, "--model", "fixed", "--level", "readout", "--out", str(tmp_path)]) == 0
    level = json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))["fixed"]["readout"]
    assert level["mismatches"] == level["membrane_mismatches"] == level["float"]["differing_spikes"] == 0
    assert level["spikes"] > 300


@pytest.mark.slow
@pytest.mark.lava
@needs_lava
def test_a_megabyte_in_eight_scripts(tmp_path: Path) -> None:
    text = "\n".join(embedded_text(name) for name in embedded_names())
    assert len(text.encode()) > 1_000_000
    alphabet = Alphabet(Alphabet.learn(text).characters[:4095])
    (tmp_path / "all.txt").write_bytes(text.encode())
    for encoder, context in (("linear", 1), ("convolution", 8)):
        run = run_folder(tmp_path / encoder, encoder, alphabet, context)
        assert export(["--run", str(run), "--fold", "--no-trace", "--quiet"]) == 0
        command = [str(tmp_path / "all.txt"), "--format", "spans", "--out"]
        assert main(["tokenize", "--graph", str(run / "folded.nir"), *command, str(run / "lava")]) == 0
        assert tokenize(["--run", str(run), *command, str(run / "torch")]) == 0
        assert (run / "lava").read_bytes() == (run / "torch").read_bytes()
        assert (run / "lava").read_bytes().count(b"], [") > 100_000


def failure(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["tokenize", *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_text_needs_the_alphabet(
    runs: dict[str, Path], text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = str(shutil.copy(runs["linear"] / "folded.nir", tmp_path / "alone.nir"))
    assert "alone.alphabet.json: no such file; text needs the alphabet" in failure(capsys, "--graph", graph, str(text))
    other = tmp_path / "other.json"
    other.write_text(json.dumps(Alphabet("ab").to_json()), encoding="utf-8")
    error = failure(capsys, "--graph", graph, "--alphabet", str(other), str(text))
    assert "the alphabet has 3 characters, the graph takes" in error


def test_bad_input(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = str(runs["linear"] / "folded.nir")
    assert "no such file" in failure(capsys, "--graph", graph, str(tmp_path / "gone.txt"))
    assert "is a folder" in failure(capsys, "--graph", graph, str(tmp_path))
    assert "not a NIR file" in failure(capsys, "--graph", __file__, __file__)
    own = tmp_path / "own.txt"
    own.write_text("a text\n", encoding="utf-8")
    assert "is an input of this command" in failure(capsys, "--graph", graph, str(own), "--out", str(own))


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_LINES", 3)
    monkeypatch.setattr(module, "BATCH_CHARACTERS", 10)
    lines = ["a", "b", "c", "", "x" * 30, "", "y" * 9, "zz", "end"]
    found = list(batches(iter(lines)))
    assert [line for batch in found for line in batch] == lines
    assert found == [["a", "b", "c"], ["", "x" * 30], ["", "y" * 9, "zz"], ["end"]]
    assert list(batches(iter([]))) == []


def test_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speak_neuro.sim.job.LANES", 3)
    monkeypatch.setattr("speak_neuro.sim.job.CELLS", 20)
    length = np.array([15, 9, 8, 5, 5, 5, 1, 0, 0])
    found = list(groups(length))
    assert [(g.start, g.stop) for g in found] == [(0, 1), (1, 3), (3, 6), (6, 9)]
    assert total_steps(length) == 15 + 9 + 5 + 1
    assert list(groups(np.zeros(3, dtype=np.int64))) == []
