"""compare/evaluate.py for every system: what training reports, whatever the batch; windows; times; bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scripts import load

from speak_neuro.common.digests import digest_of
from speak_neuro.config import SYSTEMS, ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.corpus.reader import embedded_text
from speak_neuro.systems.run_folder import load_system, read_run, save_model, write_config
from speak_neuro.systems.system import System
from speak_neuro.training.evaluation import Evaluation, evaluate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script() -> ModuleType:
    return load("compare/evaluate")


def make_run(folder: Path, kind: str, **tokenizer: Any) -> Path:
    """A run folder of an untrained system whose boundaries are neither none nor all."""
    from speak_neuro.text.alphabet import Alphabet

    config = RunConfig(
        tokenizer=TokenizerConfig(kind=kind, encoder="window", encoder_width=8, context=3, fixed_length=3, **tokenizer),
        model=ModelConfig(width=16, heads=2, inner=16, pre_layers=1, shortened_layers=1, post_layers=1, dropout=0.1),
        training=TrainingConfig(window=64),
    )
    alphabet = Alphabet.learn(embedded_text()[:5000])
    torch.manual_seed(5)
    system = System(config, len(alphabet), alphabet)
    with torch.no_grad():
        if kind == "speak":
            system.tokenizer.current_readout.bias.fill_(0.3)
        for name, parameter in system.named_parameters():
            if "contract.weight" in name and "predictor" in name:
                parameter.mul_(200)
    folder.mkdir(parents=True)
    write_config(folder, config, alphabet, {"data": {"source": "embedded en"}})
    save_model(folder, system)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {kind: make_run(root / kind, kind) for kind in SYSTEMS}


def scored(folder: Path, characters: int = 700, window: int = 64, **more: Any) -> Evaluation:
    run = read_run(folder)
    system = load_system(run)
    torch.manual_seed(0)
    return evaluate(system, run.alphabet.encode(embedded_text()[:characters]), window, **more)


def close(one: Evaluation, other: Evaluation) -> bool:
    """Equal up to rounding, which may move a boundary that lies on the edge."""
    return abs(one.bpc - other.bpc) < 1e-4 and abs(one.tokens - other.tokens) <= 2


@pytest.mark.parametrize("kind", SYSTEMS)
def test_batch_size_does_not_matter(runs: dict[str, Path], kind: str) -> None:
    found = [scored(runs[kind], batch=batch) for batch in (1, 5, 64)]
    assert all(close(found[0], other) for other in found[1:])
    assert 0 < found[0].tokens <= 700
    assert found[0].tokens == 700 if kind == "vanilla" else found[0].tokens < 700


@pytest.mark.parametrize("kind", SYSTEMS)
def test_a_window_as_long_as_the_text_is_the_end_of_it(runs: dict[str, Path], kind: str) -> None:
    """Longer windows than the text change nothing, and neither does any window up to its own length."""
    assert close(scored(runs[kind], 300, 300), scored(runs[kind], 300, 1000))
    assert close(scored(runs[kind], 64, 64), scored(runs[kind], 64, 300, stride=7))


@pytest.mark.parametrize("kind", ["vanilla", "whitespace"])
def test_tokens_of_rules_on_characters_do_not_depend_on_the_window(runs: dict[str, Path], kind: str) -> None:
    found = {
        scored(runs[kind], 700, window, stride=stride).tokens for window, stride in ((64, 32), (50, 10), (700, 700))
    }
    assert len(found) == 1


@pytest.mark.parametrize("kind", SYSTEMS)
def test_the_growing_start_gives_the_same(runs: dict[str, Path], kind: str) -> None:
    """Nothing reads the future: a character's score does not depend on where its window ends."""
    assert close(scored(runs[kind], stride=16), scored(runs[kind], stride=16, growing=True))


@pytest.mark.parametrize("kind", SYSTEMS)
def test_more_context_than_the_stride_leaves(runs: dict[str, Path], kind: str) -> None:
    """Scored by definition: each character in a forward pass over the window that scores it, cut after it."""
    run = read_run(runs[kind])
    system = load_system(run)
    ids = run.alphabet.encode(embedded_text()[:90])
    window, stride = 32, 8
    nats, ends = 0.0, []
    with torch.no_grad():
        for t in range(len(ids)):
            start = 0 if t < window else (t - window) // stride * stride + stride
            part = torch.from_numpy(ids[start : t + 1].astype(np.int64))[None]
            hidden = system.language_model.pre(part)
            cut = system.segment(part, hidden)
            ends.append(bool(cut.boundaries[0, -1]))
            if t + 1 < len(ids):
                logits = system.language_model.decode(hidden, cut.boundaries, cut.confidence)[0, -1]
                nats -= float(torch.log_softmax(logits.double(), 0)[int(ids[t + 1])])
    found = evaluate(system, ids, window, stride=stride)
    assert found.bpc == pytest.approx(nats / 89 / np.log(2), abs=1e-5)
    assert found.tokens == sum(ends) + (not ends[-1])


def test_the_script(
    script: ModuleType, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "own.txt"
    text.write_text(embedded_text()[:900] + "\u4e16\u754c", encoding="utf-8")
    out = tmp_path / "e.json"
    flags = [
        "--text",
        str(text),
        "--json",
        str(out),
        "--device",
        "cpu",
        "--repeats",
        "2",
        "--time-batch",
        "3",
        "--quiet",
    ]
    assert script.main(["--run", *(str(runs[kind]) for kind in SYSTEMS), *flags]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("bpc") == len(SYSTEMS) + 2
    assert "2 characters are not in the run's alphabet" in captured.err
    found = {run["system"]: run for run in json.loads(out.read_text(encoding="utf-8"))["metrics"]["runs"]}
    assert set(found) == set(SYSTEMS)
    for kind, run in found.items():
        assert run["dataset"] == "own"
        assert run["characters"] == 902
        assert run["sf"] == pytest.approx(902 / run["tokens"])
        assert run["boundary_rate"] == pytest.approx(run["tokens"] / 902)
        assert ("gate_rate" in run) == (kind == "speak")
        assert run["protocol"] == {"window": 64, "stride": 32}
        assert ("other" in run) == (kind in ("dtp-gumbel", "magnet"))
        if "other" in run:
            assert run["other"]["boundaries"] == "sampled"
            assert run["other"]["sf"] != run["sf"]
        timing = run["timing"]
        assert timing["model_ms"] > 0
        assert (timing["batch"], timing["length"], timing["repeats"]) == (3, 64, 2)
        learned = kind in ("dtp-entropy", "dtp-unigram", "dtp-gumbel", "magnet", "hnet")
        # Embedding, two biases and one layer: what has to run before a predictor can cut.
        system = load_system(read_run(runs[kind]))
        read = [
            p for n, p in system.language_model.named_parameters() if n.startswith(("embed", "content", "dist", "pre"))
        ]
        assert timing["parameters_read"] == (sum(p.numel() for p in read) if learned else 0)
        assert run["parameters_tokenizer"] == sum(p.numel() for p in system.boundary_module.parameters())
        assert (run["parameters_tokenizer"] > 0) == (learned or kind == "speak")
    tables = load("compare/tables")
    assert tables.main([str(out)]) == 0
    assert "ms / batch" in capsys.readouterr().out


def test_the_run_s_own_text(script: ModuleType, tiny_run: Path, tmp_path: Path) -> None:
    """By default the test part of the run's data, with the numbers that training reported: one run in two files."""
    out = tmp_path / "e.json"
    assert script.main(["--run", str(tiny_run), "--device", "cpu", "--repeats", "0", "--json", str(out)]) == 0
    (found,) = json.loads(out.read_text(encoding="utf-8"))["metrics"]["runs"]
    trained = json.loads((tiny_run / "results.json").read_text(encoding="utf-8"))["metrics"]
    assert found["bpc"] == pytest.approx(trained["test_bpc"], abs=1e-6)
    assert found["tokens"] == trained["test_tokens"]
    assert found["boundary_f1"] == pytest.approx(trained["test_boundary_f1"])
    assert "timing" not in found
    merged, _ = load("compare/records").load([tiny_run, out])
    assert len(merged) == 1
    assert script.main(["--run", str(tiny_run), "--part", "valid", "--repeats", "0", "--json", str(out)]) == 0
    (other,) = json.loads(out.read_text(encoding="utf-8"))["metrics"]["runs"]
    assert other["dataset"] == f"{found['dataset']} (valid)"


def test_a_test_part_cut_short(script: ModuleType, gtok: Callable[..., int], tmp_path: Path, excerpt: Path) -> None:
    """A run that scores a part of the test text is scored on that part, and is known to be of the same text."""
    run, out = tmp_path / "run", tmp_path / "e.json"
    flags = ["--data", str(excerpt), "--tokenizer", "vanilla", "--steps", "2", "--test-characters", "300"]
    assert gtok(*flags, "--out", str(run)) == 0
    assert script.main(["--run", str(run), "--device", "cpu", "--repeats", "0", "--json", str(out)]) == 0
    (found,) = json.loads(out.read_text(encoding="utf-8"))["metrics"]["runs"]
    trained = json.loads((run / "results.json").read_text(encoding="utf-8"))["metrics"]
    assert found["characters"] == trained["test_characters"] == 300
    assert found["bpc"] == pytest.approx(trained["test_bpc"], abs=1e-6)
    assert found["text"] == trained["data"]["sha256"]


def test_dtp_s_protocol(script: ModuleType, runs: dict[str, Path], tmp_path: Path) -> None:
    text, out = tmp_path / "own.txt", tmp_path / "e.json"
    text.write_text(embedded_text()[:3000], encoding="utf-8")
    flags = ["--text", str(text), "--json", str(out), "--device", "cpu", "--repeats", "0", "--batch", "2"]
    assert script.main(["--run", str(runs["magnet"]), *flags, "--dtp"]) == 0
    (grown,) = json.loads(out.read_text(encoding="utf-8"))["metrics"]["runs"]
    assert grown["protocol"] == {"window": 2048, "stride": 512}
    assert script.main(["--run", str(runs["magnet"]), *flags, "--window", "2048", "--stride", "512"]) == 0
    (plain,) = json.loads(out.read_text(encoding="utf-8"))["metrics"]["runs"]
    assert grown["bpc"] == pytest.approx(plain["bpc"], abs=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stride", "65"], "--stride is 65; allowed: 1 to the window, 64"),
        (["--batch", "0"], "--batch is 0; allowed: at least 1"),
        (["--dtp", "--window", "8"], "leave --window and --stride away"),
        (["--text", "missing.txt"], "missing.txt: no such file or folder"),
        (["--json", "."], "is a folder"),
    ],
)
def test_bad_flags(
    script: ModuleType, runs: dict[str, Path], flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--run", str(runs["fixed"]), "--device", "cpu", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("evaluate.py: error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_text_that_moved_or_changed(
    script: ModuleType, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run, copy)
    described = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    text = Path(described["data"]["source"]).read_text(encoding="utf-8")
    described["data"]["source"] = str(tmp_path / "gone.txt")
    described["sha256"] = digest_of(described)
    (copy / "config.json").write_text(json.dumps(described), encoding="utf-8")
    flags = ["--run", str(copy), "--device", "cpu", "--repeats", "0"]
    assert script.main(flags) == 2
    assert "gone.txt is not here; say where it is with --data" in capsys.readouterr().err
    (tmp_path / "gone.txt").write_text(text + "more", encoding="utf-8")
    assert script.main(flags) == 2
    assert "gone.txt has changed since the run was trained" in capsys.readouterr().err
