"""A target length: held by the price in training, and reached on other text by one shift of the current."""

from __future__ import annotations

import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from speak_neuro.config import NeuronConfig
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.config import SpeakTraining
from speak_neuro.rtok.tasks.examples import Example
from speak_neuro.rtok.tokenizers.speak import SpeakSegmenter
from speak_neuro.rtok.training.joint import JointTokenizer
from speak_neuro.rtok.training.proxies import Segment

NEURON = NeuronConfig(decay=0.25, reset_mode="hard")
SHARED = {
    "encoder": "window", "encoder_width": 16, "context": 4, "look_ahead": 1, "neuron_loss": "spike", "tanh": False,
    "tokenizer_learning_rate": 1e-2,
}  # fmt: skip


def pieces(unit: str) -> list[str]:
    """An exemplar: each vowel but a first one begins a piece."""
    starts = [0, *(at for at, character in enumerate(unit) if at > 1 and character in "aeiou"), len(unit)]
    return [unit[a:b] for a, b in pairwise(starts)]


def sentences(count: int, seed: int) -> list[Example]:
    generator = np.random.default_rng(seed)
    words = ["▁" + "".join(generator.choice(list("aeioubdgklmnrst"), 7)) for _ in range(10 * count)]
    return [Example(number, (tuple(words[10 * number : 10 * number + 10]),), (0,) * 10) for number in range(count)]


def unsure(unit: str) -> list[str]:
    """Pieces begin at a vowel by chance, mostly at an a, seldom at a u: a cut's probability is a matter of degree."""
    chances = {"a": 95, "e": 75, "i": 50, "o": 25, "u": 5}
    drawn = [zlib.crc32(f"{unit}{at}".encode()) % 100 < chances.get(sign, 0) for at, sign in enumerate(unit)]
    starts = [0, *(at for at, taken in enumerate(drawn) if taken and at > 1), len(unit)]
    return [unit[a:b] for a, b in pairwise(starts)]


def joint_of(target: float, exemplar: Segment = pieces, count: int = 40) -> JointTokenizer:
    torch.manual_seed(0)
    settings = SpeakTraining(**SHARED, target_length=target)  # type: ignore[arg-type]
    return JointTokenizer.create(sentences(count, 1), exemplar, NEURON, settings, 5)


def length(joint: JointTokenizer, examples: list[Example], exemplar: Segment = pieces) -> float:
    """Mean tokens of a sentence, special ones included, as a share of the pieces'."""
    units = [list(example.texts[0]) for example in examples]
    found = SpeakSegmenter(joint.tokenizer, joint.limits).segment(units, "en")
    tokens = sum(len(part) for parts in found for part in parts)
    wanted = sum(len(exemplar(unit)) for sentence in units for unit in sentence)
    return (tokens + 2 * len(units)) / (wanted + 2 * len(units))


@pytest.mark.parametrize("target", [0.7, 0.85, 1.0, 1.2])
def test_the_target_is_reached_on_other_text(target: float) -> None:
    joint, other = joint_of(target), sentences(60, 2)
    joint.warm_up(sentences(40, 1), 8, lambda record: None)
    before = [parameter.detach().clone() for parameter in joint.tokenizer.parameters()]
    with joint.at_target(other):
        assert length(joint, other) == pytest.approx(target, rel=0.02)
    for old, parameter in zip(before, joint.tokenizer.parameters(), strict=True):
        assert torch.equal(old, parameter)


def test_the_price_holds_the_length_while_it_learns() -> None:
    """Words that never come twice: what is learned is how likely each vowel's cut is."""
    joint = joint_of(0.85, unsure, 400)
    records: list[dict[str, float]] = []
    joint.warm_up(sentences(400, 1), 4, records.append)
    free = joint_of(0.0, unsure, 400)
    free.warm_up(sentences(400, 1), 4, lambda record: None)
    assert length(joint, sentences(60, 2), unsure) < length(free, sentences(60, 2), unsure) - 0.02
    assert records[-1]["price"] > 0.2


def test_the_beginning_is_at_the_target_and_stays_there() -> None:
    """One shift and the price that goes with it: as many steps later the length is still the target's."""
    joint, data = joint_of(0.8, unsure, 100), sentences(100, 1)
    joint.warm_up(data, 4, lambda record: None)
    joint.begin(data)
    assert length(joint, data, unsure) == pytest.approx(0.8, rel=0.02)
    joint.warm_up(data, 4, lambda record: None)
    assert length(joint, data, unsure) == pytest.approx(0.8, rel=0.08)


def test_a_price_survives_a_checkpoint() -> None:
    joint, other = joint_of(0.8), joint_of(0.8)
    joint.warm_up(sentences(40, 1), 8, lambda record: None)
    assert joint.length.price != 0
    other.restore(joint.tensors())
    assert other.length.price == joint.length.price
    with pytest.raises(SpeakError, match="began without --target-length"):
        other.restore(joint_of(0.0).tensors())


def test_without_a_target_nothing_is_priced() -> None:
    joint = joint_of(0.0)
    records: list[dict[str, float]] = []
    joint.warm_up(sentences(40, 1), 8, records.append)
    assert joint.length.price == 0
    assert "price" not in records[-1]
    before = length(joint, sentences(20, 2))
    with joint.at_target(sentences(20, 3)):
        assert length(joint, sentences(20, 2)) == before


def test_a_run_begins_with_a_trained_tokenizer(tmp_path: Path) -> None:
    first = joint_of(0.0)
    first.warm_up(sentences(40, 1), 8, lambda record: None)
    first.tokenizer.save(tmp_path)
    settings = SpeakTraining(**SHARED, target_length=0.9)  # type: ignore[arg-type]
    second = JointTokenizer.create(sentences(5, 4), pieces, NEURON, settings, 5, start=tmp_path)
    for a, b in zip(first.tokenizer.parameters(), second.tokenizer.parameters(), strict=True):
        assert torch.equal(a, b)
    assert second.tokenizer.alphabet == first.tokenizer.alphabet
    slower = NeuronConfig(decay=0.5, reset_mode="hard")
    with pytest.raises(SpeakError, match=r"its decay is 0.25, this run's 0.5; start from its like"):
        JointTokenizer.create(sentences(5, 4), pieces, slower, settings, 5, start=tmp_path)
    other = SpeakTraining(**{**SHARED, "look_ahead": 2})  # type: ignore[arg-type]
    with pytest.raises(SpeakError, match="its look_ahead is 1, this run's 2"):
        JointTokenizer.create(sentences(5, 4), pieces, NEURON, other, 5, start=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "linear", "context": 1, "look_ahead": 1}, "look_ahead is 1; allowed with the linear encoder"),
        (
            {"encoder": "window", "context": 3, "look_ahead": 3},
            "look_ahead is 3; allowed with the window encoder, which sees 3: 0 to 2",
        ),
        ({"look_ahead": 5}, "look_ahead is 5; allowed: 0 to 4"),
        ({"target_length": 0.9, "tanh": False}, "target_length is 0.9; allowed: 0 with L_mem"),
        ({"target_length": 0.9, "neuron_loss": "spike", "tanh": True}, "target_length is 0.9; allowed: 0 with L_mem"),
        ({"target_length": -1.0}, "target_length is -1.0; allowed: 0.0 to 4.0"),
        ({"neuron_loss": "hinge"}, "neuron_loss is 'hinge'; allowed: spike, membrane"),
    ],
)
def test_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpeakTraining(**changes)  # type: ignore[arg-type]
