"""The character tokenizer: its table, its bound, units apart from each other, limits on the host, its run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rtok_text_fixtures import check_joined, lively_tokenizer, word_batch

from speak_neuro.config import TokenizerConfig
from speak_neuro.errors import SpeakError
from speak_neuro.inference.speak import Speak
from speak_neuro.rtok.text.limits import Limits, clip, openings, tokens_of
from speak_neuro.rtok.text.normalise import normalise, normalise_words
from speak_neuro.rtok.text.segmenter import Segmenter
from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer, SpeakSegmenter, rtok_config


@pytest.mark.parametrize("mode", ["gated", "hard", "soft", "none", "hard/none"])
def test_segments_and_joins(mode: str) -> None:
    segmenter = SpeakSegmenter(lively_tokenizer(mode))
    assert isinstance(segmenter, Segmenter)
    batch = [*word_batch(), []]
    found = segmenter.segment(batch, "en")
    check_joined(batch, found, segmenter.name)
    assert sum(len(tokens) for units in found for tokens in units) > sum(map(len, batch))


def test_a_unit_depends_on_no_other() -> None:
    segmenter, batch = SpeakSegmenter(lively_tokenizer()), word_batch()
    together = segmenter.segment(batch, "en")
    for units, tokens in zip(batch, together, strict=True):
        for unit, parts in zip(units, tokens, strict=True):
            assert segmenter.segment([[unit]], "ru") == [[parts]]


def test_the_module_is_the_encoder_and_the_neuron() -> None:
    """The table gives what the modules give character by character."""
    tokenizer = lively_tokenizer()
    ids, valid = tokenizer.rows([unit for units in word_batch() for unit in units])
    by_table, by_module = tokenizer(ids, valid), tokenizer.boundary(ids, valid=valid)
    assert torch.allclose(by_table.current, by_module.current, atol=1e-5)
    assert torch.allclose(by_table.gate_logit, by_module.gate_logit, atol=1e-5)
    assert (by_table.spikes * ~valid == 0).all()


def test_tanh_bounds_what_can_spike() -> None:
    """|I| < 1: no spike at a unit's start, none right after a hard reset."""
    tokenizer = lively_tokenizer("hard")
    with torch.no_grad():
        tokenizer.boundary.current_readout.bias.add_(3)
    spikes = tokenizer.spikes([normalise("a" * 200), normalise("the sun is warm")])
    assert spikes[0].sum() > 50
    for row in spikes:
        assert not row[0]
        assert not (row[1:] & row[:-1]).any()


def test_gradients_reach_every_weight() -> None:
    tokenizer = lively_tokenizer()
    ids, valid = tokenizer.rows(word_batch()[0])
    found = tokenizer(ids, valid)
    (found.membrane[valid].sum() + found.gate_logit[valid].sum()).backward()
    for name, parameter in tokenizer.boundary.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_long_word() -> None:
    segmenter = SpeakSegmenter(lively_tokenizer())
    word = normalise("x" + "ab" * 50_000)
    ((tokens,),) = segmenter.segment([[word]], "en")
    assert "".join(tokens) == word
    assert max(map(len, tokens)) <= 32


def test_spikes_do_not_depend_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = lively_tokenizer()
    units = [unit for units in word_batch() for unit in units]
    before = tokenizer.spikes([*units, ""])
    monkeypatch.setattr("speak_neuro.rtok.tokenizers.speak.POSITIONS", 20)
    for a, b in zip(before, tokenizer.spikes([*units, ""]), strict=True):
        assert np.array_equal(a, b)


UNITS = st.lists(st.text("abcdé好", min_size=1, max_size=40), min_size=1, max_size=5).map(
    lambda words: "".join("▁" + word for word in words)
)


@given(UNITS, st.data())
@settings(max_examples=200)
def test_limits_keep_the_text(unit: str, data: st.DataObject) -> None:
    spikes = np.array(data.draw(st.lists(st.booleans(), min_size=len(unit), max_size=len(unit))))
    count = lambda token: len(token.encode("utf-8"))  # noqa: E731
    limits = Limits(characters=9, pieces=7, count_pieces=count)
    tokens = tokens_of(unit, spikes, limits)
    assert "".join(tokens) == unit
    assert all(len(token) <= 9 and (count(token) <= 7 or len(token) == 1 or "▁" in token) for token in tokens)
    assert all("▁" not in token[1:] for token in tokens)
    opens = openings(tokens)
    assert opens.sum() == len(tokens)
    wanted = spikes | np.array([character == "▁" for character in unit])
    wanted[0] = True
    assert (opens >= wanted).all()


def test_limits_by_hand() -> None:
    none = np.zeros(12, dtype=bool)
    assert tokens_of("▁abcdef▁ghij", none) == ["▁abcdef", "▁ghij"]
    assert tokens_of("▁abcdef▁ghij", none, Limits(characters=4)) == ["▁abc", "def", "▁ghi", "j"]
    pieces = Limits(pieces=4, count_pieces=len)
    assert tokens_of("▁abcdef▁ghij", none, pieces) == ["▁abc", "def", "▁ghi", "j"]
    with pytest.raises(ValueError, match="pieces is 3; allowed: at least 4"):
        Limits(pieces=3)
    with pytest.raises(ValueError, match="allowed: one for each"):
        tokens_of("ab", [True])


def test_clip() -> None:
    assert clip(["▁abc", "▁d", "▁efg"], 5) == ["▁abc", "▁"]
    assert clip(["▁abc", "▁d"], 4) == ["▁abc"]
    assert clip(["▁abc"]) == ["▁abc"]


def test_run_folder(tmp_path: Path) -> None:
    tokenizer = lively_tokenizer("gated")
    tokenizer.save(tmp_path / "run", {"data": {"languages": ["en"]}})
    again = CharacterTokenizer.load(tmp_path / "run")
    batch = word_batch()
    assert SpeakSegmenter(again).segment(batch, "en") == SpeakSegmenter(tokenizer).segment(batch, "en")
    assert again.config == tokenizer.config
    assert again.alphabet == tokenizer.alphabet


def test_wrong_folders(tmp_path: Path, tiny_run: Path) -> None:
    with pytest.raises(SpeakError, match="not an RTok tokenizer but a GTok run"):
        CharacterTokenizer.load(tiny_run)
    with pytest.raises(SpeakError, match="no such run folder"):
        CharacterTokenizer.load(tmp_path / "nothing")
    lively_tokenizer().save(tmp_path / "run")
    with pytest.raises(SpeakError, match="an RTok tokenizer"):
        Speak.load(tmp_path / "run")
    with pytest.raises(SpeakError, match="encoder is 'hourglass'; allowed for an RTok tokenizer: linear, window"):
        CharacterTokenizer(lively_tokenizer().alphabet, rtok_config(tokenizer=TokenizerConfig(encoder="hourglass")))


def test_layers_of_the_encoder() -> None:
    config = rtok_config(tokenizer=TokenizerConfig(encoder="linear", encoder_width=8, tanh=True, encoder_layers=3))
    tokenizer = CharacterTokenizer(lively_tokenizer().alphabet, config)
    assert sum("more" in name for name in tokenizer.state_dict()) == 2 * 4
    assert tokenizer.table().shape == (len(tokenizer.alphabet), 2)
    assert normalise_words(["a"]) == ["▁a"]
