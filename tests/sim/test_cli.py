"""speak-sim from the command line: exit codes, files, one-line errors."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trace_fixtures as fixtures

from speak_neuro.export.files.neuron_file import write_neuron
from speak_neuro.export.files.trace_file import Trace, write_trace
from speak_neuro.sim.cli import main

HAS_LAVA = importlib.util.find_spec("lava") is not None
NO_LAVA = "lava-nc is not installed (Python 3.10 only)"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    exported, trace = fixtures.make_trace()
    write_neuron(tmp_path / "boundary.nir", exported)
    write_trace(tmp_path / "trace.npz", trace)
    return str(tmp_path / "boundary.nir"), str(tmp_path / "trace.npz")


def error(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("speak-sim: error: ")
    return lines[0]


@pytest.mark.lava
@pytest.mark.skipif(not HAS_LAVA, reason=NO_LAVA)
def test_parity_holds(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "record.json"
    assert main(["parity", "--graph", files[0], "--trace", files[1], "--json", str(record)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "neuron level: 25 spikes, 8 sequences, 0 mismatches, 0 membrane differences",
        "readout level: 25 spikes, 8 sequences, 0 mismatches",
        "parity: passed",
        f"report: {tmp_path / 'parity.html'}",
    ]
    report = json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))
    assert report["passed"] is True
    assert set(report["levels"]) == {"neuron", "readout"}
    fields = {"sequences", "positions", "spikes", "mismatches", "membrane_mismatches", "first_divergence"}
    assert all(fields <= set(level) for level in report["levels"].values())
    assert "Parity holds" in (tmp_path / "parity.html").read_text(encoding="utf-8")
    measured = json.loads(record.read_text())
    assert measured["metrics"]["neuron"]["mismatches"] == 0
    assert set(measured) == {"command", "commit", "device", "versions", "date", "metrics"}
    assert {p.name for p in tmp_path.iterdir()} == {
        "boundary.nir",
        "trace.npz",
        "record.json",
        "parity.json",
        "parity.html",
    }


@pytest.mark.lava
@pytest.mark.skipif(not HAS_LAVA, reason=NO_LAVA)
def test_parity_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported, trace = fixtures.make_trace()
    current = trace.current.copy()
    current[0, 9] += 1  # the trained run saw another current than the one it recorded
    wrong = Trace(**{**fixtures.fields(trace), "current": current})
    write_neuron(tmp_path / "g.nir", exported, {"run": "mine"})
    write_trace(tmp_path / "t.npz", replace(wrong, meta={**wrong.meta, "run": "yours"}))
    out = tmp_path / "new" / "folder"
    arguments = ["parity", "--graph", str(tmp_path / "g.nir"), "--trace", str(tmp_path / "t.npz")]
    assert main([*arguments, "--out", str(out), "--level", "neuron"]) == 1
    printed = capsys.readouterr().out
    assert "first difference: sequence 0, position 9, character 'a'" in printed
    assert "parity: FAILED\nthe graph is of run mine, the trace of run yours: export both from one\n" in printed
    report = json.loads((out / "parity.json").read_text(encoding="utf-8"))
    assert list(report["levels"]) == ["neuron"]
    assert report["levels"]["neuron"]["first_divergence"]["position"] == 9


@pytest.mark.lava
@pytest.mark.skipif(not HAS_LAVA, reason=NO_LAVA)
def test_run_writes_spikes_and_membrane(files: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "run.npz"
    record = tmp_path / "record.json"
    assert main(["run", "--graph", files[0], "--trace", files[1], "--out", str(out), "--json", str(record)]) == 0
    _, trace = fixtures.make_trace()
    measured = json.loads(record.read_text(encoding="utf-8"))
    assert measured["metrics"]["spikes"] == trace.spikes.sum()
    assert measured["command"].startswith("speak-sim run --graph ")
    with np.load(out, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["spikes"], trace.spikes)
        np.testing.assert_array_equal(archive["membrane"], trace.membrane)
        np.testing.assert_array_equal(archive["current"], trace.current)


def test_files_of_different_runs(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported, _ = fixtures.make_trace()
    write_neuron(tmp_path / "other.nir", replace(exported, threshold=exported.threshold * 2))
    message = error(capsys, 2, "parity", "--graph", str(tmp_path / "other.nir"), "--trace", files[1])
    assert "do not belong together: threshold is 2.0 in the graph, 1.0 in the trace" in message
    assert not (tmp_path / "parity.json").exists()


def test_bad_files(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph, trace = files
    assert "no such file" in error(capsys, 2, "parity", "--graph", graph + "x", "--trace", trace)
    assert "is not a NIR file" in error(capsys, 2, "parity", "--graph", trace, "--trace", trace)
    assert "is not a trace" in error(capsys, 2, "parity", "--graph", graph, "--trace", graph)


def test_outputs_are_checked_before_anything_is_simulated(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph, trace = files
    inputs = ("--graph", graph, "--trace", trace, "--python", "/no/python")
    assert "trace.npz is not a folder" in error(capsys, 2, "parity", *inputs, "--out", trace)
    assert "is a folder; name a file" in error(capsys, 2, "parity", *inputs, "--json", str(tmp_path))
    assert "is a folder; name a file" in error(capsys, 2, "run", *inputs, "--out", str(tmp_path))


def test_a_graph_with_two_neurons(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported, _ = fixtures.make_trace()
    names = ("weight", "bias", "decay", "gain", "threshold", "reset_potential", "reset_scale", "gate_threshold")
    write_neuron(tmp_path / "two.nir", replace(exported, **{n: np.repeat(getattr(exported, n), 2, 0) for n in names}))
    message = error(capsys, 2, "parity", "--graph", str(tmp_path / "two.nir"), "--trace", files[1])
    assert "two.nir" in message
    assert "the graph has 2 neurons, a trace holds one" in message


def test_missing_lava_is_exit_code_3(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "path" / "lava").mkdir(parents=True)
    (tmp_path / "path" / "lava" / "__init__.py").write_text("raise ModuleNotFoundError('no lava', name='lava')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    message = error(capsys, 3, "parity", "--graph", files[0], "--trace", files[1])
    assert "pip install 'speak-neuro[lava]'" in message
    assert not (tmp_path / "parity.json").exists()


def test_bad_python(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    message = error(capsys, 2, "parity", "--graph", files[0], "--trace", files[1], "--python", "/no/python")
    assert "/no/python: no such program" in message


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_bad_timeout(files: tuple[str, str], value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["parity", "--graph", files[0], "--trace", files[1], "--timeout", value])
    assert caught.value.code == 2
    assert "--timeout" in capsys.readouterr().err


@pytest.mark.lava
@pytest.mark.skipif(not HAS_LAVA, reason=NO_LAVA)
def test_time_limit(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    message = error(capsys, 2, "parity", "--graph", files[0], "--trace", files[1], "--timeout", "0.01")
    assert "--timeout allows more" in message


def test_help_is_light() -> None:
    code = (
        "import sys; from speak_neuro.sim.cli import main\n"
        "try: main(['parity', '--help'])\n"
        "except SystemExit: print([m for m in ('numpy', 'nir', 'h5py', 'lava', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.strip().splitlines()[-1] == "[]"
