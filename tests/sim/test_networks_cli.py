"""speak-sim verify and run --input: files in, report and exit code out; bad files are one line."""

# Tables of cases read better a case a line.
# ruff: noqa: E501

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import networks
import nir
import numpy as np
import pytest

from speak_neuro.export import reference_of, to_nir
from speak_neuro.export.files.neuron_file import write_graph
from speak_neuro.sim import save_reference
from speak_neuro.sim.cli import main
from speak_neuro.sim.networks.reference_file import read_reference


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("verify")
    module, sample = networks.case("keywords")
    write_graph(place / "net.nir", to_nir(module, sample))
    np.save(place / "x.npy", sample.numpy())
    save_reference(place / "run.npz", reference_of(module, sample))
    return place


@pytest.mark.lava
@pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason="lava-nc is not installed (Python 3.10 only)")
def test_verify_and_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--graph", str(folder / "net.nir"), "--input", str(folder / "x.npy")]
    flags = [
        "--reference",
        str(folder / "run.npz"),
        "--costs",
        "--picture",
        str(folder / "net.svg"),
        "--neurons",
        "0",
        "3",
    ]
    assert main(["verify", *files, *flags, "--json", str(folder / "counts.json")]) == 0
    said = capsys.readouterr().out
    assert "neuron level: equal" in said
    assert "network level: equal" in said
    assert "neuron updates" in said
    report = json.loads((folder / "verify.json").read_text())
    assert report["passed"]
    assert report["reference"] == "the module's own run"
    assert [row["kind"] for row in report["layers"]] == ["GatedResetLIF", "LIF"]
    assert report["costs"]["total"]["neurons"] == 64
    counts = json.loads((folder / "counts.json").read_text())
    assert counts["metrics"]["passed"]
    page = (folder / "verify.html").read_text()
    assert page.count("<svg") == 6  # a raster and two potentials for each layer
    assert "<script" not in page
    assert "<svg" in (folder / "net.svg").read_text()

    assert main(["run", *files, "--out", str(folder / "out.npz")]) == 0
    with np.load(folder / "out.npz") as found:
        expected = read_reference(folder / "run.npz")
        assert np.array_equal(found["lif1.spikes"] > 0, expected["lif1"].spikes)
        assert found["output"].shape == (6, 40, 4)


@pytest.mark.lava
@pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason="lava-nc is not installed (Python 3.10 only)")
def test_a_reference_of_another_network_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = read_reference(folder / "run.npz")
    lif2 = run["lif2"]
    save_reference(folder / "wrong.npz", {**run, "lif2": type(lif2)(lif2.input, ~lif2.spikes, lif2.membrane)})
    files = [
        "--graph",
        str(folder / "net.nir"),
        "--input",
        str(folder / "x.npy"),
        "--reference",
        str(folder / "wrong.npz"),
    ]
    assert main(["verify", *files, "--out", str(folder)]) == 1
    said = capsys.readouterr().out
    assert "NOT equal" in said
    assert "the reference does not follow the LIF's equation" in said


def broken(place: Path, name: str, content: Any) -> Path:
    path = place / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.npy", b"hello", "is not an .npy file of numbers"),
        ("shape.npy", np.zeros((2, 5, 3)), r"allowed: (batch, steps, 16)"),
        ("nan.npy", np.full((1, 5, 16), np.nan), "inputs hold NaN"),
        ("strings.npy", np.array(["a"]), "allowed: numbers"),
        ("objects.npy", np.array([{}], dtype=object), "is not an .npy file of numbers"),
    ],
)
def test_bad_inputs_are_one_line(
    folder: Path, capsys: Any, tmp_path: Path, name: str, content: Any, message: str
) -> None:
    if name == "objects.npy":
        np.save(tmp_path / name, content, allow_pickle=True)
        path = tmp_path / name
    else:
        path = broken(tmp_path, name, content)
    assert main(["verify", "--graph", str(folder / "net.nir"), "--input", str(path), "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_bad_graphs_and_flags_are_one_line(folder: Path, capsys: Any, tmp_path: Path) -> None:
    two = nir.NIRGraph(
        nodes={f"{kind}{n}": make() for n in (1, 2) for kind, make in (
            ("in", lambda: nir.Input({"input": np.array([16])})), ("out", lambda: nir.Output({"output": np.array([16])})))},
        edges=[("in1", "out1"), ("in2", "out2")], type_check=False,
    )  # fmt: skip
    write_graph(tmp_path / "two.nir", two)
    x = str(folder / "x.npy")
    cases = [
        (["verify", "--graph", str(tmp_path / "two.nir"), "--input", x], "2 Input nodes (in1, in2)"),
        (["verify", "--graph", str(tmp_path / "no.nir"), "--input", x], "no such file"),
        (["verify", "--graph", str(folder / "net.nir"), "--input", str(tmp_path / "no.npy")], "no such file"),
        (["verify", "--graph", str(folder / "net.nir"), "--input", x, "--dt", "0"], "dt is 0.0"),
        (["verify", "--graph", str(folder / "net.nir"), "--input", x, "--reference", x], "is not a reference file"),
        (["run", "--graph", str(folder / "net.nir"), "--out", str(tmp_path / "o.npz")], "neither --trace nor --input"),
        (["run", "--graph", str(folder / "net.nir"), "--input", x, "--trace", x, "--out", str(tmp_path / "o.npz")], "--input and --trace"),
    ]  # fmt: skip
    for flags, message in cases:
        out = [] if "--out" in flags else ["--out", str(tmp_path)]
        assert main([*flags, *out]) == 2, flags
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
