"""Every system of Table 1: where it cuts constructed input, that it never looks ahead, and its settings' limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from speak_neuro.config import SYSTEMS, ModelConfig, RunConfig, TokenizerConfig, parse_priors
from speak_neuro.errors import SpeakError
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.model.hourglass import predictor_view
from speak_neuro.systems.fixed import FixedLength
from speak_neuro.systems.magnet import Magnet
from speak_neuro.systems.scripts import script_of, script_table
from speak_neuro.systems.segmenter import build_segmenter
from speak_neuro.systems.system import System
from speak_neuro.systems.whitespace import WhiteSpace
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.evaluation import evaluate

TEXT = "The quick brown fox, мягких французских булок; \n the lazy dog." * 4
ALPHABET = Alphabet.learn(TEXT)


def config_of(kind: str, **settings: object) -> RunConfig:
    return RunConfig(
        tokenizer=TokenizerConfig(kind=kind, encoder="window", encoder_width=16, context=3, **settings),  # type: ignore[arg-type]
        model=ModelConfig(width=16, heads=2, inner=32, pre_layers=1, shortened_layers=1, post_layers=1),
    )


def system_of(kind: str, **settings: object) -> System:
    """Untrained, its boundary logits spread enough that some are boundaries and some are not."""
    torch.manual_seed(0)
    system = System(config_of(kind, **settings), len(ALPHABET), ALPHABET).eval()
    with torch.no_grad():
        if kind == "speak":
            system.tokenizer.current_readout.weight.normal_(0, 0.5)
            system.tokenizer.current_readout.bias.fill_(0.5)
        for name, parameter in system.boundary_module.named_parameters():
            if name.endswith(("expand.weight", "contract.weight")):
                parameter.normal_(0, 1.0)
    return system


@pytest.mark.parametrize("kind", SYSTEMS)
def test_no_system_reads_the_future(kind: str) -> None:
    """Characters after a position change neither its boundary nor its logits."""
    system = system_of(kind, script_priors="latin=0.2,cyrillic=0.1" if kind == "magnet" else "")
    ids = torch.from_numpy(ALPHABET.encode(TEXT)[None, :96].astype(np.int64))
    changed = ids.clone()
    changed[:, 60:] = ids[:, 60:].flip(1)
    if kind == "magnet":  # the row's script is read from the whole row, so keep it what it was
        assert system.segmenter.route(ids).equal(system.segmenter.route(changed))  # type: ignore[union-attr,operator]
    outputs = []
    for row in (ids, changed):
        hidden = system.language_model.pre(row)
        found = system.segment(row, hidden)
        assert found.boundaries.dtype == torch.bool
        assert (found.hard is not None) == (kind == "speak")
        logits = system.language_model.decode(hidden, found.boundaries, found.confidence)
        outputs.append((found.boundaries[:, :60], logits[:, :60]))
    assert outputs[0][0].equal(outputs[1][0])
    assert torch.allclose(outputs[0][1], outputs[1][1], atol=1e-6)
    if kind not in ("vanilla", "fixed"):
        assert 0 < int(outputs[0][0].sum()) < 60


@pytest.mark.parametrize("kind", SYSTEMS)
def test_evaluation_does_not_depend_on_the_batch(kind: str) -> None:
    system, ids = system_of(kind), ALPHABET.encode(TEXT)
    alone, together = (evaluate(system, ids, 32, batch=batch) for batch in (1, 7))
    assert alone.tokens == together.tokens
    assert alone.bpc == pytest.approx(together.bpc, abs=1e-6)
    assert alone.shortening_factor == pytest.approx(len(ids) / alone.tokens)


def test_fixed_cuts_every_nth_position() -> None:
    found = FixedLength(3)(torch.zeros(2, 8, dtype=torch.long))
    assert found.tolist() == [[False, False, True, False, False, True, False, False]] * 2


def test_white_space_closes_the_token_it_ends() -> None:
    text = "a bc\n  d"
    alphabet = Alphabet.learn(text)
    ids = torch.from_numpy(alphabet.encode(text).astype(np.int64))[None]
    assert WhiteSpace(alphabet)(ids)[0].tolist() == [c.isspace() for c in text]
    unknown = torch.zeros(1, 2, dtype=torch.long)
    assert not WhiteSpace(alphabet)(unknown).any()


def test_vanilla_runs_all_layers_at_full_resolution() -> None:
    system = system_of("vanilla")
    assert len(system.language_model.pre_stack.layers) == 3
    assert not hasattr(system.language_model, "shortened_stack")
    assert sum(p.numel() for p in system.boundary_module.parameters()) == 0


def test_scripts() -> None:
    # Letters whose names do not begin with their script.
    assert [script_of(c) for c in "ªＡ𝐀々"] == ["latin", "latin", None, "cjk"]
    found = {c: script_of(c) for c in "aé1 ж\u05d0ü字あ\u0905"}
    assert found == {
        "a": "latin", "é": "latin", "ü": "latin", "1": None, " ": None, "ж": "cyrillic", "\u05d0": "hebrew",
        "字": "cjk", "あ": "hiragana", "\u0905": "devanagari",
    }  # fmt: skip
    table = script_table(Alphabet("aж1"), ["cyrillic"])
    assert table.tolist() == [1, 1, 0, 1]


def test_magnet_routes_rows_by_script_and_each_script_has_its_prior() -> None:
    alphabet = Alphabet("abcжзй 123\u05d0\u05d1")
    magnet = Magnet(config_of("magnet", script_priors="latin=0.2,cyrillic=0.1"), alphabet)
    rows = ["aж bc", "жз a1", "123 1", "\u05d0\u05d1\u05d0a "]
    ids = torch.from_numpy(np.stack([alphabet.encode(row) for row in rows]).astype(np.int64))
    assert magnet.route(ids).tolist() == [0, 1, 2, 0]
    assert magnet.priors(ids, 0.3).tolist() == pytest.approx([0.2, 0.1, 0.3, 0.2])
    hidden = torch.randn(4, 5, magnet.config.model.width)
    together, seen = magnet.predict(ids, hidden, sample=False).logit, predictor_view(hidden, magnet.norm)
    for row, number in enumerate([0, 1, 2, 0]):
        own = [*magnet.predictors, magnet.predictor][number]
        assert torch.allclose(together[row], own(seen[row : row + 1], False).logit[0], atol=1e-6)
    logit = magnet.predict(ids[:1], hidden[:1], sample=True)
    logit.boundaries.sum().backward()
    assert magnet.predictors[0].expand.weight.grad is not None
    assert magnet.predictors[1].expand.weight.grad is None


def test_magnet_of_one_script_is_dtp_gumbel() -> None:
    magnet, gumbel = system_of("magnet"), system_of("dtp-gumbel")
    gumbel.load_state_dict(magnet.state_dict())
    ids = torch.from_numpy(ALPHABET.encode(TEXT)[None, :64].astype(np.int64))
    hidden = gumbel.language_model.pre(ids)
    assert magnet.segment(ids, hidden).boundaries.equal(gumbel.segment(ids, hidden).boundaries)


def test_sampling_at_evaluation_is_a_setting() -> None:
    drawn, likeliest = system_of("dtp-gumbel", sample_at_evaluation=True), system_of("dtp-gumbel")
    ids = torch.from_numpy(ALPHABET.encode(TEXT)[None].astype(np.int64))
    hidden = likeliest.language_model.pre(ids)
    assert likeliest.segment(ids, hidden).boundaries.equal(likeliest.segment(ids, hidden).boundaries)
    with torch.no_grad():
        drawn.segmenter.predictor.contract.weight.zero_()  # type: ignore[union-attr,operator]
    assert not drawn.segment(ids, hidden).boundaries.equal(drawn.segment(ids, hidden).boundaries)


def test_what_needs_the_alphabet_says_so() -> None:
    for kind in ("whitespace", "magnet"):
        with pytest.raises(ValueError, match="alphabet is None"):
            build_segmenter(config_of(kind), None)


@pytest.mark.parametrize("text", ["latin", "latin=", "latin=0", "latin=1", "1=0.2", "latin=0.2,", "latin=nan"])
def test_bad_priors(text: str) -> None:
    with pytest.raises(ValueError, match="script_priors"):
        dataclasses.replace(TokenizerConfig(), script_priors=text)


def test_priors() -> None:
    assert parse_priors("Latin=0.2,cyrillic=0.08") == {"latin": 0.2, "cyrillic": 0.08}
    assert parse_priors("") == {}


def test_only_speak_tokenizes_by_itself() -> None:
    with pytest.raises(SpeakError, match=r"tokenizer is dtp-gumbel; only a speak run"):
        BoundaryEngine(system_of("dtp-gumbel"), config_of("dtp-gumbel"))
