"""A target shortening factor is reached by every system with a knob, and the drive from information needs no proxy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from speak_neuro.config import ModelConfig, NeuronConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.corpus.reader import embedded_text
from speak_neuro.errors import SpeakError
from speak_neuro.supervision.proxy import ProxyStore
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training import evaluation
from speak_neuro.training.checks import check_settings
from speak_neuro.training.distributed import ALONE
from speak_neuro.training.evaluation import evaluate
from speak_neuro.training.fit import fit, train_step
from speak_neuro.training.rate import at_target, calibrate, held, highest, move, shifted
from speak_neuro.training.trainer import Trainer

TEXT = embedded_text("en")[:60_000]
ALPHABET = Alphabet.learn(TEXT)
IDS = ALPHABET.encode(TEXT)
TRAIN = IDS[:20_000]
# Every other thousand characters, so that both are of the same kind.
VALID, TEST = (np.concatenate([IDS[at : at + 1000] for at in range(first, 60_000, 2000)]) for first in (20_000, 21_000))

CASES = {
    "information": {"drive": "information"},
    "information on the grid": {"drive": "information", "grid": "loihi2"},
    "information from tables": {"drive": "information", "encoder": "convolution"},
    "information on the grid from tables": {"drive": "information", "grid": "loihi2", "encoder": "convolution"},
    "information by pre-layers": {"drive": "information", "encoder": "hourglass"},
    "information, hard": {"drive": "information", "reset_mode": "hard"},
    "spike likelihood": {"neuron_loss": "spike", "decay": 0.25},
    "dtp-entropy": {"kind": "dtp-entropy"},
    "dtp-unigram": {"kind": "dtp-unigram"},
    "dtp-gumbel": {"kind": "dtp-gumbel"},
    "magnet": {"kind": "magnet", "script_priors": "latin=0.3"},
    "hnet": {"kind": "hnet"},
    "magnet, sampled": {"kind": "magnet", "sample_at_evaluation": True},
}


def configuration(target: float, steps: int = 30, **given: object) -> RunConfig:
    """A tiny run; `given` goes to the section that has a field of that name."""
    sections = {
        "neuron": NeuronConfig(reset_scale=1.0),
        "tokenizer": TokenizerConfig(encoder_width=16, context=4),
        "model": ModelConfig(width=32, heads=2, inner=64, pre_layers=1, shortened_layers=1, post_layers=1),
        "training": TrainingConfig(
            steps=steps, batch=4, window=64, learning_rate=3e-3, tokenizer_learning_rate=1e-2, warmup=5, seed=7,
            entropy_share=0.6, target_sf=target, evaluate_every=1000,
        ),
    }  # fmt: skip
    for name, part in sections.items():
        own = {key: value for key, value in given.items() if key in {f.name for f in dataclasses.fields(part)}}
        sections[name] = dataclasses.replace(part, **own)
    return RunConfig(**sections)  # type: ignore[arg-type]


def build(config: RunConfig) -> Trainer:
    torch.manual_seed(config.training.seed)
    system = System(config, len(ALPHABET), ALPHABET)
    proxy = None
    if config.needs_exemplar:
        # White space and more, as an exemplar's spikes are not a function of the character alone.
        spaces = np.array([character.isspace() for character in TEXT[: len(TRAIN)]])
        proxy = ProxyStore.create(spaces | (np.random.default_rng(1).random(len(TRAIN)) < 0.2))
    return Trainer.create(system, config.training, TRAIN, proxy)


@pytest.fixture
def boundaries_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations without the losses of the language model, which take most of their time."""
    monkeypatch.setattr(evaluation, "_losses", lambda *given: np.zeros(given[-1].shape))


@pytest.mark.parametrize("target", [3.0, 5.5])
@pytest.mark.parametrize("case", CASES)
def test_the_target_is_reached(boundaries_alone: None, case: str, target: float, tmp_path: Path) -> None:
    config = configuration(target, steps=15, **CASES[case])
    check_settings(config)
    trainer = build(config)
    fit(tmp_path, trainer, VALID)
    drawn = getattr(trainer.system.boundary_module, "sampled", False)
    valid, test = (evaluate(trainer.system, ids, 64, batch=64).shortening_factor for ids in (VALID, TEST))
    assert valid == pytest.approx(target, rel=0.04 if drawn else 0.01)
    assert test == pytest.approx(target, rel=0.06)  # 20,000 characters


@pytest.mark.parametrize(("case", "steps"), [("information", 80), ("spike likelihood", 80), ("dtp-gumbel", 150)])
def test_training_itself_goes_towards_the_target(case: str, steps: int) -> None:
    rates = []
    for target in (2.5, 7.0):
        trainer = build(configuration(target, steps=400, **CASES[case]))
        rates.append(np.mean([1 / train_step(trainer)["sf"] for _ in range(steps)][-30:]))
    assert rates[0] > 1.25 * rates[1]


def test_a_knob_moves_against_the_rate() -> None:
    for case, sign in (("spike likelihood", 1), ("information", -1), ("dtp-gumbel", -1)):
        system = build(configuration(4.0, **CASES[case])).system
        assert system.rate is not None
        before = float(system.rate.value)
        move(system, torch.tensor(0.5), 1.0, ALONE)  # twice the wanted rate
        assert sign * (float(system.rate.value) - before) > 0
        move(system, torch.tensor(0.0), 1.0, ALONE)
        assert float(system.rate.value) == pytest.approx(before)
    assert build(configuration(4.0, **CASES["dtp-unigram"])).system.rate is None
    assert build(configuration(0.0, **CASES["magnet"])).system.rate is None


def test_an_evaluation_on_the_way_leaves_every_bit_where_it_was() -> None:
    trainer = build(configuration(5.0, **CASES["information"]))
    for _ in range(3):
        train_step(trainer)
    before = {name: value.clone() for name, value in trainer.system.state_dict().items()}
    with at_target(trainer.system, VALID, 64, keep=False):
        assert evaluate(trainer.system, VALID, 64).shortening_factor == pytest.approx(5.0, rel=0.01)
    assert all(torch.equal(value, before[name]) for name, value in trainer.system.state_dict().items())


def test_one_bias_alone_is_shifted() -> None:
    trainer = build(configuration(5.0, **CASES["information"]))
    before = {name: value.clone() for name, value in trainer.system.state_dict().items()}
    shift = calibrate(trainer.system, VALID, 64, 5.0)
    changed = [name for name, value in trainer.system.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["tokenizer.current_readout.bias"]
    ((bias, _),) = shifted(trainer.system)
    torch.testing.assert_close(bias, before[changed[0]] + shift)


def test_the_highest_logits_of_a_batch() -> None:
    logit = torch.tensor([[0.1, -3.0, 2.0, 0.0], [5.0, -1.0, -2.0, 0.3]])
    assert highest(logit, 4.0, ALONE).tolist() == [[False, False, True, False], [True, False, False, False]]
    assert highest(logit, 2.0, ALONE).sum() == 4


def test_the_drive_needs_neither_exemplar_nor_white_space(tmp_path: Path) -> None:
    """Japanese: its tokens carry about equal information, and the current follows the model's own uncertainty."""
    text = embedded_text("ja")[:20_000]
    alphabet = Alphabet.learn(text)
    ids = alphabet.encode(text)
    config = configuration(2.0, steps=120, **CASES["information"])
    assert not config.needs_exemplar
    torch.manual_seed(1)
    trainer = Trainer.create(System(config, len(alphabet), alphabet), config.training, ids, None)
    records = [train_step(trainer) for _ in range(120)]
    assert records[-1]["loss_mem"] < 0.5 * records[0]["loss_mem"]
    with at_target(trainer.system, ids[:5000], 64, keep=True):
        found = evaluate(trainer.system, ids[:5000], 64)
    assert found.shortening_factor == pytest.approx(2.0, rel=0.02)
    assert 0.05 < found.gate_rate < 0.95


@pytest.mark.parametrize("target", [3, 4, 7])
@pytest.mark.parametrize(
    "given", [{}, {"decay": 0.5, "reset_potential": -0.25, "threshold": 2.0}, {"grid": "loihi2"}, {"encoder": "linear"}]
)
def test_a_neuron_that_learned_nothing_ends_tokens_of_the_wanted_length(target: int, given: dict[str, object]) -> None:
    system = build(configuration(float(target), **{**CASES["information, hard"], **given})).system.eval()
    with torch.no_grad():
        found = system.tokenizer(torch.from_numpy(TEST[:96].astype(np.int64))[None])
    assert found.spikes[0].nonzero().flatten().tolist() == list(range(target - 1, 96, target))


def test_the_likelihood_of_ideal_spikes_is_learned() -> None:
    """The spikes come to agree with those of a neuron whose current is the information itself."""
    trainer = build(configuration(4.0, steps=100, **CASES["information"], neuron_loss="spike"))
    records = [train_step(trainer) for _ in range(100)]
    assert records[0]["sf"] < 8, "silent at first"
    first, last = (sum(record["loss_mem"] for record in part) for part in (records[:10], records[-10:]))
    assert last < 0.7 * first


def test_the_drive_sees_no_future() -> None:
    trainer = build(configuration(4.0, **CASES["information"]))
    for _ in range(20):
        train_step(trainer)
    system = trainer.system.eval()
    rows = torch.from_numpy(TEST[:128].astype(np.int64))[None].repeat(2, 1)
    rows[1, 80:] = rows[0, 20:68]
    with torch.no_grad():
        found = system.tokenizer(rows)
        logits = system.language_model(rows, found.spikes.bool())
    for value in (found.current, found.gate_logit, found.membrane, found.spikes, logits):
        torch.testing.assert_close(value[0, :80], value[1, :80], rtol=0, atol=1e-5)
    assert not torch.equal(found.current[0, 80:], found.current[1, 80:])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target_sf": 1.0}, "above 1"),
        ({"target_sf": 0.0, "drive": "information"}, "give --target-sf"),
        ({"target_sf": 4.0, "tanh": True, "neuron_loss": "spike"}, "--tanh"),
        ({"target_sf": 4.0, "neuron_loss": "membrane"}, "--neuron-loss spike"),
        ({"target_sf": 4.0, "drive": "information", "reset_mode": "none"}, "--reset-mode none"),
    ],
)
def test_what_has_no_target_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(SpeakError, match=message):
        check_settings(configuration(**{"target": 4.0, **given}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "case", [name for name, given in CASES.items() if given.get("kind", "speak") == "speak" and name != "hnet"]
)
def test_the_model_trains_on_tokens_of_the_target(case: str) -> None:
    """From the first step on, whatever the neuron's own rate is by then."""
    trainer = build(configuration(3.0, **CASES[case]))
    for _ in range(4):
        assert train_step(trainer)["sf"] == pytest.approx(3.0, rel=0.1 if "grid" in case else 0.03)


def test_a_held_batch_is_the_same_neuron_with_a_constant_added() -> None:
    """One number for all rows, by numpy's reference; the gradient reaches the readout as before."""
    trainer = build(configuration(4.0, **CASES["information, hard"]))
    system, ids = trainer.system, torch.from_numpy(TRAIN[:256].astype(np.int64)).view(4, 64)
    torch.nn.init.normal_(system.tokenizer.current_readout.weight)  # it begins constant
    found = system.tokenizer(ids)
    taken = held(system, found, ALONE)
    shift = (taken.current - found.current).detach()
    assert shift.max() - shift.min() < 1e-5
    neuron = system.tokenizer.neuron
    expected = np.zeros((4, 64))
    for row, current in enumerate(taken.current.detach().double().numpy()):
        potential = 0.0
        for t, drive in enumerate(current):
            potential = float(neuron.decay) * potential + float(neuron.gain) * drive
            if potential >= float(neuron.threshold):
                expected[row, t], potential = 1, float(neuron.reset_potential)
    assert (taken.spikes.detach().numpy() == expected).mean() > 0.99  # sums in float32 and float64
    assert abs(taken.spikes.mean().item() * 4 - 1) < 0.02
    taken.membrane.sum().backward()
    assert system.tokenizer.current_readout.weight.grad.abs().sum() > 0
