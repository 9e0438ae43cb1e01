"""The benchmark scripts, at sizes too small to mean anything: they run, gate, and write what plot_bench draws."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import load

from speak_neuro.config import ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.training.presets import PRESETS

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
MICRO = RunConfig(
    tokenizer=TokenizerConfig(encoder="window", encoder_width=8, context=2),
    model=ModelConfig(width=16, heads=2, inner=16, pre_layers=1, shortened_layers=1, post_layers=1),
    training=TrainingConfig(batch=2, window=32, warmup=1, learning_rate=1e-2),
)
NAMES = ("step_setup", "hourglass", "step", "precision", "profile_step", "plot")


@pytest.fixture
def scripts(monkeypatch):
    """The scripts as modules, with the size `tiny` replaced by a micro one."""
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    modules = {name: load("bench/" + name) for name in NAMES}
    modules["step_setup"].SIZES["tiny"] = MICRO
    preset = modules["hourglass"].Preset(
        {"width": 16, "heads": 2, "inner": 16, "pre_layers": 1, "shortened_layers": 1, "post_layers": 1}, 2, 32
    )
    modules["hourglass"].PRESETS["tiny"] = preset
    yield modules
    for name in NAMES:
        sys.modules.pop(name, None)


def test_bench_step_reports_ratios(scripts, capsys, tmp_path):
    flags = ["--models", "tiny", "--systems", "tiny", "--repeats", "1", "--no-memory"]
    assert scripts["step"].main([*flags, "--json", str(tmp_path / "bench_step.json")]) == 0
    output = capsys.readouterr().out
    assert "plain / package" in output
    assert "SPEAK / dtp-gumbel" in output
    metrics = json.loads((tmp_path / "bench_step.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["models"]["tiny"]["largest_difference"]["logits"] < 1e-4
    system = metrics["systems"]["tiny"]
    assert system["ratio"] == pytest.approx(system["speak"]["cpu_ms"] / system["dtp-gumbel"]["cpu_ms"])
    assert system["speak"]["steps_per_second"] > 0

    pytest.importorskip("matplotlib")
    assert scripts["plot"].main(["--results", str(tmp_path), "--out", str(tmp_path / "plot.png")]) == 0
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_bench_step_times_nothing_when_the_models_differ(scripts, monkeypatch, capsys):
    monkeypatch.setattr(scripts["hourglass"], "TOLERANCE", -1.0)
    assert scripts["step"].main(["--models", "tiny", "--systems"]) == 1
    captured = capsys.readouterr()
    assert "nothing was timed" in captured.err
    assert "package" not in captured.out


def test_the_profile_has_every_part(scripts, capsys, tmp_path):
    flags = ["--size", "tiny", "--steps", "2", "--json", str(tmp_path / "profile.json")]
    assert scripts["profile_step"].main(flags) == 0
    assert "acceptance" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "profile.json").read_text(encoding="utf-8"))["metrics"]
    parts = metrics["parts"]
    assert set(parts) == {*scripts["profile_step"].PARTS, "other"}
    assert all(part["milliseconds"] > 0 for part in parts.values())
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)


def test_the_gumbel_step_learns(scripts):
    step = scripts["step_setup"].gumbel_step(MICRO)
    records = [step() for _ in range(40)]
    assert records[-1]["loss_lm"] < 0.9 * records[0]["loss_lm"]
    assert all(1 < record["sf"] < 32 for record in records)
    again = scripts["step_setup"].gumbel_step(MICRO)
    assert [again() for _ in range(3)] == records[:3]


def test_speaks_step_decides_on_every_window(scripts):
    assert "changed" in scripts["step_setup"].speak_step(MICRO)()


def test_dropout_is_replaced_only_when_asked(scripts):
    configuration = scripts["step_setup"].configuration
    assert configuration("paper", None) == PRESETS["paper"]
    model = configuration("paper", 0.3).model
    assert (model.dropout, model.attention_dropout) == (0.3, 0.3)
    assert dataclasses.replace(model, dropout=0.1, attention_dropout=0.1) == PRESETS["paper"].model


def test_the_plot_names_what_is_missing(scripts, capsys, tmp_path):
    assert scripts["plot"].main(["--results", str(tmp_path)]) == 2
    assert "no results of benchmarks; run make bench" in capsys.readouterr().err
    (tmp_path / "bench_scan.json").write_text("{}", encoding="utf-8")
    assert scripts["plot"].main(["--results", str(tmp_path)]) == 2
    assert "bench_scan.json: not a benchmark's result" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scan", "step", "profile_step", "plot"])
def test_help_loads_nothing_heavy(name):
    code = (
        f"import sys; sys.path.insert(0, {str(EXPERIMENTS / 'bench')!r}); import {name}; "
        "print([m for m in ('torch', 'matplotlib', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bench_precision_compares_both_arithmetics(scripts, monkeypatch, capsys, tmp_path):
    flags = ["--sizes", "tiny", "--repeats", "1", "--json", str(tmp_path / "precision.json")]
    assert scripts["precision"].main(flags) == 0
    size = json.loads((tmp_path / "precision.json").read_text(encoding="utf-8"))["metrics"]["sizes"]["tiny"]
    assert size["ratio"] == pytest.approx(size["float32_ms"] / size["bfloat16_ms"])
    assert 0 < size["first_loss_difference"] < 0.02, "two arithmetics, of the same weights"
    assert size["evaluation_in_steps"] > size["windows_in_steps"] > 0
    monkeypatch.setattr(scripts["precision"], "TOLERANCE", 0.0)
    assert scripts["precision"].main(flags) == 1
    assert "the first losses differ by" in capsys.readouterr().err


def test_two_checkouts_are_measured_by_processor_time(tmp_path, capsys):
    file = tmp_path / "contenders.py"
    file.write_text("def contenders():\n    return {n: lambda n=n: sum(range(10**int(n))) for n in '46'}\n")
    tree = load("bench/against").Tree(tmp_path, file)
    assert tree.names == ["4", "6"]
    assert tree.seconds("6", 0.05) > 5 * tree.seconds("4", 0.05)
    tree.end()
    assert load("bench/against").main([str(tmp_path)]) == 2
    assert "no such file; write the other tree's contenders" in capsys.readouterr().err


def test_the_other_checkout_is_the_one_that_is_imported(tmp_path, monkeypatch):
    """Named from where one stands too: otherwise the installed package would be measured twice."""
    package = tmp_path / "other" / "speak_neuro"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("NAME = 'the other one'\n")
    file = tmp_path / "contenders.py"
    file.write_text("import speak_neuro\ndef contenders():\n    return {speak_neuro.NAME: lambda: None}\n")
    monkeypatch.chdir(tmp_path)
    tree = load("bench/against").Tree(Path("other"), file)
    tree.end()
    assert tree.names == ["the other one"]
