"""One language model behind several systems: shared weights, exact resume, and what cannot be mixed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from speak_neuro.config import ModelConfig, NeuronConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.corpus.reader import embedded_text
from speak_neuro.supervision.proxy import ProxyStore
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.mixture import Mixture

TEXT = embedded_text("en")[:6000]
ALPHABET = Alphabet.learn(TEXT)
BASE = RunConfig(
    neuron=NeuronConfig(reset_scale=1.0),
    tokenizer=TokenizerConfig(encoder_width=16, context=3),
    model=ModelConfig(width=32, heads=2, inner=64, pre_layers=1, shortened_layers=1, post_layers=1),
    training=TrainingConfig(steps=10, batch=4, window=64, warmup=2, target_sf=4.0, drive="information", seed=3),
)


def of_kind(kind: str, **training: object) -> RunConfig:
    return dataclasses.replace(
        BASE,
        tokenizer=dataclasses.replace(BASE.tokenizer, kind=kind),
        training=dataclasses.replace(BASE.training, **training),  # type: ignore[arg-type]
    )


CONFIGS = {
    "white": of_kind("whitespace"),
    "speak": BASE,
    "unigram": of_kind("dtp-unigram"),
    "magnet": of_kind("magnet"),
}


def build() -> Mixture:
    spaces = np.array([character.isspace() for character in TEXT])
    return Mixture.create(CONFIGS, ALPHABET, ALPHABET.encode(TEXT), ProxyStore.create(spaces))


def test_a_step_trains_the_language_model_and_one_member() -> None:
    mixture = build()
    for turn in ("white", "speak", "unigram", "magnet", "white"):
        before = {name: value.clone() for name, value in mixture.shared.state_dict().items()}
        assert mixture.step()[0] == turn
        after = mixture.shared.state_dict()
        changed = {
            name.split(".")[1] if name.startswith("own") else "model"
            for name, value in before.items()
            if not torch.equal(value, after[name])
        }
        assert changed == {"model"} | ({str(list(CONFIGS).index(turn))} - {"0"})  # white space learns nothing
    for member in mixture.members:
        assert member.system.language_model is mixture.shared.language_model


def test_a_mixture_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, begun, resumed = build(), build(), build()
    (tmp_path / "whole").mkdir()
    whole.fit(tmp_path / "whole", every=5)
    for _ in range(6):
        begun.step()
    begun.save(tmp_path)
    resumed.restore(tmp_path)
    resumed.fit(tmp_path, every=5)
    state, other = whole.shared.state_dict(), resumed.shared.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in state.items())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, width=16)), "another model"),
        (of_kind("whitespace", steps=11), "steps 11; allowed: 10"),
        (of_kind("vanilla"), "vanilla"),
        (of_kind("speak", drive="proxy", neuron_loss="spike"), "acceptance never"),
    ],
)
def test_what_cannot_be_mixed(other: RunConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture.create({"speak": BASE, "other": other}, ALPHABET, ALPHABET.encode(TEXT), None)
