"""The Hourglass of two levels: what reads what, and nothing of the future."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scripts import load

from speak_neuro.model.hourglass import Hourglass, HourglassConfig


@pytest.fixture
def levels() -> Any:
    return load("compare/two_levels_model")


def test_words_end_where_their_last_piece_does(levels: Any) -> None:
    """Slot s holds the s-th piece of its row; a hard flag without a spike ends nothing."""
    spikes = torch.tensor([[0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 1]], dtype=torch.bool)
    hard = torch.tensor([[1, 0, 1, 0, 1, 1], [1, 1, 0, 0, 0, 0]], dtype=torch.bool)
    found = levels.words_of_pieces(spikes, hard, 4)
    assert found.tolist() == [[False, False, True, True], [False, True, False, False]]
    assert not levels.words_of_pieces(spikes, None, 4).any()


def test_nothing_of_the_future(levels: Any) -> None:
    """Other characters, spikes and words after a place change no logit up to it, and do change later ones."""
    torch.manual_seed(1)
    config = HourglassConfig(11, 16, 2, 32, 1, 4, 1, dropout=0.0, attention_dropout=0.0)
    model = levels.TwoLevels(Hourglass(config)).eval()
    for layer in model.modules():  # a part that begins at zero would read nothing
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.normal_(layer.weight, 0.0, 0.3)
    ids, others = torch.randint(0, 11, (2, 3, 40))
    spikes, words = torch.rand(2, 3, 40) > 0.6
    last = 17
    changed = [torch.cat([one[:, : last + 1], other[:, last + 1 :]], 1)
               for one, other in ((ids, others), (spikes, ~spikes), (words, ~words))]  # fmt: skip
    with torch.no_grad():
        before = model.decode(model.pre(ids), spikes, words)
        after = model.decode(model.pre(changed[0]), *changed[1:])
        without = model.decode(model.pre(ids), spikes, ~words)
    assert torch.allclose(before[:, : last + 1], after[:, : last + 1], atol=1e-5)
    assert not torch.allclose(before[:, last + 1 :], after[:, last + 1 :], atol=1e-3)
    assert not torch.allclose(before, without, atol=1e-3)


def test_the_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every arm trains, is scored, and is left out on --resume."""
    for name, text in (("train", "one word after another and again " * 160), ("valid", "a word " * 60)):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "test.txt").write_text("another word " * 40, encoding="utf-8")
    out = tmp_path / "levels.json"
    command = ["--data", str(tmp_path), "--preset", "smoke", "--steps", "2", "--characters", "300", "--seeds", "1"]
    script = load("compare/two_levels")
    assert script.main([*command, "--json", str(out)]) == 0
    assert capsys.readouterr().out.count("token dependence") == 4
    assert script.main([*command, "--json", str(out), "--resume"]) == 0
    told = capsys.readouterr().out
    assert "token dependence" not in told
    assert told.count("gated against") == 3
    assert script.main([*command, "--steps", "3", "--json", str(out), "--resume"]) == 2
    assert "has other settings" in capsys.readouterr().err
