"""speak-export: exact or refused, the same bytes twice, and a trace that is the network's own run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from speak_neuro.config import NeuronConfig, RunConfig, TokenizerConfig
from speak_neuro.errors import SpeakError, UnsupportedExport
from speak_neuro.export.cli import main
from speak_neuro.export.files.neuron_file import ExportedNeuron, read_graph, read_neuron, write_graph, write_neuron
from speak_neuro.export.files.trace_file import read_trace, write_trace
from speak_neuro.export.graph import export_neuron, refusals
from speak_neuro.export.trace import run_trace, trace_rows
from speak_neuro.inference.speak import Speak
from speak_neuro.neuron.reference import NeuronParameters, gated_lif_run
from speak_neuro.neuron.resets import RESETS
from speak_neuro.systems.run_folder import CONFIG, load_system, read_run, save_model, write_config
from speak_neuro.systems.system import System


def system_of(**neuron: object) -> System:
    torch.manual_seed(0)
    config = RunConfig(
        neuron=NeuronConfig(**neuron),  # type: ignore[arg-type]
        tokenizer=TokenizerConfig(encoder="linear", encoder_width=8),
    )
    return System(config, 20)


def run_exported(e: ExportedNeuron, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a reader computes who knows the file alone: no mode, one rule."""
    lanes = features.astype(np.float64) @ e.weight.T.astype(np.float64) + e.bias
    p = NeuronParameters(
        float(e.decay[0]), float(e.gain[0]), float(e.threshold[0]), float(e.reset_potential[0]), float(e.reset_scale[0])
    )
    current, gate = lanes[..., 0].astype(np.float32), lanes[..., 1].astype(np.float32)
    return gated_lif_run(current, gate, p).spikes, current


@pytest.mark.parametrize("mode", RESETS)
def test_every_reset_mode_is_in_the_numbers(mode: str) -> None:
    system = system_of(reset_mode=mode, decay=0.9, gain=0.8, threshold=1.25, reset_potential=-0.25)
    features = np.random.default_rng(0).normal(size=(3, 200, 8)).astype(np.float32) * 2
    spikes, current = run_exported(export_neuron(system), features)
    with torch.no_grad():
        values = torch.from_numpy(features)
        mine = system.tokenizer.current_readout(values).squeeze(-1)
        gate = system.tokenizer.gate_readout(values).squeeze(-1)
        found = system.tokenizer.neuron(torch.from_numpy(current), gate)
    np.testing.assert_allclose(mine.numpy(), current, atol=1e-6)
    assert np.array_equal(found.spikes.numpy().astype(bool), spikes)
    assert 10 < spikes.sum() < spikes.size


def test_two_exports_are_byte_identical(tiny_run: Path, tmp_path: Path, excerpt: Path) -> None:
    for name in ("a", "b"):
        arguments = ["--run", str(tiny_run), "--text", str(excerpt), "--rows", "20", "--out", str(tmp_path / name)]
        assert main([*arguments, "--quiet"]) == 0
    for name in ("boundary.nir", "trace.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_is_read_and_written_again_is_the_same_file(tiny_run: Path, tmp_path: Path, excerpt: Path) -> None:
    """By the functions for the neuron, for any graph, and for traces; also through a graph of many stock nodes."""
    arguments = ["--run", str(tiny_run), "--text", str(excerpt), "--rows", "20", "--quiet", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert main([*arguments, "--lower", "--largest-current", "40"]) == 0
    graphs = sorted(tmp_path.glob("*.nir"))
    assert [path.name for path in graphs] == ["boundary.nir", "lowered.nir"]
    for path in graphs:
        write_graph(tmp_path / "again", read_graph(path))
        assert (tmp_path / "again").read_bytes() == path.read_bytes()
    neuron = read_neuron(tmp_path / "boundary.nir")
    write_neuron(tmp_path / "again", neuron)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "boundary.nir").read_bytes()
    written = ["producer", "run", "weights", "reset_mode", "reader"]
    assert sorted(neuron.metadata) == sorted(written)
    assert list(neuron.metadata) != written, "the order in which it was written"
    assert neuron.metadata["weights"] == read_trace(tmp_path / "trace.npz").meta["weights"]
    write_trace(tmp_path / "again", read_trace(tmp_path / "trace.npz"))
    assert (tmp_path / "again").read_bytes() == (tmp_path / "trace.npz").read_bytes()


def test_the_trace_is_the_run(tiny_run: Path, tmp_path: Path, excerpt: Path) -> None:
    out = tmp_path / "out"
    assert main(["--run", str(tiny_run), "--text", str(excerpt), "--rows", "20", "--out", str(out), "--quiet"]) == 0
    trace, neuron = read_trace(out / "trace.npz"), read_neuron(out / "boundary.nir")
    speak = Speak.load(tiny_run)
    parameters = speak.engine.tokenizer.neuron.parameters_numpy()
    raw = bytes(trace.text_utf8)
    for row, length in enumerate(trace.length.tolist()):
        text = raw[trace.text_offsets[row] : trace.text_offsets[row + 1]].decode()
        assert len(text) == length
        run = gated_lif_run(trace.current[row : row + 1, :length], trace.gate_logit[row : row + 1, :length], parameters)
        assert np.array_equal(run.spikes[0], trace.spikes[row, :length].astype(bool))
        assert np.array_equal(run.membrane[0], trace.membrane[row, :length])
        tokens = speak.tokens(text)
        ends = np.cumsum([len(token) for token in tokens]) - 1
        spikes = np.flatnonzero(trace.spikes[row, :length])
        assert set(spikes) | {length - 1} == set(ends)
        assert not trace.features[row, length:].any()
    readout = trace.features @ neuron.weight.T + neuron.bias
    real = np.arange(trace.current.shape[1]) < trace.length[:, None]
    np.testing.assert_allclose(readout[..., 0][real], trace.current[real], atol=1e-5)
    assert trace.meta["device"] == "cpu"
    assert trace.spikes.sum() > 50


def test_tanh_is_refused_with_the_reason(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    described = read_run(run)
    tanh = dataclasses.replace(described.config, tokenizer=dataclasses.replace(described.config.tokenizer, tanh=True))
    system = load_system(described)
    write_config(run, tanh, described.alphabet, described.record)
    save_model(run, system)  # as a run of these settings
    assert main(["--run", str(run), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "tanh stands between the readout and the neuron" in error
    assert not (tmp_path / "out").exists()
    record = tmp_path / "check.json"
    assert main(["--run", str(run), "--check", "--json", str(record)]) == 2
    assert json.loads(record.read_text(encoding="utf-8"))["metrics"]["exact"] is False
    assert main(["--run", str(tiny_run), "--check", "--json", str(record)]) == 0
    metrics = json.loads(record.read_text(encoding="utf-8"))["metrics"]
    assert (metrics["exact"], metrics["reasons"]) == (True, [])
    assert metrics["graphs"]["lowered"]["allowed"]


@pytest.mark.parametrize(
    "flags", [["--to", "nir"], ["--to", "nir", "--fold"], ["--to", "nir", "--lower"], ["--to", "table"]]
)
def test_another_system_is_refused(
    gtok: Callable[..., int], excerpt: Path, tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert gtok("--data", str(excerpt), "--out", str(tmp_path), "--steps", "1", "--tokenizer", "fixed") == 0
    capsys.readouterr()
    assert main(["--run", str(tmp_path), *flags, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the run's tokenizer is fixed" in error
    assert "train" in error
    assert not list(tmp_path.glob("*.nir"))


def test_unknown_characters_are_named(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("two words 字字字\n", encoding="utf-8")
    assert main(["--run", str(tiny_run), "--text", str(text), "--out", str(tmp_path)]) == 0
    found = capsys.readouterr()
    assert "3 of the trace's 13 characters are not in the run's alphabet\n" in found.err
    assert "16 features, 1 neuron, 1 row, 13 characters" in found.out


def test_every_reason_is_listed() -> None:
    torch.manual_seed(0)
    config = RunConfig(tokenizer=TokenizerConfig(encoder="linear", encoder_width=8, tanh=True))
    system = System(config, 20)
    with torch.no_grad():
        system.tokenizer.gate_readout.bias.fill_(float("inf"))
    assert len(refusals(system)) == 2
    with pytest.raises(UnsupportedExport, match=r"tanh .*; tokenizer tensor gate_readout.bias holds values"):
        export_neuron(system)


def test_rows_are_lines_cut_to_length() -> None:
    assert trace_rows("abcdefg\n\nhi\r\n", 3) == ["abc", "def", "g", "hi\r"]


def test_rows_left_out_are_named(
    tiny_run: Path, excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run", str(tiny_run), "--text", str(excerpt), "--out", str(tmp_path), "--rows", "3"]) == 0
    assert "rows, the trace takes the first 3: see --rows" in capsys.readouterr().err
    assert read_trace(tmp_path / "trace.npz").sequences == 3


def test_a_text_without_characters(tiny_run: Path) -> None:
    speak = Speak.load(tiny_run)
    with pytest.raises(SpeakError, match="the text has no line with a character"):
        run_trace(speak, [], {})


def test_a_trace_that_would_not_fit(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speak_neuro.export.trace.FEATURE_LIMIT", 100)
    with pytest.raises(SpeakError, match="give a smaller --rows or --row-length"):
        run_trace(Speak.load(tiny_run), ["a line of text"], {})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rows", "0"], "--rows is 0; allowed: at least 1"),
        (["--row-length", "-1"], "--row-length is -1; allowed: at least 1"),
        (["--device", "toaster"], "--device is 'toaster'; allowed: auto, cpu, cuda, cuda:N"),
        (["--text", "/nowhere.txt"], "/nowhere.txt"),
        (["--json", "."], ".: is a folder; name a file"),
        (["--lower", "--largest-current", "-1"], "--largest-current is -1.0; allowed: finite numbers above 0"),
        (["--lower", "--largest-potential", "nan"], "--largest-potential is nan; allowed: finite numbers above 0"),
    ],
)
def test_bad_flags(
    tiny_run: Path, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run", str(tiny_run), "--out", str(tmp_path / "out"), "--quiet", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_export_of_a_folder_without_checkpoint(tmp_path: Path, tiny_run: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(tiny_run / CONFIG, tmp_path / "run" / CONFIG)
    assert main(["--run", str(tmp_path / "run"), "--quiet"]) == 2
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [CONFIG]


@pytest.mark.gpu
def test_a_cuda_run_exports_the_same_graph(tiny_run: Path, tmp_path: Path, excerpt: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for device in ("cpu", "cuda"):
        out = str(tmp_path / device)
        assert main(["--run", str(tiny_run), "--text", str(excerpt), "--device", device, "--out", out, "--quiet"]) == 0
    assert (tmp_path / "cpu" / "boundary.nir").read_bytes() == (tmp_path / "cuda" / "boundary.nir").read_bytes()
    assert load_system(read_run(tiny_run), "cuda").tokenizer.current_readout.weight.is_cuda
