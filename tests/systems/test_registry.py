"""A made-up system, in this file alone: it trains, is evaluated, and stands in a table and a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from scripts import load
from tiny import run_gtok
from torch import Tensor, nn

from speak_neuro.config import SYSTEMS, RunConfig
from speak_neuro.systems.segmenter import Cut, Lesson, Segmenter
from speak_neuro.text.alphabet import Alphabet


class Vowels(Segmenter):
    """b_t = [c_t is a vowel], and a loss that pulls one number towards the share of boundaries."""

    @classmethod
    def build(cls, config: RunConfig, alphabet: Alphabet | None) -> Vowels:
        assert alphabet is not None
        return cls(alphabet)

    @classmethod
    def check(cls, config: RunConfig) -> str:
        return "--window is 65, which is odd; allowed for made-up: even" if config.training.window == 65 else ""

    def __init__(self, alphabet: Alphabet) -> None:
        super().__init__()
        vowels = torch.tensor([False, *(character in "aeiou" for character in alphabet.characters)])
        self.register_buffer("vowels", vowels, persistent=False)
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        return self.vowels[ids]

    def loss(self, cut: Cut, lesson: Lesson, step: int) -> tuple[Tensor, Tensor | None]:
        return (self.share - cut.boundaries.float().mean()) ** 2, None


@pytest.fixture
def vowels() -> Iterator[None]:
    SYSTEMS.register("made-up", f"{__name__}:Vowels")
    yield
    SYSTEMS.remove("made-up")


def test_a_system_is_one_file_and_one_line(
    vowels: None, excerpt: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, table, scores = tmp_path / "run", tmp_path / "table.md", tmp_path / "scores.json"
    flags = ["--data", str(excerpt), "--tokenizer", "made-up", "--out", str(run)]
    assert run_gtok(*flags, "--steps", "5", "--window", "65") == 2
    assert "--window is 65, which is odd" in capsys.readouterr().err
    assert run_gtok(*flags, "--steps", "5") == 0
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))["metrics"]
    assert 2 < results["test_shortening_factor"] < 4
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["loss_boundary"] > json.loads(lines[4])["loss_boundary"] > 0
    assert load("compare/evaluate").main(["--run", str(run), "--json", str(scores), "--device", "cpu"]) == 0
    assert load("compare/tables").main([str(run), str(tiny_run), "--out", str(table)]) == 0
    assert "made-up" in table.read_text(encoding="utf-8")
    pictures = tmp_path / "pictures"
    assert load("compare/plot").main([str(run), str(tiny_run), "--out", str(pictures)]) == 0
    assert len(list(tmp_path.glob("pictures*.png"))) == 2
