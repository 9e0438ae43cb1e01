"""experiments/rtok.py as its user meets it: what a run leaves, resume, tables, and one line for each bad input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked import Forked
from scripts import load

pytest.importorskip("peft", reason="needs peft: pip install 'speak-neuro[hf]'")

from rtok_fixtures import tiny_folder

from speak_neuro.common import jobs
from speak_neuro.training.metrics_log import read_metrics

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
FAST = (
    "--lora-rank 2 --lora-alpha 4 --epochs 2 --batch 4 --learning-rate 0.01 --encoder-width 8 --longest 48 "
    "--device cpu --quiet --seed 3"
).split()
UNER = "--task uner --train en_ewt:train --select en_ewt:dev --evaluate en_ewt:dev de_pud:test ru_pud:test".split()
XNLI = "--task xnli --evaluate en:validation de:validation".split()
Rtok = Callable[..., int]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def rtok(encoder: Path) -> Rtok:
    main = load("rtok").main

    def run(*flags: str) -> int:
        task = flags[flags.index("--task") + 1]
        data = [] if "--data" in flags else ["--data", str(GOLDEN / task)]
        result: int = main([*FAST, "--model", str(encoder), *data, *flags])
        return result

    return run


@pytest.fixture(scope="module")
def speak_run(rtok: Rtok, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "speak"
    assert rtok(*UNER, "--tokenizer", "speak", "--ahead", "--mimic", "embedded:ru", "--out", str(folder)) == 0
    return folder


def results(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["metrics"]
    return metrics


def test_what_a_run_leaves(speak_run: Path) -> None:
    files = {p.relative_to(speak_run).as_posix() for p in speak_run.rglob("*") if p.is_file()}
    assert files - {"best/README.md"} == {
        *("config.json", "metrics.jsonl", "results.json", "state.safetensors", "state-3.safetensors"),
        *("best/adapter_config.json", "best/adapter_model.safetensors"),
        *("best/tokenizer/config.json", "best/tokenizer/model.safetensors"),
    }
    records = read_metrics(speak_run)
    assert [r["step"] for r in records if "loss" in r] == [1, 2, 3, 4, 5, 6]
    assert [r["epoch"] for r in records if "epoch" in r] == [1, 2]
    metrics = results(speak_run)
    assert set(metrics["evaluations"]) == {"en_ewt:dev", "de_pud:test", "ru_pud:test"}
    assert metrics["entropy"] == "task_head"
    assert metrics["parameters_tokenizer"] > 0
    for found in metrics["evaluations"].values():
        assert 0 <= found["f1"] <= 1
        assert found["average_length"] > 3


@pytest.mark.parametrize("name", ["zett-original", "zett-sentencepiece", "dytok-word", "dytok-50", "dytok-sampled"])
def test_baselines(rtok: Rtok, tmp_path: Path, name: str) -> None:
    assert rtok(*UNER, "--tokenizer", name, "--out", str(tmp_path / "run"), "--json", str(tmp_path / "r.json")) == 0
    metrics = results(tmp_path / "run")
    assert metrics["tokenizer"] == name
    assert metrics["parameters_tokenizer"] == 0
    assert (metrics["merges"] is not None) == (name == "dytok-50")
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["metrics"] == metrics


def test_a_resumed_run_keeps_its_unigram_models(rtok: Rtok, tmp_path: Path) -> None:
    flags = [*UNER, "--tokenizer", "zett-sentencepiece", "--out", str(tmp_path / "run")]
    assert rtok(*flags, "--stop-after", "2") == 0
    models = {path.name: path.read_bytes() for path in (tmp_path / "run" / "unigrams").iterdir()}
    assert sorted(models) == ["de.safetensors", "en.safetensors", "ru.safetensors"]
    assert rtok(*flags, "--resume") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "unigrams").iterdir()} == models


def test_a_run_from_a_trained_tokenizer_at_a_length(rtok: Rtok, speak_run: Path, tmp_path: Path) -> None:
    """It has the encoder and the neuron of the one it starts from; the length is that of the selecting split."""
    start, out = speak_run / "best" / "tokenizer", tmp_path / "run"
    flags = [*UNER, "--tokenizer", "speak", "--start-from", str(start), "--target-length", "0.8", "--out", str(out)]
    assert rtok(*flags, "--stop-after", "2") == 0
    assert rtok(*flags, "--resume") == 0
    metrics, free = results(out), results(speak_run)
    assert metrics["config"]["speak"]["look_ahead"] == 4
    assert metrics["config"]["speak"]["target_length"] == 0.8
    lengths = [found["evaluations"]["en_ewt:dev"]["average_length"] for found in (metrics, free)]
    assert lengths[0] != lengths[1]
    described = json.loads((out / "best" / "tokenizer" / "config.json").read_text(encoding="utf-8"))
    assert described["look_ahead"] == 4
    assert rtok(*flags[:-3], "0.9", "--out", str(out), "--resume") == 2
    assert rtok(*flags, "--look-ahead", "1", "--overwrite") == 2


def test_the_paper_s_tokenizer(rtok: Rtok, tmp_path: Path) -> None:
    assert rtok(*UNER, "--tokenizer", "speak", "--epochs", "1", "--out", str(tmp_path / "run")) == 0
    described = json.loads((tmp_path / "run" / "best" / "tokenizer" / "config.json").read_text(encoding="utf-8"))
    assert described["look_ahead"] == 0
    assert described["config"]["tokenizer"]["encoder"] == "linear"
    assert described["config"]["tokenizer"]["tanh"]
    assert described["config"]["training"]["neuron_loss"] == "membrane"
    assert described["config"]["neuron"]["decay"] == 1.0


@pytest.mark.parametrize("name", ["zett-original", "speak"])
def test_xnli(rtok: Rtok, tmp_path: Path, name: str) -> None:
    assert rtok(*XNLI, "--tokenizer", name, "--out", str(tmp_path / "run")) == 0
    assert {0 <= v["accuracy"] <= 1 for v in results(tmp_path / "run")["evaluations"].values()} == {True}


def test_a_resumed_run_is_the_whole_run(rtok: Rtok, speak_run: Path, tmp_path: Path) -> None:
    flags = [*UNER, "--tokenizer", "speak", "--ahead", "--mimic", "embedded:ru", "--out", str(tmp_path / "run")]
    assert rtok(*flags, "--stop-after", "2") == 0
    assert not (tmp_path / "run" / "results.json").exists()
    assert rtok(*flags, "--resume") == 0
    for name in ("best/adapter_model.safetensors", "best/tokenizer/model.safetensors", "state.safetensors"):
        whole, parts = ((folder / name).read_bytes() for folder in (speak_run, tmp_path / "run"))
        if name != "state.safetensors":  # which holds the seconds of training too
            assert whole == parts, name
    ours, theirs = results(tmp_path / "run")["evaluations"], results(speak_run)["evaluations"]
    assert all(ours[split]["f1"] == theirs[split]["f1"] for split in theirs)


def test_the_newest_whole_checkpoint(
    rtok: Rtok, speak_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flipped bit is refused with what there is; `--resume auto` repeats the last epoch bit for bit."""
    run = Path(shutil.copytree(speak_run, tmp_path / "run"))
    flags = [*UNER, "--tokenizer", "speak", "--ahead", "--mimic", "embedded:ru", "--out", str(run)]
    data = bytearray((run / "state.safetensors").read_bytes())
    data[len(data) // 2] ^= 4
    (run / "state.safetensors").write_bytes(data)
    assert rtok(*flags, "--resume") == 2
    error = capsys.readouterr().err
    assert "damaged or changed since it was written" in error
    assert "--resume auto goes on from step 3" in error
    assert rtok(*flags, "--resume", "auto") == 0
    told = capsys.readouterr().err
    assert "state-3.safetensors: going on from step 3" in told
    for name in ("best/adapter_model.safetensors", "best/tokenizer/model.safetensors"):
        assert (run / name).read_bytes() == (speak_run / name).read_bytes()
    theirs = results(speak_run)["evaluations"]
    assert all(found["f1"] == theirs[split]["f1"] for split, found in results(run)["evaluations"].items())
    for state in run.glob("state*.safetensors"):
        state.unlink()
    best = (run / "best" / "adapter_model.safetensors").read_bytes()
    assert rtok(*flags, "--resume") == 2
    assert "state.safetensors: no such file" in capsys.readouterr().err
    assert rtok(*flags, "--resume", "auto") == 2
    assert "no checkpoint is whole: begin anew with --overwrite" in capsys.readouterr().err
    assert (run / "best" / "adapter_model.safetensors").read_bytes() == best


def test_a_state_of_another_run_and_an_explosion_are_refused(
    rtok: Rtok, speak_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*UNER, "--tokenizer", "zett-original", "--out", str(tmp_path / "run")]
    assert rtok(*flags, "--stop-after", "3") == 0
    shutil.copy(speak_run / "state.safetensors", tmp_path / "run")
    assert rtok(*flags, "--resume") == 2
    assert "belongs to another run than" in capsys.readouterr().err
    flags[-1] = str(tmp_path / "exploded")
    assert rtok(*flags, "--learning-rate", "1e30", "--head-learning-rate", "1e30") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "in the examples" in error
    assert "no checkpoint was due; lower --learning-rate" in error


def test_ctrl_c_saves_and_says_how_to_go_on(encoder: Path, tmp_path: Path) -> None:
    flags = [*FAST, *UNER, "--model", str(encoder), "--data", str(GOLDEN / "uner"), "--out", str(tmp_path / "run")]
    command = [sys.executable, str(ROOT / "experiments" / "rtok.py"), *flags, "--epochs", "500"]
    told, log = tmp_path / "told", tmp_path / "run" / "metrics.jsonl"
    with told.open("wb") as stream:
        process = Forked(command, stream)
    for _ in range(600):
        if log.is_file() and '"loss"' in log.read_text(encoding="utf-8"):
            break
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "is saved, --resume goes on from there" in told.read_text(encoding="utf-8")
    assert (tmp_path / "run" / "state.safetensors").is_file()


def test_entropy_of_the_masked_language_head(encoder: Path, rtok: Rtok, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained(encoder)
    transformers.XLMRobertaForMaskedLM(config).save_pretrained(tmp_path / "model")
    shutil.copy(encoder / "tokenizer.json", tmp_path / "model")
    out = tmp_path / "run"
    assert rtok(*UNER, "--tokenizer", "speak", "--model", str(tmp_path / "model"), "--out", str(out)) == 0
    assert results(out)["entropy"] == "mlm_onepass"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tokenizer", "bpe"], "--tokenizer is 'bpe'; allowed: speak, zett-original"),
        (["--tokenizer", "dytok-101"], "--tokenizer is 'dytok-101'; allowed"),
        (["--embedder", "random"], "--embedder is 'random'; allowed: fvt, zett:FOLDER_OR_HUB_ID"),
        (["--train", "en_ewt"], "split is 'en_ewt'; allowed: NAME:SPLIT"),
        (["--train", "xx_none:train"], "set is 'xx_none', unknown to UNER"),
        (["--select", "en_ewt:test"], "holds no split 'test' of 'en_ewt'"),
        (["--tokenizer", "dytok-word", "--mimic", "embedded:ru"], "--mimic is given with --tokenizer dytok-word"),
        (["--entropy", "mlm_onepass", "--tokenizer", "speak"], "has no masked-language head; use task_head"),
        (["--longest", "4"], "longest is 4; allowed: at least 8"),
        (["--longest", "100"], "--longest is 100; allowed with"),
        (["--tokenizer", "dytok-word", "--start-from", "x"], "--start-from is given with --tokenizer dytok-word"),
        (["--tokenizer", "speak", "--start-from", "./nowhere"], "nowhere: no such run folder"),
        (["--look-ahead", "5"], "look_ahead is 5; allowed: 0 to 4"),
        (["--ahead", "--context", "3"], "look_ahead is 4; allowed with the window encoder, which sees 3: 0 to 2"),
        (
            ["--ahead", "--encoder", "linear"],
            "look_ahead is 4; allowed with the linear encoder, which reads one character: 0",
        ),
        (["--target-length", "0.9"], "target_length is 0.9; allowed: 0 with L_mem"),
        (["--device", "toaster"], "--device is 'toaster'"),
        (["--resume"], "holds no run to resume"),
        (["--resume", "--overwrite"], "exclude each other"),
        (["--model", "./nowhere"], "nowhere"),
        (["--data", "./nowhere"], "no such folder, and not a hub id"),
        (["--stop-after", "0"], "--stop-after is 0; allowed: at least 1"),
    ],
)
def test_bad_flags(
    rtok: Rtok, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rtok(*UNER, "--out", str(tmp_path / "run"), *flags) in (2, 3)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run").exists()


def test_a_resume_with_other_settings_is_refused(
    rtok: Rtok, speak_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        rtok(
            *UNER,
            "--tokenizer",
            "speak",
            "--out",
            str(speak_run),
            "--mimic",
            "embedded:ru",
            "--resume",
            "--reset-scale=1",
        )
        == 2
    )
    assert rtok(*UNER, "--tokenizer", "dytok-word", "--out", str(speak_run), "--resume") == 2
    assert "tokenizer is 'dytok-word' and was 'speak'" in capsys.readouterr().err


def test_a_run_is_not_written_over(rtok: Rtok, speak_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rtok(*UNER, "--tokenizer", "speak", "--out", str(speak_run)) == 2
    assert "holds a run; go on with --resume" in capsys.readouterr().err


def test_runs_side_by_side_and_their_table(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = load("compare_rtok/runs")

    def start(command: list[str], **options: Any) -> Any:
        """One of the two is a program, the other is forked."""
        return (Forked if "speak" in command else subprocess.Popen)(command, **options)

    monkeypatch.setattr(jobs, "subprocess", SimpleNamespace(Popen=start, TimeoutExpired=subprocess.TimeoutExpired))
    flags = ["--encoder", str(encoder), "--data", str(GOLDEN / "uner"), "--out", str(tmp_path / "runs"), "--seeds", "1"]
    flags += [
        "--tokenizers",
        "speak,reset-mode=soft,no-rest-term",
        "dytok-word",
        "--train",
        "en_ewt:train",
        "--select",
        "en_ewt:dev",
    ]
    flags += [
        "--evaluate",
        "en_ewt:dev",
        "--jobs",
        "2",
        "--device",
        "cpu",
        "--json",
        str(tmp_path / "all.json"),
        "--quiet",
    ]
    flags += ["--", "--epochs", "1", "--longest", "48", "--lora-rank", "2"]
    assert runs.main(flags) == 0
    text = capsys.readouterr().out
    assert "| dytok-word | 1 |" in text
    times = [p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*/results.json")]
    assert len(times) == 2
    assert runs.main(flags) == 0  # nothing left to do
    assert [p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*/results.json")] == times
    assert load("compare_rtok/tables").main([str(tmp_path / "all.json"), "--out", str(tmp_path / "table.md")]) == 0
    assert (tmp_path / "table.md").read_text(encoding="utf-8").strip() in text
