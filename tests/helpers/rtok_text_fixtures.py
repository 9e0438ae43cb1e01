"""A tiny exemplar and sentences for the tests of speak_neuro.rtok."""

from __future__ import annotations

import torch

from speak_neuro.config import NeuronConfig, TokenizerConfig, TrainingConfig
from speak_neuro.rtok.text.characters import learn_characters
from speak_neuro.rtok.text.normalise import normalise_words
from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer, rtok_config

SENTENCES = [
    "The committee visited Reykjavík , didn't it ?",
    "Дом стоит на берегу реки .",
    "नमस्ते दुनिया , फिर मिलेंगे",
    "Donaudampfschifffahrtsgesellschaft und andere lange Wörter",
    "Um dia de sol , e a casa caiu .",
]


def word_batch() -> list[list[str]]:
    return [normalise_words(sentence.split()) for sentence in SENTENCES]


def thirds(unit: str) -> list[str]:
    """An exemplar: pieces of three characters, the word sign with the first two."""
    return [unit[start : start + 3] for start in range(0, len(unit), 3)]


def check_joined(batch: list[list[str]], tokens: list[list[list[str]]], name: str) -> None:
    """A segmenter may lose nothing: the tokens of a unit are not empty and give the unit back."""
    for units, parts in zip(batch, tokens, strict=True):
        for unit, pieces in zip(units, parts, strict=True):
            whole = "".join(pieces) == unit and all(pieces)
            assert whole, f"segmenter {name}: tokens {pieces!r} do not join to the unit {unit!r}"


def lively_tokenizer(mode: str = "gated", width: int = 16, seed: int = 0, **training: object) -> CharacterTokenizer:
    """Untrained, its currents raised so that it spikes, its gate open for about half the characters."""
    torch.manual_seed(seed)
    units = [unit for sentence in word_batch() for unit in sentence]
    training = {"neuron_loss": "membrane", **training}
    settings = TrainingConfig(fire_mix=1.2, rest_mix=0.6, learn_mixes=False, **training)  # type: ignore[arg-type]
    config = rtok_config(NeuronConfig(reset_mode=mode), training=settings)  # type: ignore[arg-type]
    tokenizer = CharacterTokenizer(learn_characters(units), config)
    with torch.no_grad():
        tokenizer.boundary.current_readout.weight.mul_(2)
        tokenizer.boundary.current_readout.bias.add_(0.4 - torch.atanh(tokenizer.table()[:, 0]).mean())
        tokenizer.boundary.gate_readout.bias.sub_(tokenizer.table()[:, 1].median())
    return tokenizer


def ahead_tokenizer(
    encoder: str, context: int, look_ahead: int, mode: str = "gated", seed: int = 0, **training: object
) -> CharacterTokenizer:
    """Untrained, with a context and a look-ahead; it spikes at about a third of the characters."""
    torch.manual_seed(seed)
    units = [unit for sentence in word_batch() for unit in sentence]
    config = rtok_config(
        NeuronConfig(reset_mode=mode, decay=0.5),
        TokenizerConfig(encoder=encoder, encoder_width=16, context=context),
        TrainingConfig(learn_mixes=False, **training),  # type: ignore[arg-type]
    )
    tokenizer = CharacterTokenizer(learn_characters(units), config, look_ahead)
    ids, valid = tokenizer.rows(units)
    with torch.no_grad():
        current, _, steps = tokenizer.drive(ids, valid)
        boundary = tokenizer.boundary
        spread = current[steps].std()
        weight = boundary.encoder.sixteenths if encoder == "convolution" else boundary.current_readout.weight
        weight.mul_(0.6 / spread)
        for bias, share in boundary.encoder.offsets(boundary.current_readout):
            bias.add_(share * (0.6 - 0.6 * current[steps].mean() / spread))
    return tokenizer
