"""speak-train: what it says while it trains and at the end, whoever reads it, and its help."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY_FLAGS

from speak_neuro.config import NeuronConfig, RunConfig
from speak_neuro.errors import MissingExtra
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.command import build_parser, main
from speak_neuro.training.words import Progress, advice, in_colour, logger_to, sample, white_space_f1


def train(excerpt: Path, out: Path, *flags: str) -> int:
    return main([*[f for f in TINY_FLAGS if f != "--quiet"], "--data", str(excerpt), "--out", str(out), *flags])


def test_a_run_without_a_terminal(excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(excerpt, tmp_path / "run", "--steps", "40") == 0
    out, error = capsys.readouterr()
    assert "\r" not in error
    plain = [line for line in error.splitlines() if re.match(r"step \d+ of 40: bpc \d", line)]
    assert len(plain) == 20
    assert "step 40: validation bpc" in error
    shown = [line for line in out.splitlines() if line.startswith("  ")]
    text = excerpt.read_text(encoding="utf-8")
    assert len(shown) == 3
    flat = "".join(" " if c.isspace() else c for c in text)
    assert all(line[2:].replace("|", "").replace("‖", "")[:40] in flat for line in shown)
    assert f"run folder {tmp_path / 'run'}" in out
    assert (tmp_path / "run" / "config.json").read_text(encoding="utf-8").count('"command": "speak-train') == 1


def test_quiet_says_no_progress(excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(excerpt, tmp_path / "run", "--steps", "4", "--quiet") == 0
    assert " of 4: bpc" not in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar() -> None:
    stream = Terminal()
    progress = Progress(10, 0, False, stream)
    for step in range(1, 4):
        progress.step({"step": step, "bpc": 2.0, "sf": 4.0, "gate_rate": 0.25, "characters_per_second": 100.0})
    progress.say("a line")
    progress.close()
    assert "\r" in stream.getvalue()
    assert "gate=25%" in stream.getvalue()
    assert "a line\n" in stream.getvalue()


def test_advice() -> None:
    config = RunConfig()
    assert advice(config, 4.0, 0.15, 0.6) == []
    (low,) = advice(config, 1.5, 0.15)
    assert "shortening factor 1.50, outside 2 to 8: tokens are hardly longer" in low
    (high,) = advice(config, 295.0, 0.15)
    assert "the neuron hardly fires" in high
    assert "--steps, now" in high
    (dead,) = advice(config, 4.0, 0.0)
    assert "the gate hardly opens (gate rate 0.0%)" in dead
    assert "--reset-positive-weight (now 1)" in dead
    soft = dataclasses.replace(config, neuron=NeuronConfig(reset_mode="soft"))
    assert advice(soft, 4.0, 0.0) == []
    (spaces,) = advice(config, 5.0, 0.15, 0.99)
    assert "those of white space (F1 0.990)" in spaces


def test_warnings_are_said(
    gtok: Callable[..., int], excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", str(excerpt), "--out", str(tmp_path / "run"), "--steps", "2", "--threshold", "1000"]
    assert gtok(*flags) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert "the neuron hardly fires" in warnings[0]
    assert "the gate hardly opens" in warnings[1]


def test_white_space() -> None:
    text = "one two  three\nfour"
    after = np.array([c.isspace() for c in text])
    after[7] = False  # of two spaces the last one closes
    assert white_space_f1(text, after) == 1.0
    before = np.zeros_like(after)
    before[[2, 6, 13]] = True
    assert white_space_f1(text, before) == 1.0
    assert white_space_f1(text, np.arange(len(text)) % 5 == 0) < 0.7
    assert white_space_f1("的一是不了" * 20, np.ones(100, dtype=np.bool_)) == 0.0


def test_sample_in_bars_and_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a line of text\nand more"
    alphabet = Alphabet.learn(text)
    fired = np.array([c.isspace() for c in text])
    hard = fired.copy()
    hard[1] = False
    ids = alphabet.encode(text)
    assert sample(alphabet, ids, fired, hard, False) == ["a |line ‖of ‖text ‖and ‖more"]
    (coloured,) = sample(alphabet, ids, fired, hard, True)
    assert re.sub("\033\\[[0-9;]*m", "", coloured) == "a line ‖of ‖text ‖and ‖more"
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert in_colour(Terminal())
    assert not in_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not in_colour(Terminal())


def test_help_shows_what_matters_first(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, shown in (("--help", False), ("--help-all", True)):
        with pytest.raises(SystemExit) as ended:
            main([flag])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert all(f in text for f in ("--data", "--out", "--steps", "--resume", "--encoder", "speak-train"))
        assert ("--surrogate-slope" in text) == shown
        assert ("The boundary neuron" in text) == shown
    assert len(build_parser()._actions) == len(build_parser(everything=False)._actions)


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[dict[str, float], int]] = []

    class Run:
        def log(self, record: dict[str, float], step: int) -> None:
            seen.append((record, step))

    module = types.ModuleType("wandb")
    module.init = lambda **given: Run()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    logger_to("wandb", tmp_path, {})({"step": 3, "bpc": 2.0})
    assert seen == [({"step": 3, "bpc": 2.0}, 3)]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match="wandb is not installed: pip install wandb"):
        logger_to("wandb", tmp_path, {})


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None: ...
        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, value, step))

        def flush(self) -> None: ...

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    logger_to("tensorboard", tmp_path, {})({"step": 3, "valid_bpc": 2.0})
    assert seen == [("valid_bpc", 2.0, 3)]
