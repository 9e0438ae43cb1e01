"""A made-up encoder, in this file alone: it trains, is evaluated, exported or refused with its own reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import run_gtok
from torch import Tensor, nn

from speak_neuro.common.registry import Registry
from speak_neuro.config import ENCODERS, ModelConfig, TokenizerConfig
from speak_neuro.export.cli import main as export
from speak_neuro.inference.speak import Speak
from speak_neuro.tokenizer.encoder import Encoder


class Echo(Encoder):
    """f_t = (emb(c_t), emb(c_{t-2})): two characters, one of them left out."""

    left_context = 2
    why_no_table = "it was made up for a test"

    @classmethod
    def build(cls, config: TokenizerConfig, model: ModelConfig, vocabulary: int) -> Echo:
        encoder = cls(2 * config.encoder_width)
        encoder.embedding = nn.Embedding(vocabulary, config.encoder_width)
        return encoder

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        now = self.embedding(ids)
        return torch.cat([now, nn.functional.pad(now, (0, 0, 2, 0))[:, : ids.shape[1]]], dim=-1)


@pytest.fixture
def echo() -> Iterator[None]:
    ENCODERS.register("echo", f"{__name__}:Echo")
    yield
    ENCODERS.remove("echo")


def test_an_encoder_is_one_file_and_one_line(
    echo: None, excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = ["--data", str(excerpt), "--steps", "5", "--encoder", "echo", "--out", str(run)]
    assert run_gtok(*flags) == 0
    text = "a few words, and then some more"
    assert "".join(Speak.load(run).tokens(text)) == text
    assert export(["--to", "nir", "--run", str(run), "--quiet"]) == 0
    assert (run / "boundary.nir").exists()
    capsys.readouterr()
    assert export(["--to", "table", "--run", str(run)]) == 2
    assert "the echo encoder is no sum of tables over single characters: it was made up" in capsys.readouterr().err


def test_names_and_refusals() -> None:
    kinds = Registry("shape", {"round": "math:pi"})
    assert (list(kinds), "square" in kinds, kinds.load("round")) == (["round"], False, 3.141592653589793)
    with pytest.raises(ValueError, match="shape is 'square'; allowed: round"):
        kinds.load("square")
    with pytest.raises(ValueError, match="'round' is math:pi already"):
        kinds.register("round", "math:tau")
    with pytest.raises(ValueError, match="allowed: module:attribute"):
        kinds.register("square", "math")
