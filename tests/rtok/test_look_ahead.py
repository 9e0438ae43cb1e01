"""A look-ahead is a delay: what it may see, what it is on a chip, and that without one nothing changes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rtok_text_fixtures import SENTENCES, ahead_tokenizer, lively_tokenizer, word_batch

from speak_neuro.api.tokenizer import Tokenizer
from speak_neuro.config import NeuronConfig, TokenizerConfig, TrainingConfig
from speak_neuro.errors import SpeakError
from speak_neuro.neuron.reference import gated_lif_run
from speak_neuro.rtok.text.normalise import WORD, normalise
from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer, SpeakSegmenter, rtok_config
from speak_neuro.rtok.training.learn import mimicry_loss
from speak_neuro.rtok.training.mimic import mimic, piece_targets
from speak_neuro.supervision.losses import spike_loss
from speak_neuro.systems.run_folder import read_run

TOKENIZERS = {
    (encoder, ahead): ahead_tokenizer(encoder, 6, ahead) for encoder in ("window", "convolution") for ahead in (0, 1, 4)
}
LETTERS = "".join(sorted({character for units in word_batch() for unit in units for character in unit} - {WORD}))
WORDS = st.text(LETTERS, min_size=1, max_size=40).map(lambda word: WORD + word)


def without_delay(tokenizer: CharacterTokenizer) -> CharacterTokenizer:
    """The same weights, deciding at once."""
    other = CharacterTokenizer(tokenizer.alphabet, tokenizer.config)
    other.load_state_dict(tokenizer.state_dict())
    return other


@pytest.mark.parametrize("which", sorted(TOKENIZERS))
@given(words=st.lists(WORDS, min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_a_look_ahead_is_a_shift(which: tuple[str, int], words: list[str]) -> None:
    """Spikes are those of the tokenizer without a delay on the word and the signs after it, so many steps later."""
    tokenizer, ahead = TOKENIZERS[which], which[1]
    at_once = without_delay(tokenizer).spikes([word + WORD * ahead for word in words])
    for late, early, word in zip(tokenizer.spikes(words), at_once, words, strict=True):
        assert len(late) == len(word)
        assert np.array_equal(late, early[ahead:])


@pytest.mark.parametrize("which", sorted(TOKENIZERS))
@given(word=WORDS, other=WORDS, place=st.integers(0, 40))
@settings(max_examples=15, deadline=None)
def test_nothing_beyond_the_look_ahead_counts(which: tuple[str, int], word: str, other: str, place: int) -> None:
    """Two words equal up to character t + a have the same decisions up to t."""
    tokenizer, ahead = TOKENIZERS[which], which[1]
    common = word[: place + 1]
    first, second = tokenizer.spikes([word, common + other[1:]])
    decided = max(0, min(len(common), place + 1) - ahead)
    assert np.array_equal(first[:decided], second[:decided])


def test_what_is_ahead_does_count() -> None:
    """Changing the a-th character after some t changes a decision about a t, for each a up to the look-ahead."""
    for encoder in ("window", "convolution"):
        tokenizer = TOKENIZERS[encoder, 4]
        words = [unit for units in word_batch() for unit in units if len(unit) > 8][:3]
        for ahead in range(1, 5):
            place = 6
            changed = [w[:place] + c + w[place + 1 :] for w in words for c in LETTERS[::3]]
            same = [w for w in words for _ in LETTERS[::3]]
            pairs = zip(tokenizer.spikes(changed), tokenizer.spikes(same), strict=True)
            assert any(a[place - ahead] != b[place - ahead] for a, b in pairs), (encoder, ahead)


@pytest.mark.parametrize("mode", ["gated", "hard", "soft"])
@pytest.mark.parametrize("encoder", ["window", "convolution"])
def test_the_neuron_s_steps_by_the_reference(encoder: str, mode: str) -> None:
    """The canonical currents through the numpy neuron, step by step, are what `spikes` decides."""
    tokenizer = ahead_tokenizer(encoder, 5, 2, mode)
    count = 0
    for unit in [unit for units in word_batch() for unit in units]:
        trace = tokenizer.engine().run(tokenizer.alphabet.encode(unit + WORD * 2))
        parameters = tokenizer.boundary.neuron.parameters_numpy()
        spikes = gated_lif_run(trace.current[None], trace.gate_logit[None], parameters).spikes[0]
        (found,) = tokenizer.spikes([unit])
        assert np.array_equal(spikes[2:].astype(bool), found)
        count += int(found.sum())
    assert count > 30


@pytest.mark.parametrize("which", sorted(TOKENIZERS))
def test_training_sees_what_inference_decides(which: tuple[str, int]) -> None:
    """The differentiable pass over padded rows: currents up to rounding, spikes where no rounding decides."""
    tokenizer = TOKENIZERS[which]
    units = [unit for units in word_batch() for unit in units]
    ids, valid = tokenizer.rows(units)
    found = tokenizer(ids, valid)
    assert found.membrane.shape == ids.shape
    clear = ((found.membrane - 1).abs() > 1e-4) & valid
    for row, spikes in enumerate(tokenizer.spikes(units)):
        at = clear[row, : len(spikes)]
        assert torch.equal(found.spikes[row, : len(spikes)][at].bool(), torch.from_numpy(spikes)[at])
    assert (found.spikes[~valid] == 0).all()
    assert clear.sum() > 0.9 * valid.sum()


def test_a_unit_depends_on_no_other() -> None:
    for tokenizer in TOKENIZERS.values():
        segmenter, batch = SpeakSegmenter(tokenizer), word_batch()
        for units, tokens in zip(batch, segmenter.segment(batch, "en"), strict=True):
            for unit, parts in zip(units, tokens, strict=True):
                assert segmenter.segment([[unit]], "ru") == [[parts]]


def test_the_paper_s_tokenizer_is_what_it_was() -> None:
    """Without a look-ahead: the table's currents and the neuron, in one expression."""
    tokenizer = lively_tokenizer()
    ids, valid = tokenizer.rows([unit for units in word_batch() for unit in units])
    current, gate = torch.nn.functional.embedding(ids, tokenizer.table()).unbind(-1)
    spikes, membrane, state = tokenizer.boundary.neuron(current.contiguous(), gate.contiguous(), None, valid)
    found = tokenizer(ids, valid)
    for ours, theirs in ((found.spikes, spikes), (found.membrane, membrane), (found.current, current)):
        assert torch.equal(ours[valid], theirs[valid])
    assert torch.equal(found.state, state)


def test_the_spike_loss_of_decided_characters() -> None:
    """Binary cross-entropy of slope * (u - threshold) + price over the characters that count, by hand."""
    tokenizer = TOKENIZERS["window", 4]
    units = [unit for units in word_batch() for unit in units]
    ids, valid = tokenizer.rows(units)
    counted = valid.clone()
    counted[:, 0] = False
    proxy = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    found = tokenizer(ids, valid)
    logit = 4 * (found.membrane.detach().double() - 1) + 0.5
    nats = [float(torch.log1p(torch.exp(-x if p else x))) for x, p in zip(logit[counted], proxy[counted], strict=True)]
    loss = mimicry_loss(tokenizer, found, proxy, counted, 0.5)
    assert float(loss.detach()) == pytest.approx(np.mean(nats), rel=1e-5)
    everything = torch.ones_like(proxy)
    assert float(spike_loss(found.membrane, proxy, valid=everything).detach()) == pytest.approx(
        float(spike_loss(found.membrane, proxy).detach()), rel=1e-6
    )


def test_padding_has_no_gradient() -> None:
    membrane = torch.tensor([[0.5, float("inf")], [2.0, float("nan")]], requires_grad=True)
    loss = spike_loss(membrane, torch.zeros(2, 2), valid=torch.tensor([[True, False], [True, False]]))
    loss.backward()
    assert membrane.grad is not None
    assert loss.isfinite()
    assert (membrane.grad[:, 1] == 0).all()


@pytest.mark.parametrize(("encoder", "needed"), [("convolution", 1), ("window", 2)])
def test_what_comes_after_can_be_learned(encoder: str, needed: int) -> None:
    """A token opens before every "e": nothing that reads up to the present character can know it."""

    def exemplar(unit: str) -> list[str]:
        cuts = [0, *(t for t in range(1, len(unit) - 1) if unit[t + 1] == "e"), len(unit)]
        return [unit[a:b] for a, b in pairwise(cuts)]

    units = [unit for units in word_batch() for unit in units] * 10
    targets = piece_targets(units, exemplar)
    missed = {}
    for ahead in (0, needed):
        tokenizer = ahead_tokenizer(encoder, 3, ahead, "hard")
        mimic(tokenizer, units, targets, epochs=15, learning_rate=2e-2, positions=512)
        wrong = [(spikes ^ target)[1:] for spikes, target in zip(tokenizer.spikes(units), targets, strict=True)]
        missed[ahead] = float(np.concatenate(wrong).mean())
    assert missed[needed] < 0.2 * missed[0]


@pytest.mark.parametrize("which", sorted(TOKENIZERS))
def test_a_folder(which: tuple[str, int], tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[which]
    tokenizer.save(tmp_path / "run")
    again = CharacterTokenizer.load(tmp_path / "run")
    assert again.look_ahead == tokenizer.look_ahead
    assert read_run(tmp_path / "run").record["look_ahead"] == which[1]
    units = [unit for units in word_batch() for unit in units]
    for a, b in zip(again.spikes([*units, ""]), tokenizer.spikes([*units, ""]), strict=True):
        assert np.array_equal(a, b)


def test_a_folder_of_before(tmp_path: Path) -> None:
    """Folders that say nothing of a look-ahead have none."""
    tokenizer = lively_tokenizer()
    tokenizer.save(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    from speak_neuro.common.digests import DIGEST, digest_of

    described = {name: value for name, value in described.items() if name not in ("look_ahead", DIGEST)}
    (tmp_path / "config.json").write_text(json.dumps({**described, DIGEST: digest_of(described)}), encoding="utf-8")
    assert CharacterTokenizer.load(tmp_path).look_ahead == 0
    described["look_ahead"] = 9
    (tmp_path / "config.json").write_text(json.dumps({**described, DIGEST: digest_of(described)}), encoding="utf-8")
    with pytest.raises(SpeakError, match="look_ahead is 9; allowed: 0 to 4"):
        CharacterTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("encoder", "context", "ahead", "message"),
    [
        ("linear", 1, 1, "look_ahead is 1; allowed with the linear encoder, which sees 1 character: 0, "),
        ("window", 3, 3, "look_ahead is 3; allowed with the window encoder, which sees 3 characters: 0 to 2, "),
        ("window", 12, 5, "look_ahead is 5; allowed: 0 to 4"),
        ("convolution", 8, -1, "look_ahead is -1; allowed: 0 to 4"),
        ("convolution", 8, True, "look_ahead is True; allowed: 0 to 4"),
    ],
)
def test_refusals(encoder: str, context: int, ahead: int, message: str) -> None:
    config = rtok_config(NeuronConfig(), TokenizerConfig(encoder=encoder, context=context), TrainingConfig())
    with pytest.raises(SpeakError, match=message):
        CharacterTokenizer(lively_tokenizer().alphabet, config, ahead)


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_tables_of_a_convolution(ahead: int, tmp_path: Path) -> None:
    """The table cuts as the tokenizer does, with its delay, saved too; a window has no table and says so."""
    tokenizer = TOKENIZERS["convolution", ahead]
    tokenizer.save(tmp_path / "run")
    whole = Tokenizer.load(tmp_path / "run")
    whole.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    count = 0
    for text in SENTENCES:
        (wanted,) = SpeakSegmenter(tokenizer).segment([[normalise(text)]], "en")
        tokens = [token.replace(WORD, " ") for token in wanted[0]]
        assert whole.tokens(text) == tokens
        assert again.tokens(text) == tokens
        count += len(tokens)
    assert count > 60
    TOKENIZERS["window", ahead].save(tmp_path / "window")
    with pytest.raises(SpeakError, match="window encoder is no sum of tables over single characters"):
        Tokenizer.load(tmp_path / "window")
